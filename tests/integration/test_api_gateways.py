"""The HTTP API of two real gateways in a complete deployment."""

import asyncio
import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import jwt
import pytest
import websockets
from websockets.asyncio.client import connect

from tests.support.deadline import PATIENCE_S, eventually, fetched
from tests.support.requires import need
from tests.support.running import RunningTidings

SECRET = "a-secret-for-tests-of-32-bytes-or-more"
KEY = "the-api-key"


@pytest.fixture(scope="module", autouse=True)
def _brokers() -> None:
    need("nats-server")
    need("redis-server")


@pytest.fixture(scope="module")
def open_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with RunningTidings(tmp_path_factory.mktemp("open")) as tidings:
        yield tidings.wait_ready().url


@pytest.fixture(scope="module")
def jwt_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    environment = {"TIDINGS_AUTH": "jwt", "TIDINGS_JWT_SECRETS": SECRET, "TIDINGS_API_KEYS": KEY}
    with RunningTidings(tmp_path_factory.mktemp("jwt"), **environment) as tidings:
        yield tidings.wait_ready().url


def bearer(**claims: object) -> dict[str, str]:
    base: dict[str, object] = {"sub": "ada", "aud": "tidings", "exp": int(time.time()) + 60}
    return {"authorization": f"Bearer {jwt.encode(base | claims, SECRET, algorithm='HS256')}"}


def ws(url: str, query: str = "") -> str:
    return f"{url.replace('http', 'ws', 1)}/ws?{query}"


async def received(socket: websockets.ClientConnection, type: str) -> dict[str, Any]:
    """Return the next message of that type."""
    async with asyncio.timeout(PATIENCE_S):
        while True:
            message: dict[str, Any] = json.loads(await socket.recv())
            if message["type"] == type:
                return message


async def test_a_server_reaches_members_whichever_gateway_they_are_on(open_url: str) -> None:
    async with httpx.AsyncClient(base_url=open_url, timeout=PATIENCE_S) as http:
        sockets = [await connect(ws(open_url)) for _ in range(4)]
        for socket in sockets:
            await socket.send(json.dumps({"type": "join_room", "room": "api-den"}))
            await received(socket, "joined_room")
        ack = (await http.post("/api/publish", json={"room": "api-den", "content": {"n": 1}})).json()
        for socket in sockets:
            message = await received(socket, "room_message")
            assert (message["content"], message["seq"], message["userId"]) == ({"n": 1}, ack["seq"], "server")
            await socket.close()


async def test_a_repeated_id_is_stored_once(open_url: str) -> None:
    async with httpx.AsyncClient(base_url=open_url, timeout=PATIENCE_S) as http:
        body = {"room": "api-once", "content": 1, "id": "same"}
        acks = [(await http.post("/api/publish", json=body)).json()["seq"] for _ in range(3)]
        past = (await http.get("/api/rooms/api-once/history")).json()

    assert len(set(acks)) == 1
    assert [message["seq"] for message in past["messages"]] == acks[:1]
    assert past["seq"] >= acks[0]


async def test_history_pages_both_ways(open_url: str) -> None:
    async with httpx.AsyncClient(base_url=open_url, timeout=PATIENCE_S) as http:
        for number in range(5):
            await http.post("/api/publish", json={"room": "a/b ü", "content": number})
        path = "/api/rooms/a%2Fb%20%C3%BC/history"
        whole = (await http.get(path)).json()["messages"]
        seqs = [message["seq"] for message in whole]
        newest = (await http.get(path, params={"limit": 2})).json()["messages"]
        before = (await http.get(path, params={"limit": 2, "before": seqs[3]})).json()["messages"]
        after = (await http.get(path, params={"limit": 2, "since": seqs[1]})).json()["messages"]

    assert [message["content"] for message in whole] == [0, 1, 2, 3, 4]
    assert [message["content"] for message in newest] == [3, 4]
    assert [message["content"] for message in before] == [1, 2]
    assert [message["content"] for message in after] == [2, 3]


async def test_presence_and_rooms_show_users(open_url: str) -> None:
    async with (
        httpx.AsyncClient(base_url=open_url, timeout=PATIENCE_S) as http,
        connect(ws(open_url, "username=Grace")) as socket,
    ):
        me = (await received(socket, "welcome"))["userId"]
        await socket.send(json.dumps({"type": "join_room", "room": "api-here"}))

        async def shown() -> bool:
            users = await fetched(http, "/api/presence", params={"room": "api-here"})
            rooms = await fetched(http, "/api/rooms")
            here = {"room": "api-here", "users": 1, "connections": 1}
            return [user["userId"] for user in users] == [me] and here in rooms

        await eventually(shown, "presence of the room")
        everyone = await fetched(http, "/api/presence")
        assert {"userId": me, "username": "Grace", "status": "online"}.items() <= next(
            user for user in everyone if user["userId"] == me
        ).items()


