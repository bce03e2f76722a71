"""Presence is correct after any crash: no user flickers or lingers, and it answers `unavailable` while it is."""

import asyncio
import contextlib
import shutil
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from urllib.parse import quote

import pytest

from tests.chaos.presence import (
    GRACE_S,
    HEAL_S,
    LEASE_S,
    OUTAGE_S,
    SLACK_S,
    are_counted,
    are_members,
    get,
    online_at,
    users_on,
    watching,
)
from tests.support.clients import client
from tests.support.cluster import Cluster, ServiceProcess, aside
from tests.support.deadline import eventually
from tests.support.faults import killed, paused
from tests.support.requires import need
from tidings_cli.local.servers import RedisServer


async def unavailable(gateway: ServiceProcess) -> bool:
    status, body = await get(gateway, "/api/presence")
    # Errors and addresses of Redis are not for untrusted clients.
    return status == 503 and body["code"] == "unavailable" and "redis" not in str(body).lower()


@asynccontextmanager
async def wiped(redis: RedisServer) -> AsyncIterator[None]:
    """Kill Redis and start it again without anything it stored."""
    await aside(redis.kill)
    try:
        yield
    finally:
        await aside(lambda: shutil.rmtree(redis.directory / "appendonlydir", ignore_errors=True))
        await aside(redis.start)


