"""Deployments, one of each kind for a complete run, started when a test first needs them."""

from collections.abc import Callable, Iterator

import pytest
from rig.fleet import Fleet
from rig.real import SECRET

from tests.support.requires import need

SETTINGS = {
    "open": {"TIDINGS_HEARTBEAT_INTERVAL_MS": "2000"},
    "application": {},
    "tokens": {"TIDINGS_AUTH": "jwt", "TIDINGS_JWT_SECRETS": SECRET},
}


@pytest.fixture(scope="session")
def fleet_of() -> Iterator[Callable[[str], Fleet]]:
    """Return a function that returns the deployment of that kind; one at a time, as machines may be small."""
    running: dict[str, Fleet] = {}

    def get(kind: str) -> Fleet:
        if kind not in running:
            need("nats-server")
            need("redis-server")
            stop()
            running[kind] = Fleet(application=kind == "application", **SETTINGS[kind])
        return running[kind]

    def stop() -> None:
        for kind in list(running):
            running.pop(kind).__exit__(None, None, None)

    yield get
    stop()
