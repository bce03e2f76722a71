"""Presence under any sequence of operations: the rules, and that both stores obey them alike."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace

import msgspec
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from redis.asyncio import Redis

from presence_svc.changes import Changes, Outcome
from presence_svc.hooks import HookEvent, HookKind
from presence_svc.store import Telling
from presence_svc.store_redis import RedisPresenceStore
from services.local.servers import RedisServer
from services.wire.rpc import AnyPresenceOp, PresenceBatch
from tests.support.presence import (
    TIMING,
    Follower,
    TurnedClock,
    apply_whole,
    connected,
    data,
    disconnected,
    joined,
    left,
    plain_page,
    status,
    sweep_whole,
)
from tests.support.presence_model.store import MemoryPresenceStore
from tests.support.properties import examples
from tests.support.requires import need

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
    st.builds(left, connections, rooms),
    st.builds(status, connections, st.sampled_from(["online", "away", "busy"])),
    st.builds(data, connections, st.sampled_from([None, 1, {"a": []}])),
)


class Batch:
    """A gateway's next batch; `repeat` sends it again, `reboot` comes from a new boot."""

    def __init__(self, gateway: str, ops: list[AnyPresenceOp], kind: str) -> None:
        self.gateway, self.ops, self.kind = gateway, ops, kind

    def __repr__(self) -> str:
        return f"Batch({self.gateway!r}, {self.ops!r}, {self.kind!r})"


batches = st.builds(
    Batch,
    st.sampled_from(["g1", "g1", "g2"]),
    st.lists(operations, min_size=1, max_size=4),
    st.sampled_from(["next"] * 20 + ["repeat", "fresh", "reboot", "old"]),
)
pauses = st.sampled_from([0.5, 2.0, 4.5, 5.0, 9.0, 70.0])
# Several batches to a pause: `one_of` with the same strategy several times counts it once.
steps = st.lists(st.tuples(st.lists(batches, min_size=1, max_size=8), pauses), min_size=1, max_size=6).map(
    lambda parts: [step for sent, pause in parts for step in (*sent, pause)]
)


class Run:
    """Takes a store through steps, as gateways and sweepers would, and follows it."""

    def __init__(
        self, store: MemoryPresenceStore | RedisPresenceStore, clock: TurnedClock, *, follows: bool = True
    ) -> None:
        self.store, self.clock, self.follows = store, clock, follows
        self.told: list[bytes] = []
        self.follower = Follower()
        self.boots = {"g1": 1, "g2": 1}
        self.numbers = {"g1": 0, "g2": 0}
        self.outcomes: list[Outcome] = []

    async def start(self) -> None:
        page = await self.store.everyone(unless_large=True)
        self.follower.epoch, self.follower.version = page.epoch, page.version
        for room in ROOMS:
            self.follower.rooms[room] = ((await self.store.members(room, unless_large=True)).version, {})

    async def step(self, step: Batch | float) -> None:
        if isinstance(step, float):
            self.clock.turn(step)
            for swept in await sweep_whole(self.store):
                self.follow(swept.changes)
        else:
            await self.send(step)

    async def send(self, step: Batch) -> None:
        gateway, kind = step.gateway, step.kind
        if kind == "reboot":
            self.boots[gateway] += 1
            self.numbers[gateway] = 0
        self.numbers[gateway] += {"repeat": 0, "old": 0}.get(kind, 1)
        boot = self.boots[gateway] - (1 if kind == "old" and self.boots[gateway] > 1 else 0)
        batch = PresenceBatch(
            gateway=gateway,
            boot=f"b{boot}",
            batch=self.numbers[gateway],
            fresh=kind in ("fresh", "reboot") or self.numbers[gateway] == 1,
            ops=step.ops,
        )
        applied = await apply_whole(self.store, batch)
        self.outcomes.append(applied.outcome)
        if applied.outcome is Outcome.UNKNOWN:
            assert applied.changes.empty
            self.follower.epoch = applied.changes.epoch  # as a follower that asks again
        self.follow(applied.changes)
        if applied.outcome in (Outcome.REPEATED, Outcome.SUPERSEDED):
            assert applied.changes.empty

    def follow(self, changes: Changes) -> None:
        self.told += [msgspec.json.encode(one) for one in [*changes.users, *changes.notices]]
        # In which order users leave within one step is not defined.
        self.told += [
            msgspec.json.encode(
                (one.room, one.version, one.count, sorted(map(msgspec.json.encode, one.changes)))
            )
            for one in changes.rooms
        ]
        self.told.append(msgspec.json.encode((changes.version, changes.count)))
        if self.follows:
            self.follower.apply(changes)

    async def everything_told(self) -> tuple[list[bytes], list[HookEvent]]:
        """What was said since the last time, and the events for webhooks."""
        told, self.told = sorted(self.told), []
        turn = await self.store.take_hooks("t", "h", 1000, 1000)
        if turn.events:
            await self.store.hooks_delivered("t", turn.events[-1])
        events = [replace(event, number=0) for event in turn.events]
        return told, sorted(events, key=lambda event: (event.kind, event.about))

    async def check(self) -> None:
        """What the follower has is what a snapshot says."""
        assert self.follower.gaps == []
        page = await self.store.everyone()
        assert (page.epoch, page.version) == (self.follower.epoch, self.follower.version)
        assert plain_page(page) == self.follower.users
        stats = await self.store.stats()
        assert stats.users == len(page.users)
        inside = set()
        for room in ROOMS:
            members = await self.store.members(room, unless_large=True)
            version, users = self.follower.rooms[room]
            assert plain_page(members) == users
            if users:
                assert members.version == version
            assert set(users) <= set(self.follower.users)
            assert all(self.follower.users[user] == seen for user, seen in users.items())
            inside |= {(room, user) for user in users}
            self.follower.rooms[room] = (members.version, users)
        assert inside == self.follower.members
        counted = {(room.room, room.users) for room in await self.store.rooms(10)}
        assert counted == {(room, len(users)) for room, (_, users) in self.follower.rooms.items() if users}
        assert stats.rooms == len(counted)

    async def drain(self) -> None:
        """With no gateway renewing, everything ends."""
        self.clock.turn(TIMING.lease_ms / 1000)
        for _ in range(2):
            for swept in await sweep_whole(self.store):
                self.follow(swept.changes)
            self.clock.turn(TIMING.grace_ms / 1000)
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
    clock = TurnedClock()
    asyncio.run(run_all(Run(MemoryPresenceStore(TIMING, clock), clock), plan))


