"""Messages over HTTP, beside a stream or without one, from the same users as over WebSocket."""

from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import httpx
import pytest
from websockets.asyncio.client import connect

from tests.support.clients import Client, client, event_source
from tests.support.cluster import ServiceProcess
from tests.support.deadline import PATIENCE_S
from tests.support.deployment import Deployment, websocket_url
from tests.support.secured import WITH_TOKENS, bearer, token
from tidings_cli.local.servers import NatsServer, RedisServer

Gateways = tuple[ServiceProcess, ServiceProcess]


@pytest.fixture(scope="module")
def secured(
    nats_server: NatsServer, redis_server: RedisServer, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Deployment]:
    with Deployment(
        tmp_path_factory.mktemp("secured"),
        nats_url=nats_server.url,
        redis_url=redis_server.url,
        prefix="httpsend",
        **WITH_TOKENS,
    ) as deployment:
        yield deployment
        assert deployment.faults() == []


@dataclass
class User:
    """Credentials, as they go with a request."""

    headers: dict[str, str]
    query: dict[str, str]

    async def send(
        self,
        gateway: ServiceProcess,
        path: str,
        body: dict[str, Any],
        *,
        method: str = "POST",
        connection: str = "",
    ) -> httpx.Response:
        headers = self.headers | ({"Tidings-Connection": connection} if connection else {})
        async with httpx.AsyncClient(base_url=gateway.url, timeout=PATIENCE_S) as http:
            return await http.request(method, path, json=body, params=self.query, headers=headers)

    async def acknowledged(self, *args: Any, **options: Any) -> dict[str, Any]:
        answer = await self.send(*args, **options)
        assert answer.status_code == 200, answer.text
        assert answer.json()["type"] == "ack"
        return dict(answer.json())

    @property
    def request(self) -> dict[str, Any]:
        """Options of `event_source`."""
        return {"headers": self.headers, **self.query}


def of_session(session: str) -> User:
    return User({}, {"session": session})


async def history(gateway: ServiceProcess, room: str, user: User) -> list[tuple[str, Any]]:
    async with httpx.AsyncClient(base_url=gateway.url, timeout=PATIENCE_S) as http:
        answer = await http.get(f"/api/rooms/{room}/history", headers=user.headers)
    return [(message["userId"], message["content"]) for message in answer.json()["messages"]]


@asynccontextmanager
async def stream_of(
    gateway: ServiceProcess, user: User, **query: str
) -> AsyncIterator[tuple[Any, dict[str, Any]]]:
    """Open a stream with a room or the inbox; wait until it is in."""
    async with event_source(gateway, **user.request, **query) as stream:
        event, greeting = await stream.next()
        assert event == "connected"
        await stream.expect("joined_room" if "rooms" in query else "subscribed")
        yield stream, greeting


async def test_a_stream_names_its_user_and_a_session_restores_the_user(gateways: Gateways) -> None:
    async with event_source(gateways[0], username="Eve") as stream:
        _, first = await stream.next()
    async with event_source(gateways[1], session=first["session"]) as stream:
        _, again = await stream.next()
    async with client(gateways[0], f"session={first['session']}") as socket:
        assert socket.user == first["userId"]
    assert first["username"] == "Eve"
    assert (again["userId"], again["session"]) == (first["userId"], first["session"])
    assert again["connectionId"] != first["connectionId"]


async def test_a_token_is_the_streams_user(secured: Deployment) -> None:
    async with event_source(secured.gateways[0], headers=bearer(token("ada", name="Ada"))) as stream:
        _, greeting = await stream.next()
    assert (greeting["userId"], greeting["username"]) == ("ada", "Ada")
    assert "session" not in greeting


async def test_a_user_sends_beside_a_stream(gateways: Gateways, room: str) -> None:
    here, there = gateways
    async with client(there) as bob, event_source(here) as first:
        await bob.join(room)
        _, one = await first.next()
        user = of_session(one["session"])
        async with (
            stream_of(here, user, rooms=room) as (stream, greeting),
            client(there, f"session={one['session']}") as tab,
        ):
            await tab.join(room)
            path = f"/api/rooms/{room}/messages"
            # By the other gateway, which does not know the stream: a balancer sends it anywhere.
            for gateway in gateways:
                body = {"content": gateway.name, "id": gateway.name}
                ack = await user.acknowledged(gateway, path, body, connection=greeting["connectionId"])
                for member in (bob, tab):
                    message = await member.expect("room_message")
                    assert (message["userId"], message["content"], message["seq"]) == (
                        one["userId"], gateway.name, ack["seq"],
                    )  # fmt: skip
            await user.acknowledged(
                there, path, {"content": "mine too", "echo": True}, connection=greeting["connectionId"]
            )
            assert (await stream.expect("room_message"))["content"] == "mine too"
            await user.acknowledged(there, path, {"content": "no connection named"})
            assert (await stream.expect("room_message"))["content"] == "no connection named"


