"""Joining rooms that store nothing, over a bus in memory."""

import asyncio
from typing import Any, cast

import pytest
import structlog

from gateway.delivery.counters import Counters
from gateway.delivery.reads import Reads
from gateway.delivery.rooms import RoomJoin, Rooms
from gateway.delivery.stream_subscription import DeliveryParts
from gateway.delivery.streams import RoomRoute, route_of
from services.bus.errors import BusError, Unavailable
from services.settings import Settings
from services.tasks import TaskSet
from services.wire.records import UNSET, Position
from tests.support.deadline import eventually
from tests.support.delivery import FakeBus, FakeMessage, Recorder


class FlushedBus(FakeBus):
    """A bus whose server processes messages only when the test allows it."""

    def __init__(self) -> None:
        super().__init__()
        self.flushes = 0
        self.processed: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    async def flush(self) -> None:
        self.flushes += 1
        await asyncio.shield(self.processed)


class Streams:
    """All namespaces have this log, or none."""

    def __init__(self, log: object) -> None:
        self.log = log

    def route(self, room: str) -> RoomRoute:
        settings = Settings()
        logs = {} if self.log is None else {settings.namespace_of(room): cast(Any, self.log)}
        return route_of(settings, logs, room)

    def require_open(self) -> None:
        pass


def _rooms(bus: FlushedBus, log: object, counters: Counters) -> Rooms:
    streams, reads = cast(Any, Streams(log)), Reads(lambda _limit: None)
    return Rooms(DeliveryParts(cast(Any, bus), streams, Settings(), TaskSet(), counters, reads))


@pytest.fixture
async def bus() -> FlushedBus:
    return FlushedBus()


@pytest.fixture
async def rooms(bus: FlushedBus) -> Rooms:
    return _rooms(bus, None, Counters())


def _join(rooms: Rooms, name: str) -> list[RoomJoin | BusError | None]:
    answers: list[RoomJoin | BusError | None] = []
    rooms.join(Recorder(name), "live:cursor", UNSET, lambda: True, answers.append)
    return answers


async def test_a_join_waits_for_the_bus_to_have_the_subscription(rooms: Rooms, bus: FlushedBus) -> None:
    first, second = _join(rooms, "a"), _join(rooms, "b")
    await eventually(lambda: bus.flushes == 1, "the subscription was not waited for")
    assert (first, second) == ([], [])
    bus.processed.set_result(None)
    await eventually(lambda: bool(first and second), "nobody was let in")
    assert rooms.has("a", "live:cursor")
    assert rooms.has("b", "live:cursor")


async def test_a_later_join_waits_for_nothing(rooms: Rooms, bus: FlushedBus) -> None:
    bus.processed.set_result(None)
    first = _join(rooms, "a")
    await eventually(lambda: bool(first), "nobody was let in")
    assert [type(answer) for answer in _join(rooms, "b")] == [RoomJoin]
    assert bus.flushes == 1


async def test_without_the_bus_the_join_is_refused(rooms: Rooms, bus: FlushedBus) -> None:
    bus.processed.set_exception(Unavailable("not connected to NATS"))
    answers = _join(rooms, "a")
    await eventually(lambda: bool(answers), "no answer")
    assert isinstance(answers[0], Unavailable)
    assert not rooms.has("a", "live:cursor")


_MEMBERS = "tidings.out.members.live.live=3Acursor"
_JOIN = b'{"type":"user_joined","userId":"ann","username":"Ann","room":"live:cursor"}'
_FORGED = (
    b'{"type":"room_message","userId":"ann","username":"Ann","room":"live:cursor","content":1,"timestamp":1}'
)


async def test_joins_have_a_subject_that_carries_no_messages(rooms: Rooms, bus: FlushedBus) -> None:
    bus.processed.set_result(None)
    member = Recorder("a")
    answers: list[RoomJoin | BusError | None] = []
    rooms.join(member, "live:cursor", UNSET, lambda: True, answers.append)
    await eventually(lambda: bool(answers), "not let in")
    for payload in (_FORGED, _JOIN):
        bus.callbacks[_MEMBERS](FakeMessage(0, 0, payload, _MEMBERS))
    bus.callbacks["tidings.out.room.live.live=3Acursor"](FakeMessage(0, 0, _JOIN))
    await eventually(lambda: member.contents == ["user_joined"], f"one join, not {member.contents}")
    rooms.close()
    assert bus.callbacks == {}


class Unreadable:
    """The log of a namespace that answers each position with another epoch."""

    epoch = "now"

    async def last_of(self, subject: str) -> tuple[int, int]:
        return 0, 0


async def test_joins_that_recover_nothing_are_counted_and_not_logged_each(
    bus: FlushedBus,
) -> None:
    counters = Counters()
    rooms = _rooms(bus, Unreadable(), counters)
    answers: list[RoomJoin | BusError | None] = []
    with structlog.testing.capture_logs() as lines:
        for _ in range(50):
            rooms.join(Recorder("a"), "lobby", Position("before", 7), lambda: True, answers.append)
        await eventually(lambda: len(answers) == 50, "all are answered")
    assert {type(answer) for answer in answers} == {RoomJoin}
    assert counters.recoveries == {"other_epoch": 50}
    assert len([line for line in lines if line["event"] == "room not recovered"]) <= 2


async def test_a_room_is_opened_once_though_the_first_to_come_leaves(bus: FlushedBus) -> None:
    opened = asyncio.Event()
    opens = 0

    class Slow(Unreadable):
        async def last_of(self, subject: str) -> tuple[int, int]:
            nonlocal opens
            opens += 1
            await opened.wait()
            return 0, 0

    rooms = _rooms(bus, Slow(), Counters())
    answers: list[RoomJoin | BusError | None] = []
    rooms.join(Recorder("a"), "lobby", UNSET, lambda: True, answers.append)
    await eventually(lambda: opens == 1, "it is being opened")
    first = next(task for task in asyncio.all_tasks() if task.get_name() == "join lobby")
    first.cancel()
    rooms.join(Recorder("b"), "lobby", UNSET, lambda: True, answers.append)
    await asyncio.sleep(0.01)
    opened.set()
    await eventually(lambda: bool(answers), "the second is in")
    assert opens == 1
    assert rooms.has("b", "lobby")
    assert not rooms.has("a", "lobby")
