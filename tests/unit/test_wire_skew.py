"""Different versions during an upgrade: messages on the bus ignore unknown fields."""

import inspect
from types import ModuleType

import msgspec
import pytest

from services.wire import alerting, client, events, records, rpc, server


@pytest.mark.parametrize(
    "module", [alerting, client, events, records, rpc, server], ids=lambda module: module.__name__
)
def test_no_type_refuses_a_field_that_it_does_not_know(module: ModuleType) -> None:
    types = [
        kind for kind in vars(module).values() if inspect.isclass(kind) and issubclass(kind, msgspec.Struct)
    ]
    assert types
    assert [kind.__name__ for kind in types if kind.__struct_config__.forbid_unknown_fields] == []
