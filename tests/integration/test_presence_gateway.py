"""Presence as clients of real gateways see it: large rooms, pages, lookups by name, counts, health details."""

import asyncio
import secrets
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any
from urllib.parse import quote

import httpx
import pytest

from tests.support.clients import Client, client
from tests.support.deadline import PATIENCE_S, eventually
from tests.support.deployment import Deployment
from tidings_cli.local.servers import NatsServer, RedisServer

ROOM_LIMIT = 5


@pytest.fixture(scope="module")
def deployment(
    nats_server: NatsServer, redis_server: RedisServer, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Deployment]:
    with Deployment(
        tmp_path_factory.mktemp("presence"),
        nats_url=nats_server.url,
        redis_url=redis_server.url,
        prefix=f"p{secrets.token_hex(4)}",
        presence_grace_s=0.5,
        presence_room_limit=ROOM_LIMIT,
    ) as running:
        yield running


@asynccontextmanager
async def people(deployment: Deployment, count: int) -> AsyncIterator[list[Client]]:
    """Connect so many users, by turns to each gateway."""
    async with AsyncExitStack() as stack:
        yield [
            await stack.enter_async_context(client(deployment.gateways[n % 2], f"username=U{n}"))
            for n in range(count)
        ]


async def get(deployment: Deployment, path: str, **query: Any) -> Any:
    async with httpx.AsyncClient(
        base_url=deployment.gateways[0].url, trust_env=False, timeout=PATIENCE_S
    ) as http:
        answer = await http.get(path, params=query)
        assert answer.status_code == 200, answer.text
        return answer.json()


async def test_users_are_looked_up_by_name_and_counted(deployment: Deployment) -> None:
    room = f"r-{secrets.token_hex(4)}"
    async with people(deployment, 3) as (ann, bob, eve):
        await ann.join(room)
        await eve.join(room)
        asked = {"user": [ann.user, bob.user, "nobody"]}
        found = await eventually(
            lambda: found_all(deployment, asked, {ann.user, bob.user}), "both are online"
        )
        assert [one["userId"] for one in found] == sorted([ann.user, bob.user])
        await eventually(lambda: has_users(deployment, room, 2), "both are in the room")
        in_room = await get(deployment, "/api/presence", room=room, **asked)
        assert [one["userId"] for one in in_room] == [ann.user]
        counts = await get(deployment, "/api/presence/stats")
        assert set(counts) == {"users", "connections", "rooms", "gateways"}
        assert counts["users"] >= 3


async def has_users(deployment: Deployment, room: str, count: int) -> bool:
    stats: dict[str, int] = await get(deployment, "/api/presence/stats", room=room)
    return stats == {"users": count}


async def found_all(deployment: Deployment, asked: dict[str, Any], wanted: set[str]) -> Any:
    found = await get(deployment, "/api/presence", **asked)
    return found if {one["userId"] for one in found} == wanted else None


async def test_a_room_over_its_limit_announces_counts_and_no_joins(deployment: Deployment) -> None:
    room = f"r-{secrets.token_hex(4)}"
    async with people(deployment, ROOM_LIMIT + 2) as all_of_them:
        first, *others = all_of_them
        await first.ask("subscribe", channel=f"presence:{room}")
        assert (await first.expect("presence_list", room=room))["users"] == []
        await first.join(room)
        await first.expect("user_online", room=room)
        for one in others[: ROOM_LIMIT - 1]:
            await one.join(room)
            await first.expect("user_joined", room=room, userId=one.user)
            await first.expect("user_online", room=room)
        await others[ROOM_LIMIT - 1].join(room)
        told = await first.expect("presence_list", room=room)
        assert (told["users"], told["count"]) == ([], ROOM_LIMIT + 1)
        await others[ROOM_LIMIT].join(room)
        told = await first.expect("presence_list", room=room)
        assert (told["users"], told["count"]) == ([], ROOM_LIMIT + 2)
        await first.nothing_of("user_joined", "user_online")
        # Everyone's presence has its own limit, and HTTP pages go on.
        assert len(await get(deployment, "/api/presence", room=room)) == ROOM_LIMIT + 2
        # Later followers only get the count.
        await others[0].ask("subscribe", channel=f"presence:{room}")
        assert (await others[0].expect("presence_list", room=room))["count"] == ROOM_LIMIT + 2
        # Below the limit by a tenth there are lists and notices again.
        for one in others[-4:]:
            await one.ask("leave_room", room=room)
        whole = await first.expect("presence_list", lambda message: bool(message["users"]), room=room)
        assert "count" not in whole
        seen = {one["userId"] for one in whole["users"]}
        for message in [m for m in first.inbox if m["type"] == "user_offline"]:
            seen.discard(message["userId"])
        assert first.user in seen
        await others[-1].join(room)
        await first.expect("user_joined", room=room, userId=others[-1].user)


