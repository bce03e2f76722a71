"""A subscription over a bus and a stream in memory: gaps, catching up, wiped streams, reconnects of the bus."""

import asyncio
import time
from collections.abc import AsyncIterator
from dataclasses import replace
from types import SimpleNamespace
from typing import Any, cast

import msgspec
import pytest

from gateway.delivery.catch_up import catch_up, read_history
from gateway.delivery.counters import Counters
from gateway.delivery.encoded_message import EncodedMessage, Encoding, RecoveryAnswer
from gateway.delivery.reads import Reads
from gateway.delivery.recovery import RecoveryVerdict
from gateway.delivery.resync import check_all, resume_all
from gateway.delivery.stream_subscription import DeliveryParts, StreamSubscription
from services.bus.errors import Unavailable
from services.tasks import TaskSet
from services.wire import server
from services.wire.records import Position
from tests.support.deadline import eventually
from tests.support.delivery import AWAY, FakeBus, FakeMessage, FakeStream, Recorder, decode

LIVE, STORED = "out.r", "in.r"


class Rig:
    """A subscription with one member, its stream and its bus."""

    def __init__(self, stream: FakeStream | None) -> None:
        self.stream = stream or FakeStream()
        self.bus = FakeBus()
        self.tasks = TaskSet()
        self.breaks: list[Position] = []
        self.counters = Counters()
        bus, nothing = cast(Any, self.bus), cast(Any, None)
        reads = Reads(self.counters.limit_hit)
        parts = DeliveryParts(bus, nothing, nothing, self.tasks, self.counters, reads)
        self.subscription = StreamSubscription(parts, cast(Any, stream), LIVE, decode, self._on_break)
        self.member = Recorder("m")
        self.subscription.fanout.add(self.member)

    def _on_break(self, position: Position) -> EncodedMessage:
        self.breaks.append(position)
        return EncodedMessage(server.JoinedRoom(room="r", recovered=False))

    def hear(self, message: FakeMessage) -> None:
        self.bus.callbacks[LIVE](message)

    def resync(self) -> None:
        """Do what a gateway does when the bus is back."""
        for log, followers in resume_all([self.subscription]).items():
            self.tasks.spawn(check_all(log, followers, 500_000), "check")

    async def heard(self, *contents: object) -> None:
        await eventually(
            lambda: self.member.contents == [*contents], f"{contents}, not {self.member.contents}"
        )


@pytest.fixture
async def rig() -> AsyncIterator[Rig]:
    made = Rig(FakeStream())
    made.subscription.open_at(0)
    yield made
    await made.tasks.close()


async def test_live_messages_pass_at_once(rig: Rig) -> None:
    for number in range(3):
        rig.hear(rig.stream.store(number))
    await rig.heard(0, 1, 2)
    assert rig.stream.reads == 0


async def test_what_comes_before_the_position_is_known_waits() -> None:
    rig = Rig(FakeStream())
    rig.stream.store("before")
    later = rig.stream.store("after")
    rig.hear(later)
    assert rig.member.contents == []
    rig.subscription.open_at(1)
    await rig.heard("after")


async def test_a_gap_is_filled_in_order(rig: Rig) -> None:
    rig.hear(rig.stream.store(0))
    lost = [rig.stream.store(number) for number in (1, 2)]
    rig.hear(rig.stream.store(3))
    rig.hear(rig.stream.store(4))
    await rig.heard(0, 1, 2, 3, 4)
    for message in lost:  # late, and delivered already
        rig.hear(message)
    rig.hear(rig.stream.store(5))
    await rig.heard(0, 1, 2, 3, 4, 5)
    assert rig.breaks == []


async def test_a_gap_is_filled_when_the_stream_answers_again(rig: Rig) -> None:
    rig.stream.store(0)
    rig.stream.fault = AWAY
    rig.hear(rig.stream.store(1))
    await eventually(lambda: rig.stream.reads >= 2)
    rig.stream.fault = None
    await rig.heard(0, 1)


async def test_a_gap_of_many_batches(rig: Rig) -> None:
    rig.stream.log_size = 2000
    rig.hear(rig.stream.store("first"))
    for number in range(600):
        rig.stream.store(number)
    rig.hear(rig.stream.store(600))
    await rig.heard("first", *range(601))
    assert rig.breaks == []