async def test_pushed_metrics_are_in_the_record(open_url: str) -> None:
    async with httpx.AsyncClient(base_url=open_url, timeout=PATIENCE_S) as http:

        async def recording() -> bool:
            return bool(await fetched(http, "/api/metrics/history", params={"limit": 1}))

        # What comes before the first whole second of a service that starts is in no record.
        await eventually(recording, "the first record")
        answer = await http.post("/api/metrics", json={"source": "shop", "requests": 100_000})
        assert answer.json() == {"accepted": 1, "rejected": []}

        async def counted() -> bool:
            rows = await fetched(http, "/api/metrics/history", params={"limit": 10})
            return any(row["requests"] >= 10_000 for row in rows)

        await eventually(counted, "the pushed requests")


async def test_both_gateways_answer(open_url: str) -> None:
    async with httpx.AsyncClient(base_url=open_url, timeout=PATIENCE_S) as http:

        async def both() -> bool:  # late answers are left out
            return len(await fetched(http, "/api/gateways")) == 2

        await eventually(both, "two gateways")


async def test_a_silence_comes_and_goes(open_url: str) -> None:
    async with httpx.AsyncClient(base_url=open_url, timeout=PATIENCE_S) as http:
        body = {"matchers": [{"name": "metric", "value": "nothing"}], "duration": 60}
        made = (await http.post("/api/silences", json=body)).json()
        assert made in await fetched(http, "/api/silences")
        assert (await http.delete(f"/api/silences/{made['id']}")).status_code == 204
        assert made not in await fetched(http, "/api/silences")
        assert (await http.post("/api/alerts/nothing/ack")).status_code == 404


async def test_an_order_ends_a_users_connections_on_all_gateways(open_url: str) -> None:
    async with httpx.AsyncClient(base_url=open_url, timeout=PATIENCE_S) as http:
        first = await connect(ws(open_url))
        welcome = await received(first, "welcome")
        again = f"session={welcome['session']}"
        sockets = [first, *[await connect(ws(open_url, again)) for _ in range(5)]]
        answer = await http.delete(f"/api/users/{welcome['userId']}/connections")
        for socket in sockets:
            with pytest.raises(websockets.ConnectionClosed) as closed:
                await received(socket, "never")
            assert closed.value.rcvd is not None
            assert closed.value.rcvd.code == 4502
    assert answer.status_code == 202


@pytest.mark.parametrize("origin", ["https://evil.example", "null"])
async def test_cross_site_websocket_hijack(open_url: str, origin: str) -> None:
    with pytest.raises(websockets.InvalidStatus) as refused:
        await connect(ws(open_url), origin=origin)  # type: ignore[arg-type]
    assert refused.value.response.status_code == 403


async def test_under_jwt_connections_need_credentials(jwt_url: str) -> None:
    with pytest.raises(websockets.InvalidStatus) as refused:
        await connect(ws(jwt_url))
    assert refused.value.response.status_code == 401
    async with httpx.AsyncClient(base_url=jwt_url, timeout=PATIENCE_S) as http:
        for path in ("/api/presence", "/api/metrics/history", "/events", "/events/metrics"):
            assert (await http.get(path)).status_code == 401, path
        for path in ("/", "/healthz", "/readyz", "/metrics"):
            assert (await http.get(path)).status_code == 200, path


async def test_token_in_url(jwt_url: str) -> None:
    token = bearer()["authorization"].removeprefix("Bearer ")
    with pytest.raises(websockets.InvalidStatus) as refused:
        await connect(ws(jwt_url, f"token={token}"))
    assert refused.value.response.status_code == 401


async def test_a_program_connects_with_its_token(jwt_url: str) -> None:
    async with connect(ws(jwt_url), additional_headers=bearer(name="Ada L.")) as socket:
        welcome = await received(socket, "welcome")
        assert (welcome["userId"], welcome["username"]) == ("ada", "Ada L.")
        assert "session" not in welcome


async def test_a_browser_connects_with_a_ticket_once_on_any_gateway(jwt_url: str) -> None:
    async with httpx.AsyncClient(base_url=jwt_url, timeout=PATIENCE_S) as http:
        for _ in range(6):  # the kernel spreads the connections over both gateways
            issued = await http.post("/api/tickets", headers=bearer() | {"connection": "close"})
            ticket = issued.json()["ticket"]
            async with connect(ws(jwt_url, f"ticket={ticket}")) as socket:
                assert (await received(socket, "welcome"))["userId"] == "ada"
            with pytest.raises(websockets.InvalidStatus) as refused:
                await connect(ws(jwt_url, f"ticket={ticket}"))
            assert refused.value.response.status_code == 401


async def test_the_server_api_takes_keys(jwt_url: str) -> None:
    async with httpx.AsyncClient(base_url=jwt_url, timeout=PATIENCE_S) as http:
        body = {"room": "api-key", "content": 1}
        assert (await http.post("/api/publish", json=body)).status_code == 401
        assert (await http.post("/api/publish", json=body, headers=bearer())).status_code == 403
        assert (await http.post("/api/publish", json=body, headers={"x-api-key": KEY})).status_code == 200


def test_open_is_refused_off_loopback(tmp_path: Path) -> None:
    with RunningTidings(tmp_path / "data", "--host", "0.0.0.0") as tidings:  # noqa: S104  # it must not bind
        tidings.wait_for("TIDINGS_AUTH=jwt")