async def test_custom_data_has_a_limit_and_the_last_write_of_any_connection_holds(
    deployment: Deployment,
) -> None:
    async with client(deployment.gateways[0], "username=Ann") as one:
        session = one.welcome["session"]
        async with client(deployment.gateways[1], f"session={quote(session)}") as two:
            assert two.user == one.user
            refused = await one.ask("presence_update", customData="x" * 5000)
            assert (refused["type"], refused["code"]) == ("error", "too_large")
            await one.ask("presence_update", customData={"from": "one"})
            await eventually(lambda: shown(deployment, one.user, {"from": "one"}), "the first")
            await two.ask("presence_update", customData={"from": "two"})
            await eventually(lambda: shown(deployment, one.user, {"from": "two"}), "the second")


async def test_custom_data_is_charged_for_every_notified_room(deployment: Deployment) -> None:
    """Whichever of the user's connections is in them: 4 kB in 200 rooms is 0.8 MB, and a burst is 2 MiB."""
    async with client(deployment.gateways[0], "username=Ann") as one:
        session = quote(one.welcome["session"])
        async with client(deployment.gateways[0], f"session={session}") as two:
            for number in range(100):
                await one.ask("join_room", room=f"charged-{number}")
                await two.ask("join_room", room=f"charged-{number + 50}")
            for number in range(6):
                await one.send("presence_update", customData="x" * 4000, id=f"data-{number}")
            assert (await one.expect("ack", id="data-0"))["id"] == "data-0"
            refused = await one.expect("error")
            assert refused["code"] == "rate_limited"
            assert "bytes per second" in refused["message"]
            assert refused["retryAfterMs"] > 0
            assert (await one.ask("presence_update", customData="x"))["type"] == "ack"


async def shown(deployment: Deployment, user: str, data: object) -> bool:
    found = await get(deployment, "/api/presence", user=user)
    return bool(found) and found[0].get("customData") == data


async def test_last_seen_moves_with_what_a_user_does_and_not_with_time(deployment: Deployment) -> None:
    async with client(deployment.gateways[0], "username=Ann") as ann:

        async def seen() -> int:
            found = await get(deployment, "/api/presence", user=ann.user)
            return int(found[0]["lastSeen"]) if found else 0

        before = await eventually(seen, "ann is online")
        await asyncio.sleep(1.0)  # time passes, and she does nothing
        assert await seen() == before
        await ann.ask("heartbeat")

        async def moved() -> bool:
            return await seen() >= before + 900

        await eventually(moved, "lastSeen follows")


async def test_a_lookup_of_offline_users_is_empty(deployment: Deployment) -> None:
    async with client(deployment.gateways[0], "username=Ann") as ann:
        user = ann.user
        await eventually(lambda: get(deployment, "/api/presence", user=user), "online")
    # The client closed with 1000: gone at once.
    await eventually(lambda: is_gone(deployment, user), "offline")


async def is_gone(deployment: Deployment, user: str) -> bool:
    return await get(deployment, "/api/presence", user=user) == []


async def test_health_details_name_the_breakers(deployment: Deployment) -> None:
    async def closed() -> bool:  # on a busy machine one may have opened
        body = await get(deployment, "/readyz")
        return body["details"] == {"breakers": {"presence": "closed", "metrics": "closed"}}

    await eventually(closed, "the breakers in the details, closed")
    async with httpx.AsyncClient(
        base_url=deployment.gateways[0].url, trust_env=False, timeout=PATIENCE_S
    ) as http:
        assert 'tidings_breaker_state{service="presence"} 0.0' in (await http.get("/metrics")).text
