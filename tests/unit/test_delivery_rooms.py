"""Joining rooms that store nothing, over a bus in memory."""

import asyncio
from typing import Any, cast

import pytest

from gateway.delivery.rooms import Joined, Rooms
from gateway.delivery.traffic import Traffic
from services.bus.errors import BusError, Unavailable
from services.settings import Settings
from services.tasks import TaskSet
from services.wire.records import UNSET
from tests.support.deadline import eventually
from tests.support.delivery import FakeBus, FakeMessage, Recorder


class FlushedBus(FakeBus):
    """A bus whose server has processed what was sent only when the test says so."""

    def __init__(self) -> None:
        super().__init__()
        self.flushes = 0
        self.processed: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    async def flush(self) -> None:
        self.flushes += 1
        await asyncio.shield(self.processed)


class NoLogs:
    """Namespaces of which none stores anything."""

    def of_namespace(self, name: str) -> None:
        """Return the log of a namespace."""


@pytest.fixture
async def bus() -> FlushedBus:
    return FlushedBus()


@pytest.fixture
async def rooms(bus: FlushedBus) -> Rooms:
    return Rooms(cast(Any, bus), cast(Any, NoLogs()), Settings(), TaskSet(), Traffic())


def _join(rooms: Rooms, name: str) -> list[Joined | BusError | None]:
    answers: list[Joined | BusError | None] = []
    rooms.join(Recorder(name), "live:cursor", UNSET, lambda: True, answers.append)
    return answers


async def test_nobody_is_in_before_the_bus_has_the_subscription(rooms: Rooms, bus: FlushedBus) -> None:
    first, second = _join(rooms, "a"), _join(rooms, "b")
    await eventually(lambda: bus.flushes == 1, "the subscription was not waited for")
    assert (first, second) == ([], [])
    bus.processed.set_result(None)
    await eventually(lambda: bool(first and second), "nobody was let in")
    assert rooms.members("live:cursor") == 2


async def test_who_comes_later_waits_for_nothing(rooms: Rooms, bus: FlushedBus) -> None:
    bus.processed.set_result(None)
    first = _join(rooms, "a")
    await eventually(lambda: bool(first), "nobody was let in")
    assert [type(answer) for answer in _join(rooms, "b")] == [Joined]
    assert bus.flushes == 1


async def test_without_the_bus_the_join_is_refused(rooms: Rooms, bus: FlushedBus) -> None:
    bus.processed.set_exception(Unavailable("not connected to NATS"))
    answers = _join(rooms, "a")
    await eventually(lambda: bool(answers), "no answer")
    assert isinstance(answers[0], Unavailable)
    assert rooms.members("live:cursor") == 0


_MEMBERS = "tidings.out.members.live.live=3Acursor"
_JOIN = b'{"type":"user_joined","userId":"ann","username":"Ann","room":"live:cursor"}'
_FORGED = (
    b'{"type":"room_message","userId":"ann","username":"Ann","room":"live:cursor","content":1,"timestamp":1}'
)


async def test_who_joins_is_heard_on_a_subject_that_carries_no_messages(
    rooms: Rooms, bus: FlushedBus
) -> None:
    bus.processed.set_result(None)
    member = Recorder("a")
    answers: list[Joined | BusError | None] = []
    rooms.join(member, "live:cursor", UNSET, lambda: True, answers.append)
    await eventually(lambda: bool(answers), "not let in")
    for payload in (_FORGED, _JOIN):
        bus.callbacks[_MEMBERS](FakeMessage(0, 0, payload, _MEMBERS))
    bus.callbacks["tidings.out.room.live.live=3Acursor"](FakeMessage(0, 0, _JOIN))
    await eventually(lambda: member.contents == ["user_joined"], f"one join, not {member.contents}")
    rooms.close()
    assert bus.callbacks == {}
