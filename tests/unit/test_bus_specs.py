"""Changes of an existing stream: automatic ones, and those that need an explicit command."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.bus.specs import StreamSpec, changes, disk_specs
from services.settings import Settings
from services.settings_values import Namespace

_LIMITS = ("num_replicas", "max_msgs_per_subject", "max_age", "max_bytes")


def _spec(**changed: Any) -> StreamSpec:
    return StreamSpec(
        **({
            "name": "n",
            "captured": "in.*",
            "max_per_subject": 100,
            "max_age_s": 600,
            "duplicate_window_s": 120,
            "replicas": 3,
            "max_bytes": 1000,
        } | changed)
    )  # fmt: skip


def test_what_fits_is_left_alone() -> None:
    needed = changes(_spec().config() | {"description": "ours"}, _spec(), 0)
    assert (needed.update, needed.lowered) == ({}, {})


@pytest.mark.parametrize(
    ("changed", "lowered"),
    [
        ({"replicas": 1}, {"num_replicas": (3, 1)}),
        ({"max_per_subject": 99}, {"max_msgs_per_subject": (100, 99)}),
        ({"max_bytes": 999}, {"max_bytes": (1000, 999)}),
        ({"duplicate_window_s": 1}, {"duplicate_window": (120 * 10**9, 10**9)}),
    ],
)
def test_what_would_delete_something(changed: dict[str, Any], lowered: dict[str, Any]) -> None:
    needed = changes(_spec().config(), _spec(**changed), 0)
    assert (needed.update, needed.lowered) == ({}, lowered)


def test_what_is_made_by_hand_without_limits() -> None:
    config = _spec().config() | {"max_bytes": -1, "max_age": 0, "max_msgs_per_subject": -1, "republish": None}
    needed = changes(config, _spec(), stored_bytes=1000)
    assert set(needed.update) == {"max_bytes", "republish"}  # all that is stored fits
    assert set(needed.lowered) == {"max_age", "max_msgs_per_subject"}
    assert "max_bytes" in changes(config, _spec(), stored_bytes=1001).lowered


_specs = st.builds(
    _spec,
    max_per_subject=st.integers(1, 5),
    max_age_s=st.integers(1, 5),
    duplicate_window_s=st.integers(1, 5),
    replicas=st.integers(1, 3),
    max_bytes=st.integers(1, 5),
)


@given(st.lists(_specs, min_size=1, max_size=6))
def test_gateways_with_any_settings_come_to_rest_at_the_largest(specs: list[StreamSpec]) -> None:
    config = specs[0].config()
    for spec in specs:
        update = changes(config, spec, 10).update
        assert all(update[name] > config[name] for name in _LIMITS if name in update)
        config |= update
        assert config["duplicate_window"] <= config["max_age"]  # the server refuses another
    assert all(changes(config, spec, 10).update == {} for spec in specs)
    for name in _LIMITS:
        assert config[name] == max(spec.config()[name] for spec in specs)


def test_every_stream_has_a_limit_and_revocations_are_never_evicted() -> None:
    settings = Settings(namespaces={"news": Namespace(max_bytes=5_000_000)})
    specs = {spec.name: spec for spec in disk_specs(settings)}
    assert set(specs) == {
        "tidings-rooms-default",
        "tidings-rooms-news",
        "tidings-inbox",
        "tidings-revocations",
    }
    assert all(spec.config()["max_bytes"] > 0 for spec in specs.values())
    assert specs["tidings-rooms-news"].max_bytes == 5_000_000
    assert {name for name, spec in specs.items() if spec.discard == "new"} == {"tidings-revocations"}