async def test_an_evicted_gap_is_notified_and_the_rest_delivered(rig: Rig) -> None:
    rig.hear(rig.stream.store("first"))
    await rig.heard("first")
    for number in range(150):
        message = rig.stream.store(number)
    rig.hear(message)
    await rig.heard("first", "joined_room", *range(50, 150))
    assert rig.breaks == [Position("e1", 51)]


async def test_a_gap_that_no_read_explains_is_given_up(rig: Rig) -> None:
    rig.hear(rig.stream.store(1))
    rig.hear(FakeMessage(9, 8, msgspec.json.encode("after the gap")))
    await rig.heard(1, "joined_room", "after the gap")
    assert rig.breaks == [Position("e1", 8)]


async def test_an_unreadable_message_is_skipped(rig: Rig) -> None:
    rig.hear(rig.stream.store(0))
    broken = rig.stream.store(1)
    broken.data = b"{"
    rig.hear(broken)
    rig.hear(rig.stream.store(2))
    await rig.heard(0, 2)


async def test_a_bus_that_was_away(rig: Rig) -> None:
    rig.hear(rig.stream.store(0))
    rig.subscription.pause()
    rig.stream.store(1)
    rig.hear(rig.stream.store(2))
    await asyncio.sleep(0.02)
    assert rig.member.contents == [0]
    rig.resync()
    await rig.heard(0, 1, 2)
    assert rig.breaks == []


async def test_a_quiet_room_was_not_interrupted(rig: Rig) -> None:
    rig.hear(rig.stream.store(0))
    rig.stream.store_elsewhere(5000)
    rig.stream.expire(4000)  # the room's last message has long expired
    rig.subscription.pause()
    rig.resync()
    await eventually(lambda: rig.stream.looks > 0)
    rig.hear(rig.stream.store("goes on"))
    await rig.heard(0, "goes on")
    assert rig.breaks == []


@pytest.mark.parametrize("stored_before_return", [0, 3])
async def test_a_wiped_stream_is_notified_and_followed(rig: Rig, stored_before_return: int) -> None:
    for number in range(5):
        rig.hear(rig.stream.store(number))
    rig.subscription.pause()
    rig.stream.wipe("e2")
    early = [rig.stream.store(f"new {number}") for number in range(stored_before_return)]
    for message in early:
        rig.hear(message)
    rig.resync()
    expected = [*range(5), "joined_room", *(f"new {number}" for number in range(stored_before_return))]
    await rig.heard(*expected)
    assert rig.breaks == [Position("e2", 0)]
    rig.hear(rig.stream.store("live"))
    await rig.heard(*expected, "live")
    assert rig.subscription.position == Position("e2", stored_before_return + 1)


async def test_a_wiped_stream_that_cannot_be_read_yet_is_notified_once(rig: Rig) -> None:
    rig.hear(rig.stream.store("old"))
    rig.subscription.pause()
    rig.stream.wipe("e2")
    rig.stream.store("new")
    rig.stream.fault = AWAY
    rig.resync()
    await eventually(lambda: rig.stream.asked >= 2)
    late = Recorder("late")
    rig.subscription.fanout.add(late)  # its own answer had the new epoch
    rig.stream.fault = None
    await rig.heard("old", "joined_room", "new")
    assert rig.breaks == [Position("e2", 0)]
    assert late.contents == ["new"]


async def test_a_stream_that_lost_its_end(rig: Rig) -> None:
    for number in range(5):
        rig.hear(rig.stream.store(number))
    rig.subscription.pause()
    for seq in (4, 5):
        del rig.stream.stored[seq]
    rig.stream.last = 3
    rig.resync()
    await eventually(lambda: rig.breaks == [Position("e1", 3)])
    rig.hear(rig.stream.store("again the fourth"))
    await rig.heard(0, 1, 2, 3, 4, "joined_room", "again the fourth")


async def caught_up(
    rig: Rig, seq: int, epoch: str = "e1", cap: int = 300, max_bytes: int = 1 << 20
) -> tuple[RecoveryVerdict, list[object]]:
    found = await catch_up(rig.subscription, Position(epoch, seq), cap=cap, max_bytes=max_bytes)
    return found.verdict, [cast(Any, outbound.message).content for outbound in found.missed]


