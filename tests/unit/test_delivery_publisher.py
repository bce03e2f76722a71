"""What a publish is answered with while the streams are away."""

from types import SimpleNamespace
from typing import Any

import msgspec

from gateway.delivery.publisher import Publisher, PublishRefused, Sender
from services.bus.errors import Unavailable
from services.settings import Settings
from services.wire.codes import ErrorCode

_ANN = Sender("u-ann", "Ann", "c1")
_CONTENT = msgspec.Raw(b"1")


class _ClosedLogs:
    """Logs of a bus that has come back, and whose streams may be others than before."""

    def __init__(self) -> None:
        self.stored: list[str] = []
        self.inbox = self.of_namespace("default")

    def of_namespace(self, _name: str) -> Any:
        return SimpleNamespace(
            epoch="before", publish=lambda subject, *_args, **_named: self.stored.append(subject)
        )

    def require_open(self) -> None:
        raise Unavailable("the streams are not open again yet")


def test_nothing_is_stored_before_the_epoch_is_known_again() -> None:
    logs = _ClosedLogs()
    publisher = Publisher(SimpleNamespace(), logs, Settings(), lambda: 0)  # type: ignore[arg-type]
    outcomes: list[object] = []
    publisher.to_room(_ANN, "lobby", _CONTENT, outcomes.append, id="1")
    publisher.to_user(_ANN, "u-bob", _CONTENT, outcomes.append, id="2")
    assert logs.stored == []
    assert [outcome.code for outcome in outcomes if isinstance(outcome, PublishRefused)] == [
        ErrorCode.UNAVAILABLE,
        ErrorCode.UNAVAILABLE,
    ]