async def test_a_sender_cannot_exclude_another_user(gateways: Gateways, room: str) -> None:
    here, there = gateways
    path = f"/api/rooms/{room}/messages"
    async with client(here) as bob, client(there) as eve:
        await bob.join(room)
        user, victim = of_session(eve.welcome["session"]), bob.welcome["connectionId"]
        refused = await user.send(here, path, {"content": "hidden"}, connection=victim)
        assert (refused.status_code, refused.json()["code"]) == (403, "forbidden")
        await user.acknowledged(there, path, {"content": "seen"}, connection=victim)
        assert (await bob.expect("room_message"))["content"] == "seen"


async def test_direct_messages_and_broadcasts(gateways: Gateways) -> None:
    async with client(gateways[0]) as ann, client(gateways[1]) as bob:
        user = of_session(ann.welcome["session"])
        path = f"/api/users/{bob.user}/messages"
        # Sent where the receiver is: presence learns of a connection elsewhere a moment later.
        ack = await user.acknowledged(gateways[1], path, {"content": "psst", "id": "d1"})
        again = await ann.ask("direct_message", targetUserId=bob.user, content="psst", id="d1")
        message = await bob.expect("direct_message")
        assert (message["fromUserId"], message["seq"], ack["online"]) == (ann.user, ack["seq"], True)
        assert (again["seq"], again["epoch"]) == (ack["seq"], ack["epoch"])
        absent = await user.acknowledged(gateways[0], "/api/users/nobody-here/messages", {"content": 1})
        assert absent["online"] is False

        await user.acknowledged(
            gateways[1], "/api/broadcast", {"content": "all"}, connection=ann.welcome["connectionId"]
        )
        heard = await bob.expect("broadcast")
        assert (heard["userId"], heard["content"]) == (ann.user, "all")
        await bob.nothing_of("direct_message")
        await ann.nothing_of("broadcast")


async def send_unanswered(
    gateway: ServiceProcess, room: str, id: str, query: str, headers: dict[str, str], witness: Client
) -> str:
    """Send a message over a WebSocket that is cut before its `ack` was read; return the session."""
    async with connect(websocket_url(gateway, query), additional_headers=headers) as socket:
        one = Client(socket)
        one.welcome = await one.receive()
        await one.join(room)
        await one.send("room_message", room=room, content="once", id=id)
        await witness.expect("room_message", content="once")  # it is stored
        socket.transport.abort()
        return str(one.welcome.get("session", ""))


@pytest.mark.parametrize("auth", ["open", "jwt"])
async def test_a_repeat_on_another_transport_is_no_second_message(
    auth: str, gateways: Gateways, secured: Deployment, room: str
) -> None:
    here, there = gateways if auth == "open" else secured.gateways
    headers = {} if auth == "open" else bearer(token("ada"))
    witness_headers = {} if auth == "open" else bearer(token("witness"))
    async with client(there, additional_headers=witness_headers) as witness:
        await witness.join(room)
        session = await send_unanswered(here, room, "my-id-1", "", headers, witness)
        user = User(headers, {"session": session} if session else {})
        async with stream_of(there, user, rooms=room, channels="inbox") as (stream, greeting):
            path, body = f"/api/rooms/{room}/messages", {"content": "once", "id": "my-id-1"}
            ack = await user.acknowledged(there, path, body, connection=greeting["connectionId"])
            repeated = await user.acknowledged(here, path, body)
            assert (repeated["seq"], repeated["epoch"]) == (ack["seq"], ack["epoch"])
            # Neither the stream nor another member receives it again.
            await user.acknowledged(here, path, {"content": "next", "id": "my-id-2"})
            assert (await stream.expect("room_message"))["content"] == "next"
            assert (await witness.expect("room_message"))["content"] == "next"
        sent = await history(here, room, User(witness_headers, {}))
        assert sent == [(greeting["userId"], "once"), (greeting["userId"], "next")]


async def test_status_and_data_count_as_on_a_socket(gateways: Gateways, room: str) -> None:
    here, there = gateways
    async with client(there, "channels=presence") as ann, event_source(here) as first:
        _, greeting = await first.next()
        user, user_id = of_session(greeting["session"]), greeting["userId"]
        absent = await user.send(here, "/api/me/status", {"status": "busy"}, method="PUT")
        assert (absent.status_code, absent.json()["code"]) == (409, "conflict")
        async with stream_of(here, user, rooms=room, channels="inbox") as (_, greeting):
            await ann.expect("user_online", lambda message: message["user"]["userId"] == user_id)
            mine = greeting["connectionId"]
            # The second by a gateway that has to ask the one with the stream.
            for gateway, status in ((here, "busy"), (there, "away")):
                await user.acknowledged(
                    gateway, "/api/me/status", {"status": status}, method="PUT", connection=mine
                )
                await ann.expect("status_changed", userId=user_id, status=status)
            for gateway, page in ((here, 1), (there, 2)):
                await user.acknowledged(gateway, "/api/me/data", {"customData": {"page": page}}, method="PUT")
                await ann.expect("presence_updated", userId=user_id, customData={"page": page})
            eve = of_session(ann.welcome["session"])
            for gateway, refusal in ((here, 403), (there, 409)):
                foreign = await eve.send(
                    gateway, "/api/me/status", {"status": "busy"}, method="PUT", connection=mine
                )
                assert foreign.status_code == refusal
            await ann.nothing_of("status_changed", userId=user_id)
