"""Webhook events of members: exactly one `member_joined` and one `member_left` for each membership, whatever crashes.

Connections join, leave, are removed and are lost; gateways crash and start again; replicas of presence_svc crash
between a step and its answer, and between a post and its acknowledgement.
"""

import asyncio
from collections.abc import Iterable
from itertools import cycle

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from redis.asyncio import Redis

from presence_svc.changes import BatchResult, EventKind
from presence_svc.policy import AnnouncePolicy
from presence_svc.store import PresenceStore
from presence_svc.webhooks import event_id
from services.wire.rpc import AnyPresenceOp, PresenceBatch
from tests.support.presence import (
    TIMINGS,
    ManualClock,
    connected,
    disconnected,
    joined,
    left,
)
from tests.support.properties import examples
from tests.support.requires import need
from tidings_cli.local.servers import RedisServer

ROOMS = ["lobby", "hall"]
USERS = ["ann", "bob"]
MEMBERS = EventKind.MEMBER_JOINED | EventKind.MEMBER_LEFT


class World:
    """Two gateways, two replicas of presence_svc, one receiver of webhooks."""

    def __init__(self, redis: Redis, choices: Iterable[int]) -> None:
        self.redis = redis
        self.clock = ManualClock()
        self.choices = cycle(choices)
        self.replicas = [self.started(), self.started()]
        self.connections: list[dict[str, tuple[str, set[str]]]] = [{}, {}]
        self.boots = [1, 1]
        self.numbers = [0, 0]
        self.opened = [False, False]
        self.received: dict[str, tuple[EventKind, str, str]] = {}
        self.owners = 0

    def started(self) -> PresenceStore:
        # A small limit of work: many batches are applied in several pieces.
        policy = AnnouncePolicy(events=MEMBERS, room_limit=1)
        return PresenceStore(self.redis, "members", TIMINGS, policy, clock=self.clock, work=2)

    async def crash_replica(self, index: int) -> None:
        await self.replicas[index].close()
        self.replicas[index] = self.started()

    async def send(self, gateway: int, ops: list[AnyPresenceOp], *, lose_answer: bool = False) -> None:
        fresh = not self.opened[gateway]
        if fresh:
            ops = [
                op
                for connection, (user, rooms) in self.connections[gateway].items()
                for op in [connected(connection, user), *(joined(connection, room) for room in sorted(rooms))]
            ]
        self.numbers[gateway] += 1
        batch = PresenceBatch(
            gateway=f"g{gateway}",
            boot=f"b{self.boots[gateway]}",
            batch=self.numbers[gateway],
            fresh=fresh,
            ops=ops,
        )
        self.opened[gateway] = True
        result = BatchResult.PARTIAL
        while result is BatchResult.PARTIAL:
            index = next(self.choices)
            result = (await self.replicas[index].apply(batch)).result
            if lose_answer:  # the replica dies after the script; the gateway sends the batch again
                await self.crash_replica(index)
                lose_answer, result = False, BatchResult.PARTIAL
        if result is BatchResult.RESYNC:
            self.opened[gateway] = False
            await self.send(gateway, [])

    async def step(self, step: tuple[object, ...]) -> None:
        match step:
            case ("do", int(gateway), str(what), str(user), str(room), bool(lose_answer)):
                await self.send(gateway, self.do(gateway, what, user, room), lose_answer=lose_answer)
            case ("crash", int(gateway)):
                self.connections[gateway].clear()
                self.boots[gateway] += 1
                self.numbers[gateway], self.opened[gateway] = 0, False
            case ("pass", float(seconds), bool(renews)):
                self.clock.advance(seconds)
                for gateway in (0, 1) if renews else ():
                    await self.send(gateway, [])
                await self.sweep()
            case ("deliver", int(limit), bool(crashes)):
                await self.deliver(limit, crashes=crashes)

    def do(self, gateway: int, what: str, user: str, room: str) -> list[AnyPresenceOp]:
        connections, key = self.connections[gateway], f"g{gateway}-{user}"
        if what == "connect" and key not in connections:
            connections[key] = (user, set())
            return [connected(key, user)]
        if key not in connections:
            return []
        rooms = connections[key][1]
        if what == "join":
            rooms.add(room)
            return [joined(key, room)]
        if what == "leave":  # also what the removal by the server reports
            rooms.discard(room)
            return [left(key, room)]
        if what == "hop":
            rooms.add(room)
            return [left(key, room), joined(key, room)]
        del connections[key]
        return [disconnected(key, clean=what == "close")]

    async def sweep(self) -> None:
        while (await self.replicas[next(self.choices)].sweep()).more:
            pass

    async def deliver(self, limit: int = 100, *, crashes: bool = False) -> None:
        index = next(self.choices)
        self.owners += 1
        lease = await self.replicas[index].claim_events("t", f"o{self.owners}", 0, limit)
        assert lease.dropped == 0
        for event in lease.events:
            fact = (event.kind, event.subject, event.room)
            assert self.received.setdefault(event_id(event), fact) == fact
        if crashes:
            await self.crash_replica(index)
        elif lease.events:
            await self.replicas[index].ack_events("t", lease.events[-1])

    async def check(self) -> None:
        """The events received so far alternate, and lead to the members that there are."""
        await self.deliver()
        inside: set[tuple[str, str]] = set()
        for kind, user, room in self.received.values():
            assert ((user, room) in inside) == (kind is EventKind.MEMBER_LEFT), (kind, user, room)
            inside ^= {(user, room)}
        pages = {room: await self.replicas[0].page(room) for room in ROOMS}
        assert inside == {(user.user_id, room) for room, page in pages.items() for user in page.users}


async def run(url: str, plan: list[tuple[object, ...]], choices: list[int]) -> None:
    async with Redis.from_url(url) as redis:
        await redis.flushdb()
        world = World(redis, choices)
        for step in plan:
            await world.step(step)
            await world.check()
        world.clock.advance(TIMINGS.lease_ms / 1000)
        await world.sweep()
        world.clock.advance(TIMINGS.grace_ms / 1000)
        await world.sweep()
        await world.check()
        kinds = [kind for kind, _, _ in world.received.values()]
        assert kinds.count(EventKind.MEMBER_JOINED) == kinds.count(EventKind.MEMBER_LEFT)
        for replica in world.replicas:
            await replica.close()


steps = st.one_of(
    *[
        st.tuples(
            st.just("do"),
            st.integers(0, 1),
            st.sampled_from(["connect"] * 3 + ["join"] * 4 + ["leave", "hop", "lose", "close"]),
            st.sampled_from(USERS),
            st.sampled_from(ROOMS),
            st.booleans(),
        )
    ]
    * 5,
    st.tuples(st.just("crash"), st.integers(0, 1)),
    st.tuples(st.just("pass"), st.sampled_from([0.5, 2.6, 5.1, 9.5]), st.booleans()),
    st.tuples(st.just("deliver"), st.integers(1, 3), st.booleans()),
)


@settings(
    max_examples=examples(120),
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(
    plan=st.lists(steps, min_size=1, max_size=25),
    choices=st.lists(st.integers(0, 1), min_size=1, max_size=5),
)
def test_each_membership_is_one_pair_of_events(
    plan: list[tuple[object, ...]], choices: list[int], own_redis: str
) -> None:
    asyncio.run(run(own_redis, plan, choices))


@pytest.fixture(scope="module")
def own_redis(tmp_path_factory: pytest.TempPathFactory):
    """A Redis of this module's own, because each example empties it."""
    need("redis-server")
    with RedisServer(tmp_path_factory.mktemp("redis-members")) as server:
        yield server.url
