"""Callbacks, streams, waiting for one; what an application does wrong in them; cancellation."""

import asyncio
import gc
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import pytest
from rig.clock import settle
from rig.scenario import Faked

from tidings_client import Closed, Event, QueueFull, RoomMessage, ServerError, TidingsClient, TidingsError


@pytest.fixture
async def faked() -> Any:
    made = Faked({})
    asyncio.get_running_loop().create_task(made.client.connect())
    await made.clock.pass_()
    yield made
    await made.client.close()


async def test_a_callback_ends_on_request_and_others_continue() -> None:
    event: Event[int] = Event()
    one: list[int] = []
    other: list[int] = []
    stop = event.listen(one.append)
    event.listen(other.append)
    event.emit(1)
    stop()
    stop()
    event.emit(2)
    assert (one, other) == ([1], [1, 2])


async def test_a_callback_that_raises_is_reported_and_affects_no_other() -> None:
    event: Event[int] = Event()
    reported: list[BaseException] = []
    loop = asyncio.get_running_loop()
    loop.set_exception_handler(lambda _, context: reported.append(context["exception"]))

    def wrong(_: int) -> None:
        raise RuntimeError("mine")

    async def wrong_later(_: int) -> None:
        await asyncio.sleep(0)
        raise RuntimeError("mine, later")

    seen: list[int] = []
    event.listen(wrong)
    event.listen(wrong_later)
    event.listen(seen.append)
    event.emit(1)
    await settle()
    loop.set_exception_handler(None)
    assert seen == [1]
    assert [str(each) for each in reported] == ["mine", "mine, later"]


async def test_a_stream_gives_all_in_order_and_a_cancelled_wait_takes_nothing() -> None:
    event: Event[int] = Event()
    async with event.stream() as stream:
        waiting = asyncio.create_task(anext(stream))
        await settle()
        event.emit(1)
        waiting.cancel()
        await settle()
        event.emit(2)
        assert [await anext(stream), await anext(stream)] == [1, 2]
    with pytest.raises(StopAsyncIteration):
        await anext(stream)


async def test_an_unread_stream_ends_with_an_error_after_its_events() -> None:
    event: Event[int] = Event()
    stream = event.stream(limit=2)
    for number in range(5):
        event.emit(number)
    assert [await anext(stream), await anext(stream)] == [0, 1]
    with pytest.raises(QueueFull):
        await anext(stream)


async def test_a_stream_that_is_broken_off_is_forgotten() -> None:
    event: Event[int] = Event()

    async def first() -> int:
        async for number in event.stream():
            return number
        raise AssertionError

    reading = asyncio.create_task(first())
    await settle()
    event.emit(7)
    assert await reading == 7
    gc.collect()
    assert len(event._streams) == 0


async def test_a_room_is_iterated_over_until_it_is_left(faked: Faked) -> None:
    room = faked.client.room("lobby")
    seen: list[Any] = []

    async def read() -> None:
        async for message in room:
            assert isinstance(message, RoomMessage)
            seen.append(message.content)

    reading = asyncio.create_task(read())
    await faked.clock.pass_()
    assert room.state == "joined"
    faked.server.say("lobby", 1)
    await faked.clock.pass_()
    faked.server.last.drop()
    faked.server.say("lobby", 2)
    await faked.clock.pass_(0.25)
    room.leave()
    await reading
    assert seen == [1, 2]


async def test_a_stream_ends_with_the_client_and_fails_with_the_connection(faked: Faked) -> None:
    inbox, lobby = faked.client.inbox.stream(), faked.client.room("lobby").stream()
    await faked.clock.pass_()
    faked.server.last.disconnect(4502, reconnect=False)
    await faked.clock.pass_()
    for stream in (inbox, lobby):
        with pytest.raises(TidingsError, match="reason 4502"):
            await anext(stream)
    later = faked.client.inbox.stream()
    await faked.client.close()
    assert [message async for message in later] == []


async def test_a_refused_room_fails_its_stream(faked: Faked) -> None:
    faked.server.answers = {
        "join_room": {"type": "error", "code": "forbidden", "message": "no", "retryable": False}
    }
    stream = faked.client.room("secret").stream()
    await faked.clock.pass_()
    with pytest.raises(ServerError) as refused:
        await anext(stream)
    assert refused.value.code == "forbidden"


async def test_a_room_is_a_context(faked: Faked) -> None:
    async with faked.client.room("lobby") as room:
        assert room.state == "joined"
        assert (await room.publish("x")).seq == 1
    await faked.clock.pass_()
    assert room.state == "left"
    assert faked.server.last.types == ["join_room", "room_message", "leave_room"]


