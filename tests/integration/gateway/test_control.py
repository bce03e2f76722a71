"""Connections and memberships as the server API sees and changes them, over two gateways."""

import asyncio
import itertools
import os
import signal
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from tests.support.clients import Client, client, event_source
from tests.support.cluster import ServiceProcess
from tests.support.deadline import PATIENCE_S
from tests.support.deployment import Deployment
from tests.support.secured import WITH_TOKENS, bearer, token
from tidings_cli.local.servers import NatsServer, RedisServer

Gateways = tuple[ServiceProcess, ServiceProcess]
USERS_KEY, READ_KEY = "u" * 32, "r" * 32


@pytest.fixture(scope="module")
def secured(
    nats_server: NatsServer, redis_server: RedisServer, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Deployment]:
    with Deployment(
        tmp_path_factory.mktemp("control"),
        nats_url=nats_server.url,
        redis_url=redis_server.url,
        prefix="control",
        presence_grace_s=0.5,
        **WITH_TOKENS | {"api_keys": f"{READ_KEY};scopes=read,{USERS_KEY};scopes=users"},
    ) as deployment:
        yield deployment
        assert deployment.faults() == []


async def request(
    via: ServiceProcess, method: str, path: str, status: int = 200, *, key: str = "", **query: Any
) -> Any:
    headers = {"X-API-Key": key} if key else {}
    async with httpx.AsyncClient(base_url=via.url, timeout=PATIENCE_S) as http:
        answer = await http.request(method, path, params=query, headers=headers)
    assert answer.status_code == status, answer.text
    return answer.json()


# --- memberships ---


async def test_a_user_is_joined_everywhere_and_removed(gateways: Gateways, room: str) -> None:
    here, there = gateways
    path = f"/api/rooms/{room}/users"
    async with client(here) as ann, client(there) as bob:
        session = ann.welcome["session"]
        async with client(there, f"session={session}") as tab, event_source(here, session=session) as stream:
            await stream.expect("connected")
            await bob.join(room)
            joined = await request(there, "PUT", f"{path}/{ann.user}")
            assert joined == {"room": room, "userId": ann.user, "connections": 3, "unanswered": []}
            for member in (ann, tab):
                answer = await member.expect("joined_room", room=room)
                assert "id" not in answer
                assert answer["epoch"]
            assert (await stream.expect("joined_room"))["room"] == room
            assert (await bob.expect("user_joined"))["userId"] == ann.user
            await bob.ask("room_message", room=room, content="hello")
            for member in (ann, tab, stream):
                assert (await member.expect("room_message"))["content"] == "hello"
            again = await request(here, "PUT", f"{path}/{ann.user}")
            assert again["connections"] == 3

            removed = await request(here, "DELETE", f"{path}/{ann.user}")
            assert removed["connections"] == 3
            for member in (ann, tab, stream):
                left = await member.expect("left_room")
                assert (left["room"], left["reason"]) == (room, "removed")
            assert (await bob.expect("user_left"))["userId"] == ann.user
            await bob.ask("room_message", room=room, content="gone")
            await ann.nothing_of("room_message", "joined_room")
            assert (await request(there, "DELETE", f"{path}/{ann.user}"))["connections"] == 0
            await ann.join(room)  # once: the grants still allow it


async def test_a_user_without_a_connection_is_not_found(gateways: Gateways, room: str) -> None:
    for method in ("PUT", "DELETE"):
        refused = await request(gateways[0], method, f"/api/rooms/{room}/users/nobody", 404)
        assert refused["code"] == "not_found"


async def test_the_application_joins_beyond_the_grants_until_it_removes(
    secured: Deployment, room: str
) -> None:
    here, there = secured.gateways
    narrow = {"join": ["own:*"], "publish": []}
    path = f"/api/rooms/{room}/users/ada"
    async with client(there, additional_headers=bearer(token("ada", tidings=narrow))) as ada:
        assert (await ada.ask("join_room", room=room))["code"] == "forbidden"
        await request(here, "PUT", path, key=USERS_KEY)
        await ada.expect("joined_room")
        await ada.ask("refresh", token=token("ada", tidings=narrow))
        await ada.nothing_of("left_room")
        assert (await ada.ask("room_message", room=room, content=1))["code"] == "forbidden"  # may not publish
        assert (await ada.join(room))["type"] == "joined_room"

        await request(here, "DELETE", path, key=USERS_KEY)
        await ada.expect("left_room", reason="removed")
        assert (await ada.ask("join_room", room=room))["code"] == "forbidden"
        await request(here, "PUT", path, key=USERS_KEY)
        await ada.expect("joined_room")
        await ada.ask("leave_room", room=room)
        assert (await ada.ask("join_room", room=room))["code"] == "forbidden"


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("PUT", "/api/rooms/r/users/u"),
        ("DELETE", "/api/rooms/r/users/u"),
        ("GET", "/api/connections"),
        ("GET", "/api/connections/c"),
        ("DELETE", "/api/connections/c"),
    ],
)
async def test_who_may_control(secured: Deployment, method: str, path: str) -> None:
    gateway = secured.gateways[0]
    right, wrong = (READ_KEY, USERS_KEY) if method == "GET" else (USERS_KEY, READ_KEY)
    admin = token("root", tidings={"admin": True})
    async with httpx.AsyncClient(base_url=gateway.url, timeout=PATIENCE_S) as http:
        for headers, status in (
            ({}, 401),
            (bearer(token("ada")), 403),
            ({"X-API-Key": wrong}, 403),
            ({"X-API-Key": right}, 200 if path.endswith("connections") else 404),
            (bearer(admin), 200 if path.endswith("connections") else 404),
        ):
            assert (await http.request(method, path, headers=headers)).status_code == status, headers


