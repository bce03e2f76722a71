"""The table of scenarios against real gateways, a real NATS and a real Redis."""

from collections.abc import Callable
from typing import Any

import pytest
from rig.fleet import Fleet
from rig.real import Real
from rig.scenario import marks_of, rows

KINDS = ("open", "tokens")
ROWS = rows("real")
CASES = [
    # One deployment for all rows of a kind, in one worker where there are several.
    pytest.param(
        row,
        way,
        id=f"{row['name']} ({way})",
        marks=[pytest.mark.xdist_group(f"python client, {kind}"), *marks_of(f"{row['name']} ({way})")],
    )
    for kind in KINDS
    for row in ROWS
    if row.get("server", "open") == kind
    for way in row.get("ways", ["json"])
]


@pytest.mark.timeout(120)
@pytest.mark.parametrize(("row", "way"), CASES)
async def test_scenario(row: dict[str, Any], way: str, fleet_of: Callable[[str], Fleet]) -> None:
    await Real(fleet_of(row.get("server", "open")), way).run(row["steps"])


def test_every_row_is_carried_out() -> None:
    assert {row.get("server", "open") for row in ROWS} <= set(KINDS)
