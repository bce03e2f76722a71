"""The fallback: Server-Sent Events for what comes, HTTP for what goes."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest
from rig.clock import FakeClock
from rig.server import FakeServer
from rig.streams import FakeStreams, refused

from tidings_client import ServerError, TidingsClient, Unsupported
from tidings_client.generated.wire import Position
from tidings_client.transport.eventid import encode_event_id


class Rig:
    """A client that only has streams, unless told otherwise."""

    def __init__(self, **options: Any) -> None:
        self.clock = FakeClock()
        self.streams = FakeStreams()
        given = {"transports": ["sse"], "username": "Ada", **options}
        self.client = TidingsClient("http://server", http=self.streams.client, clock=self.clock, **given)
        self.tasks: list[asyncio.Task[Any]] = []

    def begin(self, work: Any) -> asyncio.Task[Any]:
        task = asyncio.create_task(work)
        self.tasks.append(task)
        return task

    async def connect(self) -> None:
        self.begin(self.client.connect())
        await self.clock.pass_()
        assert self.client.is_up

    async def join(self, name: str) -> list[Any]:
        seen: list[Any] = []
        room = self.client.room(name)
        room.messages.listen(lambda message: seen.append(message.content))
        room.gaps.listen(seen.append)
        self.begin(room.join())
        await self.clock.pass_(0.02)
        return seen


@pytest.fixture
async def rig() -> AsyncIterator[Rig]:
    made = Rig()
    yield made
    await made.client.close()
    for task in made.tasks:
        task.cancel()
    await asyncio.gather(*made.tasks, return_exceptions=True)
    await made.streams.client.aclose()


def _said(seq: int, content: Any = None) -> dict[str, Any]:
    message = {"type": "room_message", "userId": "u", "username": "u", "room": "lobby", "timestamp": 1}
    return {**message, "content": seq if content is None else content, "seq": seq}


def _joined(seq: int, room: str = "lobby", **more: Any) -> dict[str, Any]:
    return {"type": "joined_room", "room": room, "epoch": "e1", "seq": seq, **more}


def _direct(seq: int) -> dict[str, Any]:
    message = {"type": "direct_message", "fromUserId": "u", "username": "u", "timestamp": 1}
    return {**message, "content": f"d{seq}", "seq": seq}


def _at(seq: int, epoch: str = "e1") -> Position:
    return Position(epoch=epoch, seq=seq)


async def test_asks_for_rooms_and_channels_when_it_opens_and_again_when_they_change(rig: Rig) -> None:
    joining = rig.begin(rig.client.room("lobby").join())
    rig.client.metrics.follow()
    await rig.connect()
    assert rig.streams.last.list("rooms") == ["lobby"]
    assert rig.streams.last.list("channels") == ["metrics", "inbox"]
    rig.streams.last.message(_joined(4))
    await joining
    other = rig.begin(rig.client.room("other").join())
    rig.begin(rig.client.room("third").join())
    await rig.clock.pass_(0.02)
    assert len(rig.streams.streams) == 2
    assert rig.streams.streams[0].closed
    assert rig.streams.last.list("rooms") == ["lobby", "other", "third"]
    assert rig.streams.last.headers["Last-Event-ID"] == encode_event_id([("lobby", _at(4))])
    rig.streams.last.message(_joined(9, "other"))
    await other
    rig.client.room("other").leave()
    await rig.clock.pass_(0.02)
    assert rig.streams.last.list("rooms") == ["lobby", "third"]
    assert (rig.client.status.state, rig.client.status.transport) == ("connected", "sse")


async def test_resumes_rooms_and_inbox_where_they_stood_and_shows_nothing_twice(rig: Rig) -> None:
    await rig.connect()
    seen = await rig.join("lobby")
    rig.client.inbox.messages.listen(lambda message: seen.append(message.content))
    inbox = encode_event_id([("", _at(2, "i1"))])
    rig.streams.last.message({"type": "subscribed", "channels": ["inbox"]}, inbox)
    for message in (_joined(4), _said(5), _direct(3)):
        rig.streams.last.message(message)
    await rig.clock.pass_()
    rig.streams.last.end(httpx.ReadError("connection reset"))
    await rig.clock.pass_(0.25)
    resumed = encode_event_id([("lobby", _at(5)), ("", _at(3, "i1"))])
    assert rig.streams.last.headers["Last-Event-ID"] == resumed
    for message in (
        _said(5),
        _said(6),
        _joined(6, recovered=True),
        _direct(4),
        {"type": "subscribed", "channels": ["inbox"], "recovered": True},
        _said(7),
    ):
        rig.streams.last.message(message)
    await rig.clock.pass_()
    assert seen == [5, "d3", 6, "d4", 7]


async def test_says_when_something_could_not_be_resumed(rig: Rig) -> None:
    await rig.connect()
    seen = await rig.join("lobby")
    rig.streams.last.message(_joined(4))
    await rig.clock.pass_()
    rig.streams.last.end()
    await rig.clock.pass_(0.25)
    rig.streams.last.event("reset", {"type": "reset", "topics": ["lobby"], "reason": "evicted"})
    rig.streams.last.message(_joined(50, recovered=False))
    await rig.clock.pass_()
    assert [gap.position for gap in seen] == [_at(50)]


async def test_publishes_over_http_and_says_what_it_cannot_do(rig: Rig) -> None:
    await rig.connect()
    await rig.join("lobby")
    rig.streams.last.message(_joined(0))
    await rig.clock.pass_()
    assert (await rig.client.room("lobby").publish({"text": "hi"})).seq == 1
    await rig.client.send_direct("u-other", None)
    await rig.client.broadcast(2)
    published = [{**each, "id": None} for each in rig.streams.published]
    assert published == [
        {"room": "lobby", "content": {"text": "hi"}, "username": "Ada", "id": None},
        {"userId": "u-other", "content": None, "username": "Ada", "id": None},
        {"broadcast": True, "content": 2, "username": "Ada", "id": None},
    ]
    rig.streams.refusals.append(refused("forbidden", 403))
    with pytest.raises(ServerError) as refusal:
        await rig.client.broadcast(3)
    assert refusal.value.code == "forbidden"
    with pytest.raises(TypeError):
        await rig.client.broadcast(object())
    with pytest.raises(Unsupported):
        await rig.client.set_status("away")
    with pytest.raises(Unsupported):
        await rig.client.room("a,b").join()


async def test_publishes_one_at_a_time_in_order(rig: Rig) -> None:
    await rig.connect()
    rig.streams.open_for_posts.clear()
    sent = [rig.begin(rig.client.send_direct("u-other", number)) for number in range(3)]
    await rig.clock.pass_()
    assert rig.streams.posts == 1
    rig.streams.open_for_posts.set()
    await asyncio.gather(*sent)
    assert [each["content"] for each in rig.streams.published] == [0, 1, 2]


@pytest.mark.parametrize("early", [True, False], ids=["before it connects", "while it is connected"])
async def test_one_refused_room_or_channel_does_not_cost_the_others(rig: Rig, early: bool) -> None:
    rig.streams.forbidden = {"secret", "logs"}
    errors: list[str] = []
    rig.client.errors.listen(lambda fault: errors.append(fault.code))
    if not early:
        await rig.connect()
    joins = {name: rig.begin(rig.client.room(name).join()) for name in ("lobby", "secret", "other")}
    for feed in (rig.client.metrics, rig.client.logs, rig.client.alerts):
        feed.follow()
    if early:
        rig.begin(rig.client.connect())
    await rig.clock.pass_(1)
    assert rig.client.is_up
    assert sorted(rig.streams.last.list("rooms")) == ["lobby", "other"]
    assert sorted(rig.streams.last.list("channels")) == ["alerts", "inbox", "metrics"]
    for name in ("lobby", "other"):
        rig.streams.last.message(_joined(1, name))
    await rig.clock.pass_()
    with pytest.raises(ServerError):
        await joins["secret"]
    assert joins["lobby"].done()
    assert joins["other"].done()
    assert errors == ["forbidden"]
    streams, refusals = len(rig.streams.streams), rig.streams.refused
    await rig.clock.pass_(10)
    assert (len(rig.streams.streams), rig.streams.refused) == (streams, refusals), "it goes on asking"


async def test_a_refused_room_can_be_tried_again(rig: Rig) -> None:
    await rig.connect()
    rig.streams.forbidden = {"secret"}
    joining = rig.begin(rig.client.room("secret").join())
    await rig.clock.pass_(0.1)
    with pytest.raises(ServerError):
        await joining
    rig.streams.forbidden = set()
    again = rig.begin(rig.client.room("secret").join())
    await rig.clock.pass_(0.1)
    rig.streams.last.message(_joined(1, "secret"))
    await again


async def test_what_was_admitted_and_is_not_any_more_is_given_up_alone(rig: Rig) -> None:
    await rig.connect()
    seen = await rig.join("lobby")
    await rig.join("secret")
    for name in ("lobby", "secret"):
        rig.streams.last.message(_joined(0, name))
    await rig.clock.pass_()
    rig.streams.forbidden = {"secret"}
    rig.streams.last.end()
    await rig.clock.pass_(2)
    assert rig.client.is_up
    assert rig.streams.last.list("rooms") == ["lobby"]
    rig.streams.last.message(_joined(0, recovered=True))
    rig.streams.last.message(_said(1))
    await rig.clock.pass_()
    assert seen == [1]
    assert rig.client.room("secret").state == "refused"


async def test_obeys_disconnect_and_retry(rig: Rig) -> None:
    await rig.connect()
    said = {"type": "disconnect", "code": 1012, "reason": "restart", "reconnect": True, "retryAfterMs": 430}
    rig.streams.last.message(said)
    rig.streams.last.end()
    await rig.clock.pass_()
    status = rig.client.status
    assert (status.state, status.code) == ("suspended", 1012)
    assert status.retry_at == pytest.approx(rig.clock.now() + 0.68)
    await rig.clock.pass_(0.68)
    rig.streams.last.write("retry: 900\n\n")
    rig.streams.last.end()
    await rig.clock.pass_()
    assert rig.client.status.retry_at == pytest.approx(rig.clock.now() + 1.4)
    await rig.clock.pass_(1.4)
    rig.streams.last.message({"type": "disconnect", "code": 4502, "reason": "ended", "reconnect": False})
    rig.streams.last.end()
    await rig.clock.pass_()
    assert (rig.client.status.state, rig.client.status.reason) == ("failed", "ended")


async def test_fails_where_it_is_refused_and_waits_where_it_is_told_to(rig: Rig) -> None:
    rig.streams.refusals.append(httpx.Response(503, headers={"Retry-After": "2"}, text="busy"))
    opening = rig.begin(rig.client.connect())
    await rig.clock.pass_()
    assert rig.client.status.retry_at == pytest.approx(rig.clock.now() + 2.25)
    rig.streams.refusals.append(refused("forbidden", 403))
    await rig.clock.pass_(2.25)
    with pytest.raises(ServerError) as refusal:
        await opening
    assert refusal.value.code == "forbidden"


async def test_is_replaced_when_it_falls_silent(rig: Rig) -> None:
    await rig.connect()
    await rig.clock.pass_(15)
    rig.streams.last.event("heartbeat", {"timestamp": 1, "message": "still here"})
    await rig.clock.pass_(15)
    assert len(rig.streams.streams) == 1
    await rig.clock.pass_(10)
    assert len(rig.streams.streams) == 2


async def test_shows_its_token_and_a_fresh_one_when_that_is_refused() -> None:
    given = Rig(token=lambda request: "fresh" if request.refresh else "stale")
    given.streams.refusals.append(refused("unauthorized", 401))
    await given.connect()
    assert given.streams.authorized == ["Bearer stale", "Bearer fresh"]
    await given.client.close()


async def test_falls_back_where_websockets_are_blocked_and_tries_the_better_way_again() -> None:
    server = FakeServer()
    server.refusing = True
    given = Rig(transports=["websocket", "sse"], connect=server.connect)
    given.begin(given.client.connect())
    await given.clock.pass_(0.25 + 0.5)
    assert (given.client.status.state, given.client.status.transport) == ("connected", "sse")
    assert len(server.connections) == 2
    seen = await given.join("lobby")
    server.say("lobby", "one")
    given.streams.last.message(_joined(0))
    given.streams.last.message(_said(1, "one"))
    await given.clock.pass_()
    server.say("lobby", "two")
    server.refusing = False
    for _ in range(25):
        given.streams.last.event("heartbeat", {})
        await given.clock.pass_(5)
    assert (given.client.status.state, given.client.status.transport) == ("connected", "websocket")
    assert server.last.of("join_room")[0]["since"] == {"epoch": "e1", "seq": 1}
    assert seen == ["one", "two"]
    assert given.streams.last.closed
    await given.client.close()