async def test_catching_up(rig: Rig) -> None:
    for number in range(5):
        rig.hear(rig.stream.store(number))
    assert await caught_up(rig, 2) == (RecoveryVerdict.RECOVERED, [2, 3, 4])
    assert await caught_up(rig, 5) == (RecoveryVerdict.RECOVERED, [])
    assert await caught_up(rig, 0) == (RecoveryVerdict.RECOVERED, [0, 1, 2, 3, 4])
    assert await caught_up(rig, 6) == (RecoveryVerdict.FUTURE, [])
    assert await caught_up(rig, 2, "other") == (RecoveryVerdict.OTHER_EPOCH, [])
    assert await caught_up(rig, 1, cap=3) == (RecoveryVerdict.TOO_MANY, [])
    assert await caught_up(rig, 2, cap=3) == (RecoveryVerdict.RECOVERED, [2, 3, 4])
    assert await caught_up(rig, 1, max_bytes=2) == (RecoveryVerdict.TOO_MANY, [])
    rig.stream.expire(3)
    assert await caught_up(rig, 2) == (RecoveryVerdict.EVICTED, [])


async def newest(rig: Rig, limit: int, max_bytes: int = 1 << 20) -> list[object]:
    settings = SimpleNamespace(recovery_max_bytes=max_bytes)
    streams = SimpleNamespace(require_open=lambda: None)
    rig.subscription.parts = replace(rig.subscription.parts, settings=cast(Any, settings), streams=streams)
    found = await read_history(rig.subscription, rig.member, limit)
    return [cast(Any, message.message).content for message in found.messages]


async def test_the_newest_messages(rig: Rig) -> None:
    assert await newest(rig, 3) == []
    for number in range(5):
        rig.hear(rig.stream.store(number))
    assert await newest(rig, 3) == [2, 3, 4]
    assert await newest(rig, 5) == await newest(rig, 300) == [0, 1, 2, 3, 4]
    assert await newest(rig, 0) == []
    assert await newest(rig, 3, max_bytes=2) == [3, 4]
    assert await newest(rig, 3, max_bytes=0) == [4]


async def test_history_and_what_follows_have_no_gap_and_no_double(rig: Rig) -> None:
    for number in range(3):
        rig.hear(rig.stream.store(number))
    late = [rig.stream.store(3), rig.stream.store(4)]  # stored, and not here yet
    reading = asyncio.create_task(newest(rig, 3))
    await asyncio.sleep(0)
    rig.hear(late[0])  # during the read
    history = await reading
    joined = Recorder("n")
    rig.subscription.fanout.flush()
    rig.subscription.fanout.add(joined)
    rig.hear(late[1])
    await eventually(lambda: joined.contents == [4])
    assert history == [2, 3]  # what was not here yet follows live


async def test_history_of_a_stream_that_is_another_one_meanwhile(rig: Rig) -> None:
    rig.hear(rig.stream.store(0))
    reading = asyncio.create_task(newest(rig, 3))
    await asyncio.sleep(0)
    rig.stream.wipe("e2")
    rig.resync()
    with pytest.raises(Unavailable):
        await reading


@pytest.mark.timing
async def test_what_was_missed_becomes_messagepack_one_message_in_each_turn_of_the_loop(rig: Rig) -> None:
    for _ in range(32):
        rig.hear(rig.stream.store([0.1] * 16_000))
    await asyncio.sleep(0)
    longest, began = 0.0, time.thread_time()

    def turn() -> None:
        nonlocal longest, began
        longest, began = max(longest, time.thread_time() - began), time.thread_time()
        loop.call_soon(turn)

    loop = asyncio.get_running_loop()
    turn()
    found = await catch_up(rig.subscription, Position("e1", 0), cap=300, max_bytes=1 << 22, packed=True)
    answer = server.JoinedRoom(
        room="r", recovered=True, missed=[cast(Any, outbound.message) for outbound in found.missed]
    )
    sent = RecoveryAnswer(answer, stored=found.missed).encode(Encoding.MSGPACK_DEFLATE)
    await asyncio.sleep(0)
    assert longest < 0.015
    assert len(found.missed) == 32
    assert sent == EncodedMessage(answer).encode(Encoding.MSGPACK_DEFLATE)


async def test_a_member_ahead_of_its_new_gateway_gets_nothing_twice(rig: Rig) -> None:
    rig.hear(rig.stream.store(0))
    on_their_way = [rig.stream.store(1), rig.stream.store(2)]
    assert await caught_up(rig, 3) == (RecoveryVerdict.RECOVERED, [])
    newcomer = Recorder("n")
    rig.subscription.fanout.add(newcomer)
    for message in on_their_way:
        rig.hear(message)
    rig.hear(rig.stream.store(3))
    await rig.heard(0, 1, 2, 3)
    assert newcomer.contents == [3]


