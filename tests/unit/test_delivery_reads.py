"""Limits of concurrent reads: one recovery of a connection, a few of a gateway, and a queue."""

import asyncio

import pytest

from gateway.delivery import reads as module
from gateway.delivery.reads import Reads
from services.bus.errors import Unavailable
from tests.support.deadline import PATIENCE_S, eventually
from tests.support.delivery import Recorder


class Watch:
    """Recoveries that are under way, and the most there ever were at once."""

    def __init__(self) -> None:
        self.now = self.most = self.done = 0
        self.go = asyncio.Event()

    async def recover(self, reads: Reads, member: Recorder) -> None:
        async with reads.turn(member, lambda: True), reads.recovery():
            self.now += 1
            self.most = max(self.most, self.now)
            await self.go.wait()
            await asyncio.sleep(0)
            self.now -= 1
            self.done += 1


async def test_one_recovery_of_a_connection_at_a_time() -> None:
    reads, watch, member = Reads(lambda _limit: None), Watch(), Recorder("a")
    tasks = [asyncio.create_task(watch.recover(reads, member)) for _ in range(5)]
    await eventually(lambda: watch.now > 0)
    watch.go.set()
    await asyncio.gather(*tasks)
    assert (watch.done, watch.most) == (5, 1)
    assert reads._turns == {}  # nothing is left behind


async def test_a_few_recoveries_of_a_gateway_at_a_time() -> None:
    reads, watch = Reads(lambda _limit: None), Watch()
    tasks = [asyncio.create_task(watch.recover(reads, Recorder(str(number)))) for number in range(20)]
    await eventually(lambda: watch.now > 0)
    watch.go.set()
    await asyncio.gather(*tasks)
    assert (watch.done, watch.most) == (20, module._RECOVERIES)


async def test_too_many_recoveries_of_a_connection_are_refused() -> None:
    counted: list[str] = []
    reads, watch, member = Reads(counted.append), Watch(), Recorder("a")
    tasks = [asyncio.create_task(watch.recover(reads, member)) for _ in range(module._WAITING)]
    await eventually(lambda: watch.now > 0)
    with pytest.raises(Unavailable, match="of this connection"):
        async with asyncio.timeout(PATIENCE_S):
            await watch.recover(reads, member)
    assert counted == ["recoveries"]
    watch.go.set()
    await asyncio.gather(*tasks)


async def test_a_place_that_does_not_come_free_is_not_waited_for_long(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(module, "_WAIT_S", 0.05)
    counted: list[str] = []
    reads, watch = Reads(counted.append), Watch()
    tasks = [
        asyncio.create_task(watch.recover(reads, Recorder(str(number))))
        for number in range(module._RECOVERIES)
    ]
    await eventually(lambda: watch.now == module._RECOVERIES)
    with pytest.raises(Unavailable, match="too much"):
        await watch.recover(reads, Recorder("late"))
    assert counted == ["recoveries"]
    watch.go.set()
    await asyncio.gather(*tasks)
    async with reads.recovery():  # and the places are free again
        pass


async def test_a_client_that_has_not_read_the_last_one_waits() -> None:
    reads, watch, member = Reads(lambda _limit: None), Watch(), Recorder("a")
    watch.go.set()
    member.backlog = 10_000_000
    task = asyncio.create_task(watch.recover(reads, member))
    await asyncio.sleep(0.1)
    assert not watch.done
    member.backlog = 0
    await task
    assert watch.done == 1


async def test_what_is_asked_for_never_keeps_a_gap_from_being_filled() -> None:
    reads, watch = Reads(lambda _limit: None), Watch()
    tasks = [asyncio.create_task(watch.recover(reads, Recorder(str(number)))) for number in range(50)]
    await eventually(lambda: watch.now == module._RECOVERIES)
    async with asyncio.timeout(PATIENCE_S), reads.fills, reads.history():
        pass
    watch.go.set()
    await asyncio.gather(*tasks)