@asynccontextmanager
async def redis_run(url: str, telling: Telling) -> AsyncIterator[tuple[Run, Redis]]:
    clock = TurnedClock()
    async with Redis.from_url(url) as redis:
        await redis.flushdb()
        store = RedisPresenceStore(redis, "property", TIMING, telling, clock=clock)
        yield Run(store, clock, follows=not telling.room_limit), redis
        await store.close()


async def run_told(url: str, plan: list[Batch | float], telling: Telling) -> None:
    clock = TurnedClock()
    memory = Run(MemoryPresenceStore(TIMING, clock, telling), clock, follows=False)
    async with redis_run(url, telling) as (redis, _):
        await memory.start()
        await redis.start()
        for step in plan:
            await memory.step(step)
            await redis.step(step)
            assert await redis.everything_told() == await memory.everything_told()
            for room in ROOMS:
                ours = await redis.store.members(room, unless_large=True)
                theirs = await memory.store.members(room, unless_large=True)
                assert replace(ours, epoch="") == replace(theirs, epoch="")


async def run_both(url: str, plan: list[Batch | float]) -> None:
    clock = TurnedClock()
    memory = Run(MemoryPresenceStore(TIMING, clock), clock)
    async with redis_run(url, Telling()) as (redis, client):
        await memory.start()
        await redis.start()
        for step in plan:
            await memory.step(step)
            await redis.step(step)
            await redis.check()
            await memory.check()
            assert redis.outcomes == memory.outcomes
            assert redis.follower.version == memory.follower.version
            assert redis.follower.users == memory.follower.users
            assert redis.follower.rooms == memory.follower.rooms
        await redis.drain()
        redis.clock.turn(TIMING.idle_room_ms / 1000)
        await sweep_whole(redis.store)
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
def test_both_stores_tell_the_same(plan: list[Batch | float], limit: int, own_redis: str) -> None:
    telling = Telling(room_limit=limit, online_limit=limit, hooks=~HookKind(0))
    asyncio.run(run_told(own_redis, plan, telling))


@pytest.fixture(scope="module")
def own_redis(tmp_path_factory: pytest.TempPathFactory):
    """A Redis of this module's own, because each example empties it."""
    need("redis-server")
    with RedisServer(tmp_path_factory.mktemp("redis-property")) as server:
        yield server.url