async def test_a_cancelled_publish_is_not_sent_later(faked: Faked) -> None:
    faked.server.refusing = True
    faked.server.last.drop()
    await faked.clock.pass_()
    sending = asyncio.create_task(faked.client.send_direct("u-other", 1))
    await settle()
    sending.cancel()
    await settle()
    faked.server.refusing = False
    await faked.clock.pass_(10)
    assert faked.client.is_up
    assert faked.server.last.of("direct_message") == []


async def test_a_cancelled_join_continues_and_can_be_awaited_again(faked: Faked) -> None:
    faked.server.silent = True
    room = faked.client.room("lobby")
    joining = asyncio.create_task(room.join())
    await settle()
    joining.cancel()
    await settle()
    faked.server.silent = False
    faked.server.answer(faked.server.last, faked.server.last.of("join_room")[-1])
    await room.join()
    assert room.state == "joined"


def _deep() -> Any:
    value: Any = 0
    for _ in range(100_000):
        value = [value]
    return value


@pytest.mark.parametrize("codec", ["json", "msgpack"])
@pytest.mark.parametrize(
    "content",
    [object(), _deep(), "\ud800", {(1, 2): 3}],
    ids=["an object", "too deep", "half a character", "a key of two"],
)
async def test_content_that_is_no_json_value_is_refused_and_costs_nothing_else(
    content: Any, codec: str
) -> None:
    faked = Faked({}, codec)
    async with faked.client as client:
        with pytest.raises((TypeError, ValueError, RecursionError)):
            await client.send_direct("u-other", content)
        assert (await client.send_direct("u-other", 1)).id is not None
        assert len(faked.server.last.of("direct_message")) == 1


@dataclass
class Order:
    number: int
    placed: datetime


@pytest.mark.parametrize("codec", ["json", "msgpack"])
async def test_content_is_the_same_in_both_codecs(codec: str) -> None:
    faked = Faked({}, codec)
    async with faked.client as client:
        await client.send_direct("u-other", {1: Order(7, datetime(2026, 1, 2, tzinfo=UTC)), "raw": b"ab"})
    (sent,) = faked.server.last.of("direct_message")
    assert sent["content"] == {"1": {"number": 7, "placed": "2026-01-02T00:00:00Z"}, "raw": "YWI="}


async def test_an_unanswered_id_is_shared_and_dropped_when_nothing_waits_for_it(faked: Faked) -> None:
    faked.server.silent = True
    first, second = (asyncio.create_task(faked.client.send_direct("u-other", 1, id="same")) for _ in range(2))
    await settle()
    first.cancel()
    await settle()
    faked.server.answer(faked.server.last, faked.server.last.of("direct_message")[0])
    assert (await second).id == "same"
    assert faked.server.last.types == ["direct_message"]
    third = asyncio.create_task(faked.client.send_direct("u-other", 1, id="same"))
    await settle()
    third.cancel()
    await settle()
    faked.server.silent = False
    await faked.clock.pass_(60)
    assert len(faked.server.last.of("direct_message")) == 2


async def test_leaving_the_context_leaves_nothing_behind() -> None:
    faked = Faked({})
    async with faked.client as client:
        client.room("lobby").stream()
        client.metrics.follow()
        await settle()
    await settle()
    assert faked.server.last.closed_with == 1000
    assert asyncio.all_tasks() == {asyncio.current_task()}
    assert faked.clock.pending == 0
    with pytest.raises(Closed):
        await client.send_direct("u", 1)
    await client.connect()  # and it can be used again
    assert (await client.send_direct("u", 1)).id is not None
    await client.close()


async def test_a_connect_that_is_closed_and_overtaken_by_another_ends() -> None:
    faked = Faked({})
    faked.server.accepting = False
    first = asyncio.create_task(faked.client.connect())
    await settle()
    closing, second = asyncio.create_task(faked.client.close()), asyncio.create_task(faked.client.connect())
    with pytest.raises(Closed):
        await first
    second.cancel()
    await closing
    await faked.client.close()


async def test_waiting_for_an_event_ends_with_the_client(faked: Faked) -> None:
    waiting = asyncio.create_task(faked.client.broadcasts.next())
    await settle()
    await faked.client.close()
    with pytest.raises(Closed):
        await waiting


async def test_a_connect_that_is_cancelled_ends_the_context() -> None:
    faked = Faked({})
    faked.server.accepting = False

    async def use() -> None:
        async with faked.client:
            raise AssertionError

    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.05):
            await use()
    await settle()
    assert faked.client.status.state == "closed"
    assert asyncio.all_tasks() == {asyncio.current_task()}


def test_what_makes_no_sense_is_refused_when_the_client_is_made() -> None:
    for options in (
        {"transports": []},
        {"transports": ["carrier pigeon"]},
        {"transports": ["sse", "sse"]},
        {"codec": "xml"},
        {"tries": 0},
        {"token": "t", "ticket": lambda _: "t"},
    ):
        with pytest.raises(ValueError, match="`"):
            TidingsClient("http://host", **options)  # type: ignore[arg-type]
