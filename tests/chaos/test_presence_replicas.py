"""Several replicas of presence_svc, one of them frozen or late; and a gateway that is frozen and continues."""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager

import pytest

from tests.chaos.presence import (
    GRACE_S,
    HEAL_S,
    OUTAGE_S,
    SLACK_S,
    are_members,
    get,
    online_at,
    users_on,
    watching,
)
from tests.support.clients import client
from tests.support.cluster import Cluster, ServiceProcess, aside
from tests.support.deadline import eventually
from tests.support.faults import paused
from tests.support.requires import need

MANY = 40


@pytest.fixture(scope="module")
def deployment(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """One with the default timing of presence: what is promised is promised for that."""
    need("nats-server")
    need("redis-server")
    with Cluster(tmp_path_factory.mktemp("presence-replicas")) as running:
        yield running


@asynccontextmanager
async def running(process: ServiceProcess) -> AsyncIterator[ServiceProcess]:
    """Start a process; kill it at the end, frozen or not."""
    await aside(process.start)
    try:
        yield process
    finally:
        await aside(process.kill)


async def test_a_frozen_replica_costs_no_presence_and_no_answer(
    cluster: Cluster,
) -> None:
    one, two = cluster.gateways[:2]
    room = "presence-frozen-replica"
    async with (
        running(cluster.another("presence-2", "presence_svc")) as frozen,
        users_on(one, room, "Ann") as (ann,),
        users_on(two, room, "Bob") as (bob,),
        watching(two) as watcher,
    ):
        stable = {ann.user, bob.user}
        await eventually(lambda: stable <= set(watcher.online), "both are seen")
        async with paused(frozen):
            began = time.monotonic()
            statuses = list[int]()
            while time.monotonic() - began < OUTAGE_S:
                statuses.append((await get(one, "/api/presence"))[0])
                await asyncio.sleep(0.1)
            # Each question is asked three times, and every second time in vain: one in eight finds nobody. Four
            # standard deviations below the other seven are what chance leaves of them.
            promised, asked = 7 / 8, len(statuses)
            assert statuses.count(200) > asked * promised - 4 * (asked * promised / 8) ** 0.5, statuses
            async with client(one, "username=New") as newcomer:
                await eventually(lambda: newcomer.user in watcher.online, "who comes is seen", HEAL_S)
        # It goes on with whatever it was asked in the meantime.
        await asyncio.sleep(GRACE_S)
        assert not stable & set(watcher.went), "somebody flickered"
        assert stable <= await online_at(two)
        assert not any(told > 1 for told in watcher.times_told.values())


async def test_replicas_that_sweep_at_once_and_late_expire_each_user_once(cluster: Cluster) -> None:
    dying, alive = cluster.gateways[:2]
    room = "presence-sweeping"
    async with (
        running(cluster.another("presence-2", "presence_svc")) as frozen,
        users_on(alive, room, "Stays") as (stays,),
        watching(alive) as watcher,
    ):
        with contextlib.suppress(Exception):  # their sockets break under them
            async with users_on(dying, room, *(f"U{n}" for n in range(MANY))) as crowd:
                gone = {one.user for one in crowd}
                await eventually(lambda: are_members(alive, room, gone), "all are in the room")
                died = time.monotonic()
                await aside(dying.kill)
        # One replica sweeps until the lease is over; then this one is frozen wherever it is just now, and the other
        # has to let go what is left; it goes on in the middle of that, with what it had begun.
        await asyncio.sleep(max(0.0, 7.0 - (time.monotonic() - died)))
        async with paused(frozen):
            await eventually(lambda: gone & set(watcher.went), "the first one goes", 12)
        await eventually(lambda: gone <= set(watcher.went), "all have gone")
        assert max(watcher.went[user] for user in gone) - died <= 10 + GRACE_S + SLACK_S
        await asyncio.sleep(4.0)  # the time until unconfirmed changes are sent again
        assert {user: watcher.times_told["offline", user] for user in gone} == dict.fromkeys(gone, 1)
        await stays.ask("heartbeat")
        left = [message["userId"] for message in stays.inbox if message["type"] == "user_left"]
        assert sorted(left) == sorted(gone)
        assert stays.user not in watcher.went
        _, stats = await get(alive, f"/api/presence/stats?room={room}")
        assert stats == {"users": 1}


async def test_a_gateway_frozen_for_longer_than_its_lease_returns(cluster: Cluster) -> None:
    alive, frozen = cluster.gateways[:2]
    room = "presence-frozen-gateway"
    async with (
        users_on(alive, room, "Stays") as (stays,),
        users_on(frozen, room, "Ann") as (ann,),
        watching(alive) as watcher,
    ):
        await eventually(lambda: ann.user in watcher.online, "is seen")
        began = time.monotonic()
        async with paused(frozen):
            await eventually(lambda: ann.user in watcher.went, "is offline", 10 + GRACE_S + SLACK_S)
            assert watcher.went[ann.user] - began <= 10 + GRACE_S + SLACK_S
            assert ann.user not in await online_at(alive)
        await eventually(lambda: ann.user in watcher.online, "is online again", HEAL_S)
        await stays.expect("user_joined", userId=ann.user, room=room)
        # The connection itself never broke.
        assert (await ann.ask("heartbeat"))["type"] == "heartbeat_ack"
        assert stays.user not in watcher.went