@pytest.fixture(scope="module")
def deployment(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """One with the default timing of presence: what is promised is promised for that."""
    need("nats-server")
    need("redis-server")
    with Cluster(tmp_path_factory.mktemp("presence-deployment")) as running:
        yield running


# --- a gateway dies -------------------------------------------------------------------------------------------


async def test_users_of_a_killed_gateway_expire_in_time_unless_they_reconnect(cluster: Cluster) -> None:
    alive, dying = cluster.gateways[:2]
    room = "presence-kill"
    async with users_on(alive, room, "Stays") as (stays,), watching(alive) as watcher:
        with contextlib.suppress(Exception):  # their sockets break under them
            async with users_on(dying, room, "Returns", "Gone") as (returns, gone):
                both = {returns.user, gone.user}
                await eventually(lambda: are_members(alive, room, both), "both are in the room")
                back, lost = returns.user, gone.user
                session = returns.welcome["session"]
                await eventually(lambda: are_counted(alive, 4), "all connections are counted")
                await aside(dying.kill)
        died = time.monotonic()
        async with client(alive, f"session={quote(session)}") as again:
            assert again.user == back
            await again.join(room)
            await eventually(lambda: are_counted(alive, 3), "its connections are gone", LEASE_S + 1 + SLACK_S)
            assert time.monotonic() - died <= 10 + SLACK_S
            await eventually(lambda: lost in watcher.went, "who did not come back is offline", 20)
            assert GRACE_S <= watcher.went[lost] - died <= 10 + GRACE_S + SLACK_S
            left = await stays.expect("user_left", userId=lost, room=room)
            assert left["username"] == "Gone"
            await asyncio.sleep(2)
            assert back not in watcher.went
            assert stays.user not in watcher.went
            await stays.nothing_of("user_left")
            assert back in await online_at(alive)


async def test_a_gateway_that_restarts_at_once_makes_no_user_offline(cluster: Cluster) -> None:
    alive, dying = cluster.gateways[:2]
    async with watching(alive) as watcher:
        with contextlib.suppress(Exception):
            async with users_on(dying, "presence-restart", "Returns") as (returns,):
                await eventually(lambda: returns.user in watcher.online, "is seen")
                back, session = returns.user, returns.welcome["session"]
                await aside(dying.kill)
        await aside(dying.start)
        async with client(dying, f"session={quote(session)}") as again:
            assert again.user == back
            await asyncio.sleep(GRACE_S + 2)
            assert back not in watcher.went
            assert back in await online_at(alive)


# --- presence_svc or Redis is away ----------------------------------------------------------------------------


def broken(cluster: Cluster, what: str) -> AbstractAsyncContextManager[None]:
    match what:
        case "presence killed":
            return killed(cluster.presence)
        case "presence frozen":
            return paused(cluster.presence)
        case "redis killed":
            return killed(cluster.redis)
        case "redis frozen":
            return paused(cluster.redis)
        case "redis wiped":
            return wiped(cluster.redis)
    raise AssertionError(what)


@pytest.mark.parametrize(
    "what", ["presence killed", "presence frozen", "redis killed", "redis frozen", "redis wiped"]
)
async def test_an_outage_is_reported_while_rooms_continue_and_heals(cluster: Cluster, what: str) -> None:
    one, two = cluster.gateways[:2]
    room = f"presence-{what.replace(' ', '-')}"
    async with (
        users_on(one, room, "Ann") as (ann,),
        users_on(two, room, "Bob", "Leaver") as (bob, leaver),
        watching(one) as watcher,
        AsyncExitStack() as later,
    ):
        await ann.ask("status_change", status="busy")
        await bob.ask("presence_update", customData={"kept": True})
        stable = {ann.user, bob.user}
        await eventually(lambda: stable | {leaver.user} <= set(watcher.online), "all are seen")
        outage_began = time.monotonic()
        async with broken(cluster, what):
            await eventually(lambda: unavailable(two), "presence says that it cannot say", 10)
            # Rooms do not mind.
            ack = await ann.ask("room_message", room=room, content="still here")
            assert ack["type"] == "ack"
            assert (await bob.expect("room_message", room=room))["content"] == "still here"
            # A new follower gets an error, and the list when the service is back.
            late = await ann.ask("subscribe", channel=f"presence:{room}")
            assert late["type"] == "subscribed"
            assert (await ann.expect("error"))["code"] == "unavailable"

            async def breaker_is_open() -> bool:
                _, ready = await get(two, "/readyz")
                return bool(ready["details"]["breakers"]["presence"] != "closed")

            await eventually(breaker_is_open, "the breaker opens", 15)
            asked = time.monotonic()
            assert await unavailable(two)
            assert time.monotonic() - asked < 1.0  # at once, not after a time-out
            await leaver.socket.close(1000)
            await asyncio.sleep(max(0.0, OUTAGE_S - (time.monotonic() - outage_began)))
            assert watcher.went == {}
            newcomer = await later.enter_async_context(client(two, "username=New"))
            await newcomer.join(room)
        back = time.monotonic()

        async def right() -> bool:
            status, users = await get(one, "/api/presence")
            shown = {user["userId"]: user for user in users} if status == 200 else {}
            return (
                stable | {newcomer.user} <= set(shown)
                and leaver.user not in shown
                and shown[ann.user]["status"] == "busy"
                and shown[bob.user].get("customData") == {"kept": True}
            )

        await eventually(right, "all is right again", HEAL_S + SLACK_S)
        assert time.monotonic() - back <= HEAL_S + SLACK_S
        await eventually(lambda: newcomer.user in watcher.online, "followers hear of it", HEAL_S)
        await eventually(lambda: leaver.user not in watcher.online, "and of who left", HEAL_S)
        listed = await ann.expect("presence_list", room=room)
        assert {user["userId"] for user in listed["users"]} >= stable
        await asyncio.sleep(GRACE_S + 1)
        assert not stable & set(watcher.went), "somebody flickered"
        assert stable <= await online_at(two)


async def test_all_users_stay_online_when_the_bus_was_away_for_longer_than_a_lease(cluster: Cluster) -> None:
    one, two = cluster.gateways[:2]
    async with (
        users_on(one, "presence-bus", "Ann") as (ann,),
        users_on(two, "presence-bus", "Bob") as (bob,),
        watching(one) as watcher,
    ):
        stable = {ann.user, bob.user}
        await eventually(lambda: stable <= set(watcher.online), "both are seen")
        async with killed(cluster.nats):
            await asyncio.sleep(OUTAGE_S)

        async def right() -> bool:
            return stable <= await online_at(one)

        await eventually(right, "presence answers again", 20)
        await asyncio.sleep(GRACE_S + 4)
        assert not stable & set(watcher.went)
        assert stable <= await online_at(two)


# --- replicas die under load ----------------------------------------------------------------------------------


async def test_no_join_is_lost_when_replicas_of_presence_are_killed_again_and_again(cluster: Cluster) -> None:
    gateway = cluster.gateways[0]
    room = "presence-notices"
    async with client(gateway, "username=Listener") as listener, AsyncExitStack() as stack:
        await listener.join(room)
        expected = set[str]()
        for round_ in range(3):
            made = [
                await stack.enter_async_context(client(gateway, f"username=N{round_}-{n}")) for n in range(15)
            ]
            for one in made:
                await one.send("join_room", room=room)
                expected.add(one.user)
            await aside(cluster.presence.kill)
            await aside(cluster.presence.start)
        heard = set[str]()
        while heard < expected:
            heard.add((await listener.expect("user_joined", room=room))["userId"])
        assert heard == expected
