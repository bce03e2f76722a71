"""The table of scenarios against real gateways, a real NATS and a real Redis."""

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from rig.fleet import Fleet
from rig.real import SECRET, Real
from rig.scenario import rows

from tests.support.requires import need

SETTINGS = {
    "open": {"TIDINGS_HEARTBEAT_INTERVAL_MS": "2000"},
    "tokens": {"TIDINGS_AUTH": "jwt", "TIDINGS_JWT_SECRETS": SECRET},
}
CASES = [
    # One deployment for all rows of a kind, in one worker where there are several.
    pytest.param(
        row, way, id=f"{row['name']} ({way})", marks=pytest.mark.xdist_group(f"python client, {server}")
    )
    for server in SETTINGS
    for row in rows("real")
    if row.get("server", "open") == server
    for way in row.get("ways", ["json"])
]


@pytest.fixture(scope="module")
def fleet_of() -> Iterator[Callable[[str], Fleet]]:
    """Return a function that returns the deployment of that kind; one at a time, as the machine is small."""
    need("nats-server")
    need("redis-server")
    running: dict[str, Fleet] = {}

    def get(kind: str) -> Fleet:
        if kind not in running:
            stop()
            running[kind] = Fleet(**SETTINGS[kind])
        return running[kind]

    def stop() -> None:
        for kind in list(running):
            running.pop(kind).__exit__(None, None, None)

    yield get
    stop()


@pytest.mark.timeout(120)
@pytest.mark.parametrize(("row", "way"), CASES)
async def test_scenario(row: dict[str, Any], way: str, fleet_of: Callable[[str], Fleet]) -> None:
    await Real(fleet_of(row.get("server", "open")), way).run(row["steps"])
