"""Webhook events: their kinds, and their delivery to targets by one owner at a time."""

from presence_svc.changes import EventKind
from presence_svc.policy import AnnouncePolicy
from tests.support.presence import (
    AnyStore,
    SimulatedGateway,
    connected,
    disconnected,
    joined,
    left,
    sweep_all,
    users,
)

MEMBERS = EventKind.MEMBER_JOINED | EventKind.MEMBER_LEFT
ALL_EVENTS = ~EventKind(0) & ~MEMBERS  # those that are posted by default


async def claim(store: AnyStore, target: str = "t", owner: str = "h", limit: int = 100) -> list[str]:
    lease = await store.claim_events(target, owner, 15_000, limit)
    return [f"{event.number} {event.kind.name} {event.subject}" for event in lease.events]


async def test_first_and_last_are_events(make_store, clock):
    store = await make_store(AnnouncePolicy(events=ALL_EVENTS))
    gateway = SimulatedGateway(store)
    await gateway.send(*users(0, 2), connected("c9", "u00"), joined("c9", "hall"))
    await gateway.send(disconnected("c0", clean=True), disconnected("c1"), left("c9", "hall"))
    clock.advance(5.1)
    await sweep_all(store)
    await gateway.send(disconnected("c9", clean=True))
    assert await claim(store) == [
        "1 USER_ONLINE u00", "2 USER_ONLINE u01", "3 ROOM_OCCUPIED hall",
        "4 USER_OFFLINE u01", "5 ROOM_VACATED hall", "6 USER_OFFLINE u00",
    ]  # fmt: skip
    lease = await store.claim_events("t", "h", 15_000, 1)
    assert (lease.events[0].username, lease.events[0].at_ms, lease.dropped) == ("U00", clock() - 5100, 0)


async def test_a_short_disconnect_is_no_event(make_store, clock):
    store = await make_store(AnnouncePolicy(events=ALL_EVENTS))
    gateway = SimulatedGateway(store)
    await gateway.send(*users(0, 1))
    await gateway.send(disconnected("c0"))
    clock.advance(3)
    await gateway.send(*users(0, 1), connected("c1", "u00", "Renamed"))
    assert await claim(store) == ["1 USER_ONLINE u00", "2 ROOM_OCCUPIED hall"]


async def test_members_of_each_room_are_events(make_store, clock):
    store = await make_store(AnnouncePolicy(room_limit=1, events=~EventKind(0)))
    gateway = SimulatedGateway(store)
    await gateway.send(*users(0, 1), joined("c0", "attic"), connected("c9", "u00"), joined("c9", "hall"))
    await gateway.send(disconnected("c0"))
    clock.advance(5.1)
    await sweep_all(store)
    await gateway.send(left("c9", "hall"), joined("c9", "hall"))  # nothing in sum
    await gateway.send(disconnected("c9", clean=True))
    lease = await store.claim_events("t", "h", 15_000, 100)
    assert [f"{event.kind.name} {event.subject} {event.room}".strip() for event in lease.events] == [
        "USER_ONLINE u00",
        "MEMBER_JOINED u00 attic",
        "MEMBER_JOINED u00 hall",
        "ROOM_OCCUPIED attic",
        "ROOM_OCCUPIED hall",
        "MEMBER_LEFT u00 attic",
        "ROOM_VACATED attic",
        "MEMBER_LEFT u00 hall",
        "USER_OFFLINE u00",
        "ROOM_VACATED hall",
    ]
    assert {event.username for event in lease.events if event.kind in MEMBERS} == {"U00"}


async def test_only_configured_kinds_are_kept(make_store):
    store = await make_store(AnnouncePolicy(events=EventKind.ROOM_OCCUPIED))
    await SimulatedGateway(store).send(*users(0, 3))
    assert await claim(store) == ["1 ROOM_OCCUPIED hall"]


async def deliver(store: AnyStore, target: str = "t", owner: str = "h", limit: int = 100) -> list[str]:
    """Claim events, and acknowledge them."""
    lease = await store.claim_events(target, owner, 15_000, limit)
    if lease.events:
        await store.ack_events(target, lease.events[-1])
    return [event.subject for event in lease.events]


async def test_one_owner_delivers_at_a_time_and_another_continues(make_store, clock):
    store = await make_store(AnnouncePolicy(events=ALL_EVENTS))
    await SimulatedGateway(store).send(*users(0, 3))
    assert len(await deliver(store, owner="a", limit=2)) == 2
    assert await claim(store, owner="b") == []
    clock.advance(15.1)
    assert [line.split()[0] for line in await claim(store, owner="b")] == ["3", "4"]
    assert await claim(store, owner="a") == []
    await store.release_events("t", "a")  # the lease is another's
    assert await claim(store, owner="a") == []
    await store.release_events("t", "b")
    assert len(await claim(store, owner="a")) == 2


async def test_a_lease_is_extended_without_a_claim_of_events(make_store, clock):
    store = await make_store(AnnouncePolicy(events=ALL_EVENTS))
    await SimulatedGateway(store).send(*users(0, 1))
    assert (await store.claim_events("t", "a", 60_000, 0)).events == []
    clock.advance(59)
    assert await claim(store, owner="b") == []
    assert len(await claim(store, owner="a")) == 2


async def test_each_target_has_its_own_position(make_store):
    store = await make_store(AnnouncePolicy(events=ALL_EVENTS))
    await SimulatedGateway(store).send(*users(0, 3))
    await claim(store, "down")
    assert len(await deliver(store, "up")) == 4
    assert await claim(store, "up") == []
    assert len(await deliver(store, "down")) == 4
    assert await claim(store, "third") == []  # events that all targets have are deleted


async def test_a_delivery_drops_nothing_of_targets_unknown_to_its_replica(make_store):
    """Replicas are configured with different targets while a change of them is rolled out."""
    store = await make_store(AnnouncePolicy(events=EventKind.USER_ONLINE))
    gateway = SimulatedGateway(store)
    assert await claim(store, "new", "n") == []  # the target exists, and events wait for it
    for n in range(3):
        await gateway.send(*users(n, n + 1))
        assert await deliver(store, "old", "o") == [f"u{n:02}"]
        assert await claim(store, "new", "another") == []  # its lease continues, too
    assert await deliver(store, "new", "n") == ["u00", "u01", "u02"]


async def test_a_target_without_a_claim_for_a_day_is_forgotten(make_store, clock):
    store = await make_store(AnnouncePolicy(events=EventKind.USER_ONLINE))
    gateway = SimulatedGateway(store)
    await claim(store, "gone", "g")
    await store.release_events("gone", "g")
    await gateway.send(*users(0, 1))
    clock.advance(23 * 3600)
    await deliver(store, "stays")
    assert await claim(store, "gone", "g") == ["1 USER_ONLINE u00"]
    clock.advance(24 * 3600 + 60)
    await gateway.send(*users(1, 2), fresh=True)
    assert await deliver(store, "stays") == ["u01"]
    assert await claim(store, "gone", "g") == []


async def test_the_oldest_are_dropped_when_too_many_wait_and_counted(make_store):
    store = await make_store(AnnouncePolicy(events=EventKind.USER_ONLINE, events_kept=3))
    gateway = SimulatedGateway(store)
    await gateway.send(*users(0, 1))
    await deliver(store)
    await gateway.send(*users(1, 9))
    lease = await store.claim_events("t", "h", 15_000, 100)
    assert ([event.subject for event in lease.events], lease.dropped) == (["u06", "u07", "u08"], 5)
