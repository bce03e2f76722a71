"""The table of scenarios against a server without a network: the JavaScript suite carries out the same rows."""

from typing import Any

import pytest
from rig.scenario import Faked, rows

ROWS = rows("faked")


@pytest.mark.parametrize("codec", ["json", "msgpack"])
@pytest.mark.parametrize("row", [pytest.param(row, id=row["name"]) for row in ROWS])
async def test_scenario(row: dict[str, Any], codec: str) -> None:
    await Faked(row.get("options", {}), codec).run(row["steps"])


def test_the_table_names_each_row_once() -> None:
    assert len({row["name"] for row in ROWS}) == len(ROWS)


async def test_a_step_that_is_not_known_fails() -> None:
    with pytest.raises(AssertionError, match="does not know 'dance'"):
        await Faked({}).run([["dance"]])
    with pytest.raises(AssertionError, match="does not know what 'mood' is"):
        await Faked({}).run([["expect", {"mood": "fine"}]])
