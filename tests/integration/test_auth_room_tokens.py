"""Room tokens: membership of one room by a token, until it expires or is revoked; and no login anywhere."""

import asyncio
import time
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from tests.support.cluster import ServiceProcess
from tests.support.deadline import PATIENCE_S
from tests.support.deployment import Deployment
from tests.support.secured import SERVER, WITH_TOKENS, bearer, client, token
from tidings_cli.local.servers import NatsServer, RedisServer

NO_ROOMS: dict[str, Any] = {"join": ["public"], "publish": ["public"], "channels": []}


@pytest.fixture(scope="module")
def gateways(
    nats_server: NatsServer, redis_server: RedisServer, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[list[ServiceProcess]]:
    settings: dict[str, object] = {
        **WITH_TOKENS,
        "nats_url": nats_server.url,
        "redis_url": redis_server.url,
        "prefix": "room-tokens",
    }
    with Deployment(tmp_path_factory.mktemp("room-tokens"), services=False, **settings) as deployment:
        yield deployment.gateways
        assert deployment.faults() == []


def login(sub: str = "ada", **claims: object) -> str:
    return token(sub, tidings=NO_ROOMS, **claims)


async def test_a_room_token_is_for_its_room_alone(gateways: list[ServiceProcess]) -> None:
    async with client(gateways[0], login()) as ada, client(gateways[1], login("bob")) as bob:
        assert (await ada.ask("join_room", room="a"))["code"] == "forbidden"
        assert (await ada.ask("join_room", room="a", token=token(room="a")))["type"] == "joined_room"
        assert (await ada.ask("room_message", room="a", content=1))["code"] == "forbidden"
        assert (await ada.ask("join_room", room="b"))["code"] == "forbidden"
        joined = await bob.ask("join_room", room="a", token=token("bob", room="a", publish=True))
        assert joined["type"] == "joined_room"
        assert (await bob.ask("room_message", room="a", content="hello"))["type"] == "ack"
        assert (await ada.receive("room_message"))["content"] == "hello"
        back = await bob.ask("join_room", room="a", history=5)  # a member needs no second token
        assert [message["content"] for message in back["history"]] == ["hello"]
        await bob.ask("leave_room", room="a")
        assert (await bob.ask("join_room", room="a"))["code"] == "forbidden"


async def test_messages_right_after_a_join_wait_for_the_token(gateways: list[ServiceProcess]) -> None:
    async with client(gateways[0], login()) as ada:
        for room, publish, answers in (
            ("early-a", True, ["joined_room", "ack", "ack"]),
            ("early-b", False, ["joined_room", "error", "error"]),
        ):
            await ada.send("join_room", room=room, token=token(room=room, publish=publish), id="0")
            for number in (1, 2):
                await ada.send("room_message", room=room, content=number, id=str(number))
            got: dict[str, dict[str, Any]] = {}
            while len(got) < 3:
                message = await ada.receive_any()
                got[message["id"]] = message
            assert [got[id]["type"] for id in "012"] == answers
            assert {answer.get("code") for answer in got.values()} <= {None, "forbidden"}


REFUSED: list[tuple[dict[str, Any], str]] = [
    ({"sub": "eve", "room": "a"}, "forbidden"),
    ({"room": "b"}, "forbidden"),
    ({}, "unauthorized"),
    ({"room": ["a"]}, "unauthorized"),
    ({"room": ""}, "unauthorized"),
    ({"room": "a", "publish": "yes"}, "unauthorized"),
    ({"room": "a", "exp": None}, "unauthorized"),
    ({"room": "a", "aud": "others"}, "unauthorized"),
    ({"room": "a", "life_s": -60}, "unauthorized"),
    ({"room": "a", "life_s": -1}, "unauthorized"),
]


async def test_a_refused_room_token_joins_nothing(gateways: list[ServiceProcess]) -> None:
    async with client(gateways[0], login()) as ada:
        texts = [(token(**claims), code) for claims, code in REFUSED]
        for text, code in [*texts, ("no token", "unauthorized"), ("x" * 9000, "unauthorized")]:
            answer = await ada.ask("join_room", room="a", token=text)
            assert (answer["type"], answer["code"]) == ("error", code), text
            assert (await ada.ask("room_message", room="a", content=1))["code"] == "not_in_room"
        await ada.ask("join_room", room="a", token=token(room="a", publish=True))
        assert (await ada.ask("join_room", room="a", token="no token"))["code"] == "unauthorized"
        await ada.send("join_room", room="c", token="no token")
        assert (await ada.ask("join_room", room="c"))["code"] == "forbidden"  # the other one waits
        assert (await ada.ask("room_message", room="a", content=1))["type"] == "ack"  # still a member


async def test_a_room_token_is_no_login(gateways: list[ServiceProcess]) -> None:
    text = token(room="a", tidings={"admin": True})
    for gateway in gateways:
        async with httpx.AsyncClient(base_url=gateway.url, headers=bearer(text), timeout=PATIENCE_S) as http:
            upgrade = {
                "connection": "upgrade",
                "upgrade": "websocket",
                "sec-websocket-version": "13",
                "sec-websocket-key": "dGhlIHNhbXBsZSBub25jZQ==",
            }
            assert (await http.get("/ws", headers=upgrade)).status_code == 401
            for path in ("/events", "/events/metrics", "/api/presence", "/api/rooms/a/history"):
                assert (await http.get(path)).status_code == 401, path
            for path in ("/api/tickets", "/api/rooms/a/messages", "/api/publish", "/api/revocations"):
                answer = await http.post(path, json={"content": 1})
                assert (answer.status_code, answer.json()["code"]) == (401, "unauthorized"), path
            assert (await http.put("/api/me/status", json={"status": "busy"})).status_code == 401
    async with client(gateways[0], login()) as ada:
        assert (await ada.ask("refresh", token=text))["code"] == "unauthorized"


@pytest.mark.timing
async def test_a_member_is_removed_when_its_token_expires(gateways: list[ServiceProcess]) -> None:
    async with client(gateways[0], login()) as ada, client(gateways[1], login()) as other:
        end = int(time.time()) + 3
        await ada.ask("join_room", room="ends", token=token(room="ends", exp=end, publish=True))
        await ada.ask("join_room", room="public", token=token(room="public", exp=end))
        await other.ask("join_room", room="ends", token=token(room="ends", exp=end))
        await other.ask("join_room", room="ends", token=token(room="ends", exp=end + 60))
        left = await ada.receive("left_room")
        assert left == {"type": "left_room", "room": "ends", "reason": "expired"}
        assert 0 <= time.time() - end < 1.5
        assert (await ada.ask("room_message", room="ends", content=1))["code"] == "not_in_room"
        assert (await ada.ask("room_message", room="public", content=1))["type"] == "ack"  # by the grants
        assert (await other.ask("room_message", room="ends", content=1))["code"] == "forbidden"  # a member
        assert [message for message in other.seen if message["type"] == "left_room"] == []


async def test_a_refresh_keeps_rooms_by_token(gateways: list[ServiceProcess]) -> None:
    async with client(gateways[0], login()) as ada:
        await ada.ask("join_room", room="kept", token=token(room="kept", publish=True))
        await ada.ask("join_room", room="public")
        await ada.ask("refresh", token=token(tidings={"join": [], "publish": []}))
        left = [message for message in ada.seen if message["type"] == "left_room"]
        assert left == [{"type": "left_room", "room": "public", "reason": "removed"}]
        assert (await ada.ask("room_message", room="kept", content=1))["type"] == "ack"


async def test_a_revoked_room_token_ends_the_membership(gateways: list[ServiceProcess]) -> None:
    old, other = token(room="r", jti="lost", publish=True), token(room="s", jti="lost")
    async with (
        httpx.AsyncClient(base_url=gateways[0].url, headers=SERVER, timeout=PATIENCE_S) as http,
        client(gateways[1], login()) as ada,
    ):
        assert (await ada.ask("join_room", room="r", token=old))["type"] == "joined_room"
        assert (await ada.ask("join_room", room="s", token=other))["type"] == "joined_room"
        await ada.ask("join_room", room="public")
        await ada.ask("leave_room", room="s")
        assert (await http.post("/api/revocations", json={"tokenId": "lost"})).status_code == 201
        left = await ada.receive("left_room")
        assert left == {"type": "left_room", "room": "r", "reason": "removed"}
        assert (await ada.ask("room_message", room="public", content=1))["type"] == "ack"
        assert (await ada.ask("join_room", room="r", token=old))["code"] == "unauthorized"
        assert (await ada.ask("join_room", room="r", token=token(room="r")))["type"] == "joined_room"


async def test_many_joins_with_tokens_at_once(gateways: list[ServiceProcess]) -> None:
    async def one(number: int) -> None:
        async with client(gateways[number % 2], login(f"u{number}")) as ada:
            for room in ("x", "y", "z"):
                answer = await ada.ask("join_room", room=room, token=token(f"u{number}", room=room))
                assert answer["type"] == "joined_room"

    await asyncio.gather(*map(one, range(20)))
