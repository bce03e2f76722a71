"""Commits until their publication is acknowledged, and scopes of which only counts are announced."""

import msgspec

from presence_svc.changes import BatchResult
from presence_svc.policy import AnnouncePolicy
from services.wire.records import UNSET
from tests.support.presence import (
    SimulatedGateway,
    batch,
    connected,
    data,
    disconnected,
    joined,
    left,
    status,
    users,
)


async def test_an_unacknowledged_commit_is_returned_by_the_next_sweep(make_store, clock):
    store = await make_store()
    first = (await store.apply(batch(connected("c1", "ann"), joined("c1", "lobby")))).changes
    assert first.commit_id == 1
    assert (await store.sweep()).unacked == []
    clock.advance(2.1)
    (unacked,) = (await store.sweep()).unacked
    assert msgspec.to_builtins(unacked.users) == msgspec.to_builtins(first.users)
    assert (unacked.rooms[0].room, unacked.rooms[0].version) == ("lobby", first.rooms[0].version)
    assert (unacked.version, unacked.notices, unacked.commit_id) == (first.version, first.notices, 1)
    assert (await store.sweep()).unacked == []  # the replica that has it gets time to publish it
    clock.advance(2.1)
    assert [step.commit_id for step in (await store.sweep()).unacked] == [1]
    await store.ack([1, 7])
    clock.advance(2.1)
    assert (await store.sweep()).unacked == []


async def test_a_step_without_changes_needs_no_acknowledgement(make_store, clock):
    store = await make_store()
    assert (await store.apply(batch())).changes.commit_id == 0
    clock.advance(2.1)
    assert (await store.sweep()).unacked == []


async def test_late_notices_are_only_those_still_true(make_store, clock):
    store = await make_store()
    ops = [connected("c1", "ann"), joined("c1", "lobby"), connected("c2", "bob"), joined("c2", "lobby")]
    await store.apply(batch(*ops))
    await store.apply(batch(left("c1", "lobby"), number=2))
    clock.advance(2.1)
    joins, leaves = (await store.sweep()).unacked
    assert [notice.user_id for notice in joins.notices] == ["bob"]
    assert [notice.user_id for notice in leaves.notices] == ["ann"]


async def test_late_diffs_of_an_earlier_epoch_are_left_out(make_store, clock):
    store = await make_store()
    await store.apply(batch(connected("c1", "ann"), joined("c1", "lobby")))
    assert (await store.apply(batch(number=5))).result is BatchResult.RESYNC
    clock.advance(2.1)
    (unacked,) = (await store.sweep()).unacked
    assert (unacked.users, unacked.rooms) == ([], [])
    assert len(unacked.notices) == 1


async def test_after_a_lost_answer_a_sweep_returns_the_commit(make_store, clock):
    store = await make_store()
    await store.apply(batch(connected("c1", "ann")))  # the answer is lost on its way
    assert (await store.apply(batch(connected("c1", "ann")))).result is BatchResult.DUPLICATE
    clock.advance(2.1)
    (unacked,) = (await store.sweep()).unacked
    assert unacked.users[0].user.user_id == "ann"


async def test_above_the_limit_a_room_announces_counts_alone(make_store):
    store = await make_store(AnnouncePolicy(room_limit=10))
    gateway = SimulatedGateway(store)
    full = (await gateway.send(*users(0, 10))).changes
    assert (len(full.rooms[0].changes), full.rooms[0].count, len(full.notices)) == (10, UNSET, 10)
    over = (await gateway.send(*users(10, 12))).changes
    assert len(over.users) == 2  # everyone's presence has its own limit
    (hall,) = over.rooms
    assert (hall.changes, hall.count, hall.version) == ([], 12, full.rooms[0].version + 2)
    assert over.notices == []
    muted = (await gateway.send(status("c1", "busy"))).changes
    assert (muted.rooms[0].changes, muted.rooms[0].count) == ([], 12)
    page = await store.page("hall", for_follower=True)
    assert (page.users, page.count, page.counts_only, page.cursor) == ([], 12, True, "")
    assert len((await store.page("hall")).users) == 12


async def test_full_changes_resume_a_tenth_below_the_limit(make_store):
    store = await make_store(AnnouncePolicy(room_limit=10))
    gateway = SimulatedGateway(store)
    await gateway.send(*users(0, 11))
    at_limit = (await gateway.send(left("c0", "hall"))).changes
    assert (at_limit.rooms[0].count, at_limit.notices) == (10, [])
    below = (await gateway.send(left("c1", "hall"))).changes
    assert (below.rooms[0].count, len(below.rooms[0].changes), len(below.notices)) == (UNSET, 1, 1)
    page = await store.page("hall", for_follower=True)
    assert (len(page.users), page.counts_only, page.version) == (9, False, below.rooms[0].version)


async def test_above_its_limit_everyones_presence_announces_counts_alone_and_rooms_continue(make_store):
    store = await make_store(AnnouncePolicy(online_limit=10))
    gateway = SimulatedGateway(store)
    over = (await gateway.send(*users(0, 11), data("c3", {"a": 1}))).changes
    assert (over.users, over.count, over.version) == ([], 11, 11)
    assert len(over.rooms[0].changes) == 11
    assert over.rooms[0].changes[3].user.user_id == "u03"
    page = await store.page(for_follower=True)
    assert (page.users, page.count, page.counts_only) == ([], 11, True)
    changed = (await gateway.send(data("c3", {"a": 2}))).changes
    assert (changed.users, changed.count) == ([], 11)
    assert bytes(changed.rooms[0].changes[0].custom_data) == b'{"a":2}'
    back = (await gateway.send(disconnected("c0", clean=True), disconnected("c1", clean=True))).changes
    assert (len(back.users), back.count) == (2, UNSET)


async def test_a_large_room_that_empties_is_forgotten(make_store):
    store = await make_store(AnnouncePolicy(room_limit=2))
    gateway = SimulatedGateway(store)
    await gateway.send(*users(0, 3))
    await gateway.send(*(disconnected(f"c{n}", clean=True) for n in range(3)))
    assert not (await store.page("hall")).counts_only
    again = (await gateway.send(*users(5, 6))).changes
    assert (again.rooms[0].count, len(again.notices)) == (UNSET, 1)
