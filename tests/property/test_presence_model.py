"""Presence under any sequence of operations: its rules, in both stores."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import msgspec
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from redis.asyncio import Redis

from presence_svc.changes import BatchResult, Changes, EventKind, QueuedEvent
from presence_svc.policy import AnnouncePolicy
from presence_svc.store import PresenceStore
from services.wire.rpc import AnyPresenceOp, PresenceBatch
from tests.support.presence import (
    TIMINGS,
    Follower,
    ManualClock,
    apply_all,
    connected,
    data,
    disconnected,
    joined,
    left,
    plain_page,
    status,
    sweep_all,
)
from tests.support.presence_model.model import MemoryPresenceStore
from tests.support.properties import examples
from tests.support.requires import need
from tidings_cli.local.servers import RedisServer

# Few of everything, so that what happens to one thing soon happens to it again.
ROOMS = ["lobby", "ü:1"]
USER_OF = {"c1": "ann", "c2": "ann", "c3": "bob"}

connections = st.sampled_from(list(USER_OF))
rooms = st.sampled_from([*ROOMS, "lobby"])
operations = st.one_of(
    st.builds(
        lambda c, name: connected(c, USER_OF[c], name), connections, st.sampled_from(["", "", "", "Other"])
    ),
    st.builds(connected, connections, st.just("bob")),
    st.builds(lambda c, clean: disconnected(c, clean=clean), connections, st.booleans()),
    st.builds(joined, connections, rooms),
    st.builds(joined, connections, rooms),
    st.builds(
        joined, connections, rooms, st.sampled_from([None, 1, {"b": "x\n"}]), st.sampled_from([0, 0, 3000])
    ),
    st.builds(left, connections, rooms),
    st.builds(status, connections, st.sampled_from(["online", "away", "busy"])),
    st.builds(data, connections, st.sampled_from([None, 1, {"a": []}])),
)


def without_member_data(user: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in user.items() if name != "memberData"}


class Batch:
    """A gateway's next batch; `repeat` sends it again, `restart` comes from a new incarnation."""

    def __init__(self, gateway: str, ops: list[AnyPresenceOp], kind: str) -> None:
        self.gateway, self.ops, self.kind = gateway, ops, kind

    def __repr__(self) -> str:
        return f"Batch({self.gateway!r}, {self.ops!r}, {self.kind!r})"


batches = st.builds(
    Batch,
    st.sampled_from(["g1", "g1", "g2"]),
    st.lists(operations, min_size=1, max_size=4),
    st.sampled_from(["next"] * 20 + ["repeat", "fresh", "restart", "old"]),
)
pauses = st.sampled_from([0.5, 2.0, 4.5, 5.0, 9.0, 70.0])
# Several batches to a pause: `one_of` with the same strategy several times counts it once.
steps = st.lists(st.tuples(st.lists(batches, min_size=1, max_size=8), pauses), min_size=1, max_size=6).map(
    lambda parts: [step for sent, pause in parts for step in (*sent, pause)]
)


class Run:
    """Takes a store through steps, as gateways and sweepers would, and follows it."""

    def __init__(
        self, store: MemoryPresenceStore | PresenceStore, clock: ManualClock, *, follows: bool = True
    ) -> None:
        self.store, self.clock, self.follows = store, clock, follows
        self.announced: list[bytes] = []
        self.follower = Follower()
        self.incarnations = {"g1": 1, "g2": 1}
        self.numbers = {"g1": 0, "g2": 0}
        self.results: list[BatchResult] = []

    async def start(self) -> None:
        page = await self.store.page(for_follower=True)
        self.follower.epoch, self.follower.version = page.epoch, page.version
        for room in ROOMS:
            self.follower.rooms[room] = ((await self.store.page(room, for_follower=True)).version, {})

    async def step(self, step: Batch | float) -> None:
        if isinstance(step, float):
            self.clock.advance(step)
            for swept in await sweep_all(self.store):
                self.follow(swept.changes)
        else:
            await self.send(step)

    async def send(self, step: Batch) -> None:
        gateway, kind = step.gateway, step.kind
        if kind == "restart":
            self.incarnations[gateway] += 1
            self.numbers[gateway] = 0
        self.numbers[gateway] += {"repeat": 0, "old": 0}.get(kind, 1)
        incarnation = self.incarnations[gateway] - (
            1 if kind == "old" and self.incarnations[gateway] > 1 else 0
        )
        batch = PresenceBatch(
            gateway=gateway,
            boot=f"b{incarnation}",
            batch=self.numbers[gateway],
            fresh=kind in ("fresh", "restart") or self.numbers[gateway] == 1,
            ops=step.ops,
        )
        applied = await apply_all(self.store, batch)
        self.results.append(applied.result)
        if applied.result is BatchResult.RESYNC:
            assert applied.changes.empty
            self.follower.epoch = applied.changes.epoch  # as a follower that asks again
        self.follow(applied.changes)
        if applied.result in (BatchResult.DUPLICATE, BatchResult.FENCED):
            assert applied.changes.empty

    def follow(self, changes: Changes) -> None:
        self.announced += [msgspec.json.encode(one) for one in [*changes.users, *changes.notices]]
        # In which order users leave within one step is not defined.
        self.announced += [
            msgspec.json.encode(
                (one.room, one.version, str(one.count), sorted(map(msgspec.json.encode, one.changes)))
            )
            for one in changes.rooms
        ]
        self.announced.append(msgspec.json.encode((changes.version, str(changes.count))))
        if self.follows:
            self.follower.apply(changes)

    async def new_announcements(self) -> tuple[list[bytes], list[QueuedEvent]]:
        """The announcements since the last call, and the webhook events."""
        announced, self.announced = sorted(self.announced), []
        lease = await self.store.claim_events("t", "h", 1000, 1000)
        if lease.events:
            await self.store.ack_events("t", lease.events[-1])
        events = [msgspec.structs.replace(event, number=0) for event in lease.events]
        return announced, sorted(events, key=lambda event: (event.kind, event.subject, event.room))

    async def check(self) -> None:
        """The follower's state equals a snapshot."""
        assert self.follower.gaps == []
        page = await self.store.page()
        assert (page.epoch, page.version) == (self.follower.epoch, self.follower.version)
        assert plain_page(page) == self.follower.users
        stats = await self.store.stats()
        assert stats.users == len(page.users)
        inside = set()
        for room in ROOMS:
            members = await self.store.page(room, for_follower=True)
            version, users = self.follower.rooms[room]
            assert plain_page(members) == users
            if users:
                assert members.version == version
            assert set(users) <= set(self.follower.users)
            assert all(self.follower.users[user] == without_member_data(seen) for user, seen in users.items())
            inside |= {(room, user) for user in users}
            self.follower.rooms[room] = (members.version, users)
        assert inside == self.follower.members
        counted = {(room.room, room.users) for room in await self.store.rooms(10)}
        assert counted == {(room, len(users)) for room, (_, users) in self.follower.rooms.items() if users}
        assert stats.rooms == len(counted)

    async def drain(self) -> None:
        """With no gateway renewing, everything ends."""
        self.clock.advance(TIMINGS.lease_ms / 1000)
        for _ in range(2):
            for swept in await sweep_all(self.store):
                self.follow(swept.changes)
            self.clock.advance(TIMINGS.grace_ms / 1000)
        await self.check()
        assert self.follower.users == {}
        assert self.follower.members == set()
        stats = await self.store.stats()
        assert (stats.connections, stats.rooms, stats.gateways) == (0, 0, 0)


