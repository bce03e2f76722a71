"""One timer for all connections with the same deadline."""

import asyncio

from gateway.ws.timers import TimeoutQueue
from tests.support.deadline import eventually


async def test_late_members_are_notified_once_and_members_who_left_are_not() -> None:
    late: list[str] = []
    deadlines: TimeoutQueue[str] = TimeoutQueue(0.05, late.append)
    deadlines.add("first")
    deadlines.add("left")
    deadlines.discard("left")
    deadlines.discard("never there")
    await asyncio.sleep(0.03)
    deadlines.add("second")

    async def both() -> bool:
        return late == ["first", "second"]

    await eventually(both, "both to be late, in their order")
    assert len(deadlines) == 0
    deadlines.add("third")

    async def three() -> bool:
        return late[-1] == "third"

    await eventually(three, "the clock to start again")


async def test_a_late_entry_may_discard_others() -> None:
    late: list[str] = []

    def on_late(who: str) -> None:
        late.append(who)
        deadlines.discard("other")

    deadlines: TimeoutQueue[str] = TimeoutQueue(0.01, on_late)
    deadlines.add("one")
    deadlines.add("other")

    async def over() -> bool:
        return len(deadlines) == 0

    await eventually(over, "everybody to be gone")
    assert late == ["one"]