async def test_messages_that_arrive_while_catching_up_are_in_it_or_come_after(rig: Rig) -> None:
    rig.hear(rig.stream.store(0))
    catching = asyncio.ensure_future(caught_up(rig, 1))
    await asyncio.sleep(0)
    rig.hear(rig.stream.store(1))
    assert await catching == (RecoveryVerdict.RECOVERED, [1])
    assert rig.subscription.position == Position("e1", 2)


async def test_failed_reads_are_reported(rig: Rig) -> None:
    rig.stream.fault = AWAY
    with pytest.raises(Unavailable):
        await caught_up(rig, 0)


async def test_ephemeral_logs_have_no_past() -> None:
    rig = Rig(None)
    rig.subscription.open_at(0)
    rig.hear(FakeMessage(0, 0, b'"x"'))
    await rig.heard("x")
    assert rig.subscription.position is None
    assert await caught_up(rig, 0) == (RecoveryVerdict.OTHER_EPOCH, [])
    rig.subscription.pause()
    rig.hear(FakeMessage(0, 0, b'"y"'))
    await rig.heard("x", "y")


async def test_closing_ends_the_subscription_and_the_fill(rig: Rig) -> None:
    rig.stream.fault = AWAY
    rig.stream.store(0)
    rig.hear(rig.stream.store(1))
    rig.subscription.close()
    assert rig.bus.callbacks == {}
    await eventually(lambda: len(rig.tasks) == 0)


async def test_a_message_that_no_stream_stored_is_not_delivered(rig: Rig) -> None:
    rig.hear(rig.stream.store("stored"))
    rig.hear(FakeMessage(0, 0, msgspec.json.encode("I quit")))
    rig.hear(rig.stream.store("stored too"))
    await rig.heard("stored", "stored too")
    assert rig.counters.unexpected == 1


# --- after an election, or when the bus is back ---


async def test_a_message_that_follows_the_last_one_needs_no_look(rig: Rig) -> None:
    rig.hear(rig.stream.store(0))
    rig.subscription.resume()
    assert rig.subscription.unsure
    rig.hear(rig.stream.store(1))  # while others are looked at
    await rig.heard(0, 1)
    assert not rig.subscription.unsure
    assert (rig.stream.reads, rig.stream.asked) == (0, 0)


async def test_what_came_while_the_bus_was_away_is_delivered_where_it_follows(rig: Rig) -> None:
    rig.hear(rig.stream.store(0))
    await rig.heard(0)
    rig.subscription.pause()
    rig.hear(rig.stream.store(1))
    await asyncio.sleep(0.02)
    assert rig.member.contents == [0]
    rig.resync()
    await rig.heard(0, 1)
    assert rig.stream.reads == 0


async def test_a_message_after_ones_that_are_gone_is_no_proof(rig: Rig) -> None:
    """The one before it is no longer stored, so it says 0, as the first of a room does."""
    rig.hear(rig.stream.store(0))
    rig.subscription.resume()
    for number in range(1, 4):
        rig.stream.store(number)
    rig.stream.expire(3)
    rig.stream.least_until_full, rig.stream.oldest_s = 2, 3.0
    live = rig.stream.store("live")
    rig.hear(FakeMessage(live.seq, 0, live.data))
    await rig.heard(0, "joined_room", 3, "live")


async def test_a_lost_last_message_is_found(rig: Rig) -> None:
    rig.hear(rig.stream.store(0))
    rig.stream.store("told to nobody")
    rig.resync()
    await rig.heard(0, "told to nobody")
    assert rig.breaks == []


async def test_messages_evicted_for_their_size_are_notified(rig: Rig) -> None:
    """While the bus was away for seconds, more was stored than the stream keeps."""
    rig.hear(rig.stream.store(0))
    rig.subscription.pause()
    rig.stream.store("lost")
    rig.stream.store_elsewhere(5000)
    rig.stream.expire(4000)
    await rig.heard(0)
    rig.stream.least_until_full, rig.stream.oldest_s = 1000, 3.0
    rig.resync()
    await eventually(lambda: rig.breaks == [Position("e1", 5002)])
