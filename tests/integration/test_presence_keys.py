"""Presence's keys in a real Redis: reads write nothing, audits correct counts, and lost writes are noticed."""

from collections.abc import AsyncIterator

import msgspec
import pytest
from redis.asyncio import Redis

from presence_svc.changes import EventKind
from presence_svc.policy import AnnouncePolicy
from presence_svc.store import AUDITED_MEMBERSHIPS, PresenceStore
from services.wire.records import UNSET
from services.wire.server import UserJoined
from tests.support.deadline import eventually
from tests.support.presence import (
    TIMINGS,
    ManualClock,
    SimulatedGateway,
    batch,
    connected,
    disconnected,
    joined,
    sweep_all,
)


@pytest.fixture
async def redis(redis_server) -> AsyncIterator[Redis]:
    async with Redis.from_url(redis_server.url) as client:
        yield client


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
async def store(redis: Redis, prefix: str, clock: ManualClock) -> AsyncIterator[PresenceStore]:
    running = PresenceStore(redis, prefix, TIMINGS, AnnouncePolicy(events=~EventKind(0)), clock=clock)
    yield running
    await running.close()


@pytest.fixture
def base(prefix: str) -> str:
    return f"{{{prefix}:presence}}"


async def everything(redis: Redis, base: str) -> dict[bytes, bytes]:
    return {key: await redis.dump(key) for key in await redis.keys(f"{base}*")}


async def test_reads_write_nothing(store: PresenceStore, redis: Redis, base: str):
    await store.page("before-anything")
    assert await everything(redis, base) == {}
    await SimulatedGateway(store).send(connected("c1", "ann"), joined("c1", "lobby"))
    before = await everything(redis, base)
    for room in ("lobby", "nobody-is-here", "nor-here"):
        page = await store.page(room)
        assert (await store.lookup(["ann"], room)).version == page.version
    await store.page()
    await store.rooms(10)
    await store.stats()
    assert await everything(redis, base) == before


async def test_a_count_that_is_wrong_is_corrected(store: PresenceStore, redis: Redis, base: str, clock):
    gateway, other = SimulatedGateway(store), SimulatedGateway(store, "g2")
    for n in range(30):
        await gateway.send(connected(f"c{n}", f"u{n}"), joined(f"c{n}", f"room-{n}"), joined(f"c{n}", "all"))
    await other.send(connected("d0", "u0"), joined("d0", "all"))
    await gateway.send(disconnected("c1"))  # its grace runs: a member without a connection
    await other.send(connected("d0", "u0"), joined("d0", "all"), fresh=True)
    assert await store.audit() == 0
    stats, rooms = await store.stats(), await store.rooms(100)
    assert stats.connections == 30
    before = await everything(redis, base)

    await redis.zadd(f"{base}:rooms", {"all": 7})
    await redis.zrem(f"{base}:rooms", "room-3")
    await redis.zadd(f"{base}:rooms", {"room-1": 4})
    await redis.hset(f"{base}:room_connections", "all", 31)
    await redis.hdel(f"{base}:room_connections", "room-4")
    await redis.hset(f"{base}:meta", "connections", 12)
    corrected = 0

    async def all_corrected() -> bool:
        nonlocal corrected
        corrected += await store.audit()
        return corrected == 6

    await eventually(all_corrected, "all six are right again")
    assert (await store.stats(), await store.rooms(100)) == (stats, rooms)
    after = await everything(redis, base)
    for name in ("meta", "users", "memberships", "members:all"):
        assert after[f"{base}:{name}".encode()] == before[f"{base}:{name}".encode()]
    clock.advance(20)
    await sweep_all(store)
    clock.advance(20)
    await sweep_all(store)
    assert await store.audit() == 0
    assert await store.rooms(10) == []


