"""The WebSocket itself, against a server that only does what a test needs: refusals, close codes, goodbyes."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from http import HTTPStatus
from typing import Any

import pytest
from rig.streams import FakeStreams
from websockets.asyncio.server import Server, ServerConnection, serve
from websockets.http11 import Request, Response

from tidings_client import Backoff, ServerError, TidingsClient

WELCOME = {
    "type": "welcome",
    "protocol": 1,
    "userId": "u",
    "username": "u",
    "connectionId": "c",
    "gateway": "g",
    "heartbeatInterval": 25_000,
    "maxMessageBytes": 1000,
}


class Door:
    """A server that accepts or refuses, and ends with or without a close frame."""

    def __init__(self) -> None:
        self.refusals: list[tuple[int, dict[str, str], dict[str, Any] | str]] = []
        self.asked: list[Request] = []
        self.closed_with: list[int | None] = []
        self.farewell: Callable[[ServerConnection], Any] | None = None
        self.server: Server | None = None

    @property
    def url(self) -> str:
        assert self.server is not None
        host, port = next(iter(self.server.sockets)).getsockname()[:2]
        return f"ws://{host}:{port}/ws"

    def refuse(self, connection: ServerConnection, request: Request) -> Response | None:
        self.asked.append(request)
        if not self.refusals:
            return None
        status, headers, body = self.refusals.pop(0)
        text = body if isinstance(body, str) else json.dumps(body)
        response = connection.respond(HTTPStatus(status), text)
        for name, value in headers.items():
            response.headers[name] = value
        return response

    async def serve(self, connection: ServerConnection) -> None:
        await connection.send(json.dumps(WELCOME))
        if self.farewell is not None:
            await self.farewell(connection)
        async for _ in connection:
            pass
        self.closed_with.append(connection.close_code)


@pytest.fixture
async def door() -> AsyncIterator[Door]:
    made = Door()
    subprotocols: Any = ["tidings.v1.json", "tidings.v1.msgpack"]
    async with serve(
        made.serve, "127.0.0.1", 0, process_request=made.refuse, subprotocols=subprotocols, close_timeout=0.2
    ) as server:
        made.server = server
        yield made


def _client(door: Door, **options: Any) -> TidingsClient:
    given: dict[str, Any] = {"transports": ["websocket"], "backoff": Backoff(0.01, 0.02), **options}
    return TidingsClient(door.url, **given)


async def test_sends_its_token_in_a_header_and_its_name_in_the_query_and_a_close_code(door: Door) -> None:
    async with _client(door, username="Ada", token="t", session="s") as client:
        assert client.user_id == "u"
    (request,) = door.asked
    assert request.path == "/ws?username=Ada&session=s"
    assert request.headers["Authorization"] == "Bearer t"
    assert request.headers["Sec-WebSocket-Protocol"] == "tidings.v1.json"
    assert door.closed_with == [1000]


async def test_a_ticket_is_asked_for_each_connection(door: Door) -> None:
    tickets = iter("ab")
    client = _client(door, ticket=lambda _: next(tickets))
    for _ in range(2):
        async with client:
            pass
    assert [request.path for request in door.asked] == ["/ws?ticket=a", "/ws?ticket=b"]


async def test_a_refusal_has_the_servers_error(door: Door) -> None:
    door.refusals = [(403, {}, {"code": "forbidden", "message": "this origin", "retryable": False})]
    client = _client(door)
    with pytest.raises(ServerError, match="this origin") as refused:
        await client.connect()
    assert (refused.value.code, client.status.state) == ("forbidden", "failed")
    await client.close()


# What proxies and portals answer. None of it is the server's word, whatever the status means elsewhere.
NOT_OURS = [200, 400, 401, 403, 404, 405, 407, 426, 429, 500, 501, 502, 503]


@pytest.mark.parametrize("status", NOT_OURS)
async def test_a_proxy_that_refuses_upgrades_ends_nothing(door: Door, status: int) -> None:
    door.refusals = [(status, {}, "<h1>no</h1>"), (status, {}, {"code": "NO", "error": "of another kind"})]
    async with _client(door) as client:
        assert client.is_up
    assert len(door.asked) == 3


@pytest.mark.parametrize("status", NOT_OURS)
async def test_a_proxy_that_goes_on_refusing_upgrades_counts_for_the_fallback(
    door: Door, status: int
) -> None:
    door.refusals = [(status, {}, "<h1>no</h1>")] * 2
    streams = FakeStreams()
    async with _client(door, transports=["websocket", "sse"], http=streams.client) as client:
        assert (client.status.transport, len(door.asked)) == ("sse", 2)
    await streams.client.aclose()


async def test_a_proxys_answer_is_reported(door: Door) -> None:
    door.refusals = [(407, {}, "<h1>no</h1>")]
    client = _client(door)
    reasons: list[str | None] = []
    client.statuses.listen(lambda status: reasons.append(status.reason))
    await client.connect()
    assert "something on the way answered 407" in reasons
    await client.close()


async def test_a_token_that_is_refused_is_asked_for_once_more(door: Door) -> None:
    door.refusals = [(401, {}, {"code": "unauthorized", "message": "expired", "retryable": False})]
    async with _client(door, token=lambda request: "fresh" if request.refresh else "stale"):
        shown = [request.headers["Authorization"] for request in door.asked]
    assert shown == ["Bearer stale", "Bearer fresh"]


async def test_a_token_that_is_a_mere_text_is_not_shown_twice(door: Door) -> None:
    door.refusals = [(401, {}, {"code": "unauthorized", "message": "expired", "retryable": False})]
    client = _client(door, token="t")
    with pytest.raises(ServerError, match="expired"):
        await client.connect()
    assert len(door.asked) == 1
    await client.close()


async def test_waits_for_retry_after(door: Door) -> None:
    door.refusals = [(503, {"Retry-After": "60"}, "<h1>busy</h1>")]
    client = _client(door)
    opening = asyncio.create_task(client.connect())
    async with client.statuses.stream() as statuses:
        async for suspended in statuses:
            if suspended.state == "suspended":
                break
    assert suspended.retry_at is not None
    assert 59 < suspended.retry_at - client.clock.now() < 61
    client.wake()  # not before that
    assert client.status.state == "suspended"
    await client.close()
    await asyncio.wait([opening])
    assert opening.exception() is not None


async def test_obeys_a_close_code_without_a_word(door: Door) -> None:
    async def forbid(connection: ServerConnection) -> None:
        await connection.close(4501, "forbidden")

    door.farewell = forbid
    client = _client(door)
    await client.connect()
    while client.status.state != "failed":
        await client.statuses.next()
    assert (client.status.code, client.status.reason) == (4501, "forbidden")
    await client.close()


async def test_comes_back_when_the_line_is_cut(door: Door) -> None:
    async def cut(connection: ServerConnection) -> None:
        door.farewell = None
        connection.transport.abort()

    door.farewell = cut
    async with _client(door) as client:
        async with asyncio.timeout(30):
            while len(door.asked) < 2 or not client.is_up:
                await client.statuses.next()


async def test_a_server_that_does_not_answer_a_goodbye_does_not_hold_up_the_end(door: Door) -> None:
    async def freeze(connection: ServerConnection) -> None:
        connection.transport.pause_reading()

    door.farewell = freeze
    client = _client(door, close_timeout=0.2)
    await client.connect()
    async with asyncio.timeout(30):
        await client.close()
    assert client.status.state == "closed"
