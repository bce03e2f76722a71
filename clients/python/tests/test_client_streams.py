"""The fallback: Server-Sent Events for what comes, HTTP for what goes."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any, Self

import httpx
import pytest
from rig.clock import FakeClock
from rig.server import FakeServer
from rig.streams import FakeStreams, refused

from tidings_client import CredentialRequest, ServerError, TidingsClient, TidingsError, Unsupported
from tidings_client.generated.wire import Position
from tidings_client.transport.eventid import encode_event_id


class Rig:
    """A client that only uses streams, unless options say otherwise."""

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

    async def end(self) -> None:
        await self.client.close()
        for task in self.tasks:
            task.cancel()
        await asyncio.gather(*self.tasks, return_exceptions=True)
        await self.streams.client.aclose()


@pytest.fixture
async def rig() -> AsyncIterator[Rig]:
    made = Rig()
    yield made
    await made.end()


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


async def test_requests_rooms_and_channels_when_it_opens_and_when_they_change(rig: Rig) -> None:
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


async def test_reports_what_could_not_be_resumed(rig: Rig) -> None:
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


async def test_sends_over_http_as_its_user_and_refuses_the_rest(rig: Rig) -> None:
    await rig.connect()
    await rig.join("lobby/a b")
    rig.streams.last.message(_joined(0, "lobby/a b"))
    await rig.clock.pass_()
    assert (await rig.client.room("lobby/a b").publish({"text": "hi"})).seq == 1
    await rig.client.send_direct("u-other", None)
    await rig.client.broadcast(2)
    await rig.client.broadcast(2, echo=True)
    await rig.client.set_status("away")
    await rig.client.set_custom_data({"page": 1})
    who = "?username=Ada&session=signed"
    assert [(operation, {**body, "id": None}, named) for operation, body, named in rig.streams.sent] == [
        (f"POST /api/rooms/lobby%2Fa%20b/messages{who}", {"content": {"text": "hi"}, "id": None}, "s2"),
        (f"POST /api/users/u-other/messages{who}", {"content": None, "id": None}, "s2"),
        (f"POST /api/broadcast{who}", {"content": 2, "id": None}, "s2"),
        (f"POST /api/broadcast{who}", {"content": 2, "id": None}, None),
        (f"PUT /api/me/status{who}", {"status": "away", "id": None}, "s2"),
        (f"PUT /api/me/data{who}", {"customData": {"page": 1}, "id": None}, "s2"),
    ]
    assert rig.client.welcome is not None
    assert (rig.client.user_id, rig.client.welcome.username) == ("u-me", "Ada")
    rig.streams.refusals.append(refused("forbidden", 403))
    with pytest.raises(ServerError) as refusal:
        await rig.client.broadcast(3)
    assert refusal.value.code == "forbidden"
    with pytest.raises(TypeError):
        await rig.client.broadcast(object())
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
    assert [body["content"] for _, body, _ in rig.streams.sent] == [0, 1, 2]


async def test_sends_status_and_data_again_on_every_stream(rig: Rig) -> None:
    await rig.connect()
    await rig.client.set_status("busy")
    await rig.client.set_custom_data(1)
    await rig.join("lobby")
    said = [{"status": "busy"}, {"customData": 1}]
    assert [(body, named) for _, body, named in rig.streams.sent] == [
        *((body, "s1") for body in said),
        *((body, "s2") for body in said),
    ]


async def test_names_the_stream_that_is_open_and_sends_nothing_while_one_is_opened(rig: Rig) -> None:
    await rig.connect()
    await rig.join("lobby")
    rig.streams.greets = False
    await rig.join("other")
    assert len(rig.streams.streams) == 3
    sending = rig.begin(rig.client.send_direct("u-other", 1))
    await rig.clock.pass_(0.1)
    assert rig.streams.sent == []
    rig.streams.last.greet("third")
    await sending
    assert [named for _, _, named in rig.streams.sent] == ["third"]


async def test_goes_on_with_a_new_token_by_a_stream_that_shows_it() -> None:
    asked: list[bool] = []

    def give(request: CredentialRequest) -> str:
        asked.append(request.refresh)
        return f"token {len(asked)}"

    given = Rig(token=give)
    errors: list[TidingsError] = []
    given.client.errors.listen(errors.append)
    await given.connect()
    given.streams.last.message({"type": "token_expiring", "expiresAt": 5})
    await given.clock.pass_(0.02)
    shown = [stream.headers["Authorization"] for stream in given.streams.streams]
    assert (shown, asked, errors) == (["Bearer token 1", "Bearer token 2"], [False, True], [])
    await given.end()


@pytest.mark.parametrize("early", [True, False], ids=["before it connects", "while it is connected"])
async def test_one_refused_room_or_channel_does_not_cost_the_others(rig: Rig, early: bool) -> None:
    rig.streams.forbidden = {"secret", "logs"}
    errors: list[str] = []
    rig.client.errors.listen(lambda fault: errors.append(f"{fault.code}, {fault}"))
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
    assert errors == ["forbidden, channel logs: no"]
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


async def test_fails_on_a_refusal_and_waits_on_request(rig: Rig) -> None:
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
    await given.end()


class Blocked:
    """A client on a stream, beside which a WebSocket is being tried that is not answered."""

    def __init__(self) -> None:
        self.server = FakeServer()
        self.clock = FakeClock()
        self.states: list[str] = []
        given: dict[str, Any] = {
            "connect": self.server.connect,
            "http": self.server.http,
            "clock": self.clock,
        }
        self.client = TidingsClient("http://server", **given)
        self.client.statuses.listen(lambda status: self.states.append(str(status)))

    async def __aenter__(self) -> Self:
        self.server.upgrades = "refused"
        opening = asyncio.create_task(self.client.connect())
        await self.clock.pass_(1)
        await opening
        self.stream = self.server.last
        self.server.upgrades = "unanswered"
        await self.beat(121)
        assert self.server.open == [self.stream, self.server.last]
        self.states.clear()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.client.close()
        await self.server.http.aclose()

    async def beat(self, seconds: int) -> None:
        for _ in range(seconds):
            await self.clock.pass_(1)
            self.server.beat()


@pytest.mark.parametrize("greeted_first", [True, False])
async def test_a_server_that_allows_one_connection_ends_the_stream_for_the_websocket(
    greeted_first: bool,
) -> None:
    async with Blocked() as blocked:
        websocket = blocked.server.last
        if greeted_first:
            websocket.greet()
        blocked.stream.disconnect(4003, reconnect=True)
        await blocked.clock.pass_(0 if greeted_first else 0.1)
        if not greeted_first:
            websocket.greet()
        await blocked.clock.pass_(2)
        assert blocked.server.open == [websocket]
        assert str(blocked.client.status) == "connected over websocket"
        assert not [state for state in blocked.states if state.startswith("suspended")]


async def test_a_stream_that_ends_beside_an_upgrade_that_is_never_answered_is_opened_again() -> None:
    async with Blocked() as blocked:
        blocked.stream.drop()
        await blocked.clock.pass_(10.5)
        assert str(blocked.client.status) == "suspended: the server did not answer in time"
        await blocked.clock.pass_(4)
        assert str(blocked.client.status) == "connected over sse"


async def test_pauses_start_at_two_minutes_after_a_websocket_took_over() -> None:
    async with Blocked() as blocked:
        blocked.server.last.greet()
        await blocked.clock.pass_(2)
        assert str(blocked.client.status) == "connected over websocket"
        blocked.server.upgrades = "refused"
        blocked.server.last.drop()
        await blocked.beat(30)
        assert str(blocked.client.status) == "connected over sse"
        tried = len(blocked.server.connections)
        await blocked.beat(121)
        assert len(blocked.server.connections) == tried + 1


@pytest.mark.parametrize("worked", [None, "sse"])
async def test_begins_with_the_transport_that_worked_for_an_earlier_client(worked: Any) -> None:
    server = FakeServer()
    server.upgrades = "refused"
    given = {"connect": server.connect, "http": server.http, "clock": FakeClock(), "last_transport": worked}
    client = TidingsClient("http://server", **given)
    opening = asyncio.create_task(client.connect())
    await given["clock"].pass_(1)
    await opening
    tried = [connection.subprotocol for connection in server.connections]
    assert tried == (["sse"] if worked else ["tidings.v1.json", "tidings.v1.json", "sse"])
    assert client.status.transport == "sse"
    await client.close()
    await server.http.aclose()