async def test_an_audit_does_bounded_work(store: PresenceStore, redis: Redis, base: str):
    gateway = SimulatedGateway(store)
    many = AUDITED_MEMBERSHIPS + 1
    for first in range(0, many, 500):
        last = min(first + 500, many)
        await gateway.send(
            *(op for n in range(first, last) for op in (connected(f"c{n}", f"u{n}"), joined(f"c{n}", "all")))
        )
    await redis.hset(f"{base}:room_connections", "all", 1)
    await redis.zadd(f"{base}:rooms", {"all": 1})
    assert await store.audit() == 1  # its size; its connections are too many to count
    assert (await store.rooms(1))[0].users == many


async def test_events_of_lost_writes_are_not_acknowledged_for_others(
    store: PresenceStore, redis: Redis, base: str
):
    gateway = SimulatedGateway(store)
    await gateway.send(connected("c1", "ann"))
    dump = await everything(redis, base)
    await gateway.send(connected("c2", "bob"), connected("c3", "eve"))
    lease = await store.claim_events("t", "h", 1000, 100)
    assert [event.subject for event in lease.events] == ["ann", "bob", "eve"]  # they are being posted
    for key in await redis.keys(f"{base}*"):
        await redis.delete(key)
    for key, value in dump.items():
        await redis.restore(key, 0, value)
    await store.ack_events("t", lease.events[-1])  # this store never had so many
    await SimulatedGateway(store, "g2").send(connected("d1", "zed"), connected("d2", "max"))
    await store.ack_events("t", lease.events[1])  # and this number is another's
    again = await store.claim_events("t", "h", 1000, 100)
    assert [event.subject for event in again.events] == ["ann", "zed", "max"]


async def test_member_data_that_an_earlier_version_left_behind(
    store: PresenceStore, redis: Redis, base: str, clock: ManualClock
):
    gateway = SimulatedGateway(store)
    await gateway.send(connected("c1", "ann"), connected("c2", "bob"), joined("c2", "lobby", 1))
    # An earlier version ends memberships without their data.
    await redis.hset(f"{base}:member_data:lobby", "ann", f"{clock()} 7")
    applied = await gateway.send(joined("c1", "lobby"))
    (notice,) = applied.changes.notices
    assert isinstance(notice, UserJoined)
    assert notice.member_data is UNSET
    assert [user.member_data for user in (await store.page("lobby")).users] == [UNSET, msgspec.Raw(b"1")]
    await redis.hset(f"{base}:member_data:lobby", "eve", f"{clock()} 7")
    await gateway.send(disconnected("c1", clean=True), disconnected("c2", clean=True))
    clock.advance(TIMINGS.idle_room_ms / 1000)
    await sweep_all(store)
    assert await redis.keys(f"{base}:member_data:*") == []


async def test_a_step_that_an_earlier_version_left_to_publish(
    store: PresenceStore, redis: Redis, base: str, clock: ManualClock
):
    await SimulatedGateway(store).send(connected("c1", "ann"), joined("c1", "lobby"))
    page = await store.page()
    user = [1, "ann", "Ann", 2, clock(), ""]
    step = [0, page.epoch, page.version, [user], [["lobby", 9, [1], -1]], [[True, "ann", "Ann", "lobby"]]]
    await redis.hset(f"{base}:outbox", "77", msgspec.msgpack.encode([*step, False, -1, 77, 1]))
    await redis.zadd(f"{base}:outbox_due", {"77": clock()})
    swept = await store.sweep()
    (earlier,) = [one for one in swept.unacked if one.commit_id == 77]
    assert [notice.user_id for notice in earlier.notices] == ["ann"]
    # What this version stores is read by an earlier one: all it knows is where it was.
    shown = await SimulatedGateway(store, "g2").store.apply(
        batch(connected("c2", "bob"), joined("c2", "lobby", {"seat": 1}), number=2)
    )
    stored = await redis.hget(f"{base}:outbox", str(shown.changes.commit_id))
    assert stored is not None
    before = msgspec.msgpack.decode(stored)
    assert before[5] == [[True, "bob", "Bob", "lobby"]]
    assert before[3][0][:6] == [1, "bob", "Bob", 2, clock(), ""]