async def run_all(run: Run, plan: list[Batch | float]) -> None:
    await run.start()
    for step in plan:
        await run.step(step)
        await run.check()
    await run.drain()


@settings(max_examples=examples(300))
@given(plan=steps)
def test_every_diff_applied_to_the_old_snapshot_gives_the_new_one(plan: list[Batch | float]) -> None:
    clock = ManualClock()
    asyncio.run(run_all(Run(MemoryPresenceStore(TIMINGS, clock), clock), plan))


@asynccontextmanager
async def redis_run(url: str, policy: AnnouncePolicy) -> AsyncIterator[tuple[Run, Redis]]:
    clock = ManualClock()
    async with Redis.from_url(url) as redis:
        await redis.flushdb()
        store = PresenceStore(redis, "property", TIMINGS, policy, clock=clock)
        yield Run(store, clock, follows=not policy.room_limit), redis
        await store.close()


async def run_announcements(url: str, plan: list[Batch | float], policy: AnnouncePolicy) -> None:
    clock = ManualClock()
    memory = Run(MemoryPresenceStore(TIMINGS, clock, policy), clock, follows=False)
    async with redis_run(url, policy) as (redis, _):
        await memory.start()
        await redis.start()
        for step in plan:
            await memory.step(step)
            await redis.step(step)
            assert await redis.new_announcements() == await memory.new_announcements()
            for room in ROOMS:
                ours = await redis.store.page(room, for_follower=True)
                theirs = await memory.store.page(room, for_follower=True)
                assert msgspec.structs.replace(ours, epoch="") == msgspec.structs.replace(theirs, epoch="")


async def run_both(url: str, plan: list[Batch | float]) -> None:
    clock = ManualClock()
    memory = Run(MemoryPresenceStore(TIMINGS, clock), clock)
    async with redis_run(url, AnnouncePolicy()) as (redis, client):
        await memory.start()
        await redis.start()
        for step in plan:
            await memory.step(step)
            await redis.step(step)
            await redis.check()
            await memory.check()
            assert redis.results == memory.results
            assert redis.follower.version == memory.follower.version
            assert redis.follower.users == memory.follower.users
            assert redis.follower.rooms == memory.follower.rooms
        await redis.drain()
        redis.clock.advance(TIMINGS.idle_room_ms / 1000)
        await sweep_all(redis.store)
        # Nothing is left behind but counters.
        kinds = {key.split(b":")[2] for key in await client.keys("*")}
        assert kinds <= {b"meta", b"mark"}
        for counter in ("connections", "outbox_bytes"):
            assert await client.hget("{property:presence}:meta", counter) in (b"0", None)


@settings(
    max_examples=examples(60), deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(plan=steps)
def test_both_stores_do_the_same(plan: list[Batch | float], own_redis: str) -> None:
    asyncio.run(run_both(own_redis, plan))


TWO_LEAVE_IN_ONE_SWEEP: list[Batch | float] = [
    Batch("g1", [op for c in ("c3", "c1") for op in (connected(c, USER_OF[c]), joined(c, "lobby"))], "next"),
    Batch("g1", [disconnected("c3"), disconnected("c1")], "next"),
    5.0,
]


@settings(
    max_examples=examples(60), deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(plan=steps, limit=st.sampled_from([0, 1, 2]))
@example(plan=TWO_LEAVE_IN_ONE_SWEEP, limit=0)
def test_both_stores_announce_the_same(plan: list[Batch | float], limit: int, own_redis: str) -> None:
    policy = AnnouncePolicy(room_limit=limit, online_limit=limit, events=~EventKind(0))
    asyncio.run(run_announcements(own_redis, plan, policy))


@pytest.fixture(scope="module")
def own_redis(tmp_path_factory: pytest.TempPathFactory):
    """A Redis of this module's own, because each example empties it."""
    need("redis-server")
    with RedisServer(tmp_path_factory.mktemp("redis-property")) as server:
        yield server.url
