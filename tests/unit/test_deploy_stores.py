"""The limits of all streams fit into the store of NATS, in every shipped deployment."""

import re

from services.bus.specs import disk_specs
from services.settings import Settings
from tests.support.docs import ROOT

# Streams are full before the store is: there is room for what NATS itself needs.
_MOST = 0.9


def _needed(text: str) -> int:
    """Return what all streams may hold together, with the sizes that a file sets."""
    sizes = {
        name: int(found[1])
        for name in ("history_max_bytes", "inbox_max_bytes")
        if (found := re.search(rf"TIDINGS_{name.upper()}[:=] ?\"?(\d+)", text))
    }
    return sum(spec.max_bytes for spec in disk_specs(Settings(**sizes)))  # type: ignore[arg-type]


def _store(text: str) -> int:
    found = re.search(r"(?:max_file_store: |NATS_FILE_STORE, value: )(\d+)(MB|GB)", text)
    assert found is not None
    return int(found[1]) << (20 if found[2] == "MB" else 30)  # nats-server reads MB as MiB


def _text(path: str) -> str:
    return (ROOT / "deploy" / path).read_text(encoding="utf-8")


def test_the_compose_file_to_try() -> None:
    assert _needed(_text("compose.yaml")) < _MOST * _store(_text("nats/nats.conf"))


def test_the_compose_file_for_production() -> None:
    assert "TIDINGS_HISTORY_MAX_BYTES" in _text("compose.prod.yaml")
    assert _needed(_text("compose.prod.yaml")) < _MOST * _store(_text("nats/cluster.conf"))


def test_kubernetes() -> None:
    assert _needed(_text("kubernetes/overlays/dev/kustomization.yaml")) < _MOST * _store(
        _text("kubernetes/nats/nats.yaml")
    )
    production = _text("kubernetes/overlays/prod/kustomization.yaml")
    assert "TIDINGS_HISTORY_MAX_BYTES" in production
    assert _needed(production) < _MOST * _store(_text("kubernetes/overlays/prod/nats.yaml"))