# --- connections ---


async def test_a_connection_in_full(gateways: Gateways, room: str) -> None:
    here, there = gateways
    async with client(here, "username=Ann&channels=presence") as ann, client(there) as bob:
        for member in (ann, bob):
            await member.join(room)
        await ann.expect("user_joined")
        for number in range(3):
            await bob.ask("room_message", room=room, content=number)
            await ann.expect("room_message", content=number)
        await ann.ask("room_message", room=room, content="own")  # no copy for the sender
        await bob.ask("direct_message", targetUserId=ann.user, content="psst")
        await ann.expect("direct_message")
        info = await request(there, "GET", f"/api/connections/{ann.welcome['connectionId']}")

        assert (info["userId"], info["username"], info["gateway"]) == (
            ann.user,
            "Ann",
            ann.welcome["gateway"],
        )
        assert (info["dialect"], info["transport"], info["address"]) == ("tidings", "websocket", "127.0.0.1")
        assert (info["rooms"], info["channels"]) == ([room], ["presence"])
        assert (info["messagesIn"], info["messagesOut"]) == (2, 5)
        assert info["bytesIn"] > 300
        assert info["bytesOut"] > 1000
        assert info["bufferedBytes"] == 0
        assert info["since"] <= info["lastSeen"]
        await ann.ask("leave_room", room=room)
        await bob.ask("room_message", room=room, content="unseen")
        info = await request(here, "GET", f"/api/connections/{ann.welcome['connectionId']}")
        assert (info["rooms"], info["messagesOut"]) == ([], 5)
    async with event_source(there, rooms=room) as stream:
        _, greeting = await stream.next()
        await stream.expect("joined_room")
        info = await request(here, "GET", f"/api/connections/{greeting['connectionId']}")
        assert (info["transport"], info["rooms"]) == ("sse", [room])
        assert info["bytesOut"] > 100
    assert (await request(here, "GET", "/api/connections/none", 404))["code"] == "not_found"


async def test_pages_hold_while_connections_come_and_go(gateways: Gateways, room: str) -> None:
    staying: list[Client] = []
    async with asyncio.timeout(PATIENCE_S):
        contexts = [client(gateways[number % 2]) for number in range(11)]
        try:
            for context in contexts:
                staying.append(await context.__aenter__())
                await staying[-1].join(room)
            ids = sorted(each.welcome["connectionId"] for each in staying)
            for filters in ({"room": room}, {}):
                seen: list[str] = []
                cursor: dict[str, str] = {}
                for page in itertools.count():
                    found = await request(
                        gateways[page % 2], "GET", "/api/connections", limit=3, **filters, **cursor
                    )
                    assert len(found["connections"]) <= 3
                    assert found["unanswered"] == []
                    seen += [each["connectionId"] for each in found["connections"]]
                    async with client(gateways[0]) as passing:
                        await passing.join(room)
                    if "cursor" not in found:
                        break
                    cursor = {"cursor": found["cursor"]}
                assert seen == sorted(seen)
                assert len(set(seen)) == len(seen)
                assert set(ids) <= set(seen)
            one = await request(gateways[0], "GET", "/api/connections", user=staying[1].user)
            assert [each["connectionId"] for each in one["connections"]] == [
                staying[1].welcome["connectionId"]
            ]
            name = staying[0].welcome["gateway"]
            local = await request(gateways[1], "GET", "/api/connections", gateway=name, room=room)
            assert {each["gateway"] for each in local["connections"]} == {name}
            assert len(local["connections"]) == 6
            gone = await request(gateways[1], "GET", "/api/connections", gateway="no-such")
            assert gone == {"connections": [], "unanswered": ["no-such"]}
        finally:
            for context in contexts[: len(staying)]:
                await context.__aexit__(None, None, None)


async def test_a_connection_is_ended_wherever_it_is(gateways: Gateways) -> None:
    async with client(gateways[0]) as ann, client(gateways[1], f"session={ann.welcome['session']}") as tab:
        id = tab.welcome["connectionId"]
        ended = await request(gateways[0], "DELETE", f"/api/connections/{id}", reason="bye")
        assert ended == {"connectionId": id, "userId": ann.user, "gateway": tab.welcome["gateway"]}
        assert (await tab.expect("disconnect"))["reason"] == "bye"
        close = await tab.closed()
        assert close is not None
        assert close.code == 4502
        await ann.ask("heartbeat")  # only that one
        assert (await request(gateways[1], "DELETE", f"/api/connections/{id}", 404))["code"] == "not_found"


async def test_a_silent_gateway_is_named(secured: Deployment) -> None:
    here, there = secured.gateways
    async with client(there, additional_headers=bearer(token("zoe"))) as zoe:
        name = zoe.welcome["gateway"]
        found = await request(here, "GET", "/api/connections", key=READ_KEY, user="zoe")
        assert (len(found["connections"]), found["unanswered"]) == (1, [])
        os.kill(there.pid, signal.SIGSTOP)
        try:
            found = await request(here, "GET", "/api/connections", key=READ_KEY, user="zoe")
            assert (found["connections"], found["unanswered"]) == ([], [name])
            one = await request(
                here, "GET", f"/api/connections/{zoe.welcome['connectionId']}", 503, key=READ_KEY
            )
            assert name in one["message"]
        finally:
            os.kill(there.pid, signal.SIGCONT)
