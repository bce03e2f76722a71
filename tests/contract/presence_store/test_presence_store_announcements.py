"""Announcements of a gateway: ages, without a grace, in pieces, and after an outage of the sweepers."""

import pytest

from presence_svc.changes import BatchResult
from presence_svc.policy import LeaseTimings
from services.wire.rpc import Connected, DataSet
from tests.support.presence import (
    SimulatedGateway,
    batch,
    connected,
    data,
    disconnected,
    joined,
    plain_page,
    status,
    sweep_all,
    users,
)

PAUSED = LeaseTimings(lease_ms=9000, grace_ms=5000, idle_room_ms=60_000, recovery_pause_ms=3000)


async def test_an_announcement_has_the_idle_time(make_store, clock):
    store = await make_store()
    gateway = SimulatedGateway(store)
    idle = Connected(connection_id="c1", user_id="ann", username="Ann", idle_ms=60_000)
    await gateway.send(idle, joined("c1", "lobby"), status("c1", "busy"), data("c1", 1))
    assert (await store.page()).users[0].last_seen == clock() - 60_000
    await gateway.send(active=["ann"])
    clock.advance(1)
    await gateway.send(idle, fresh=True)
    assert (await store.page()).users[0].last_seen == clock() - 1000


async def test_custom_data_announced_again_does_not_replace_what_was_set_later(make_store, clock):
    store = await make_store()
    gateway, other = SimulatedGateway(store), SimulatedGateway(store, "g2")
    newer = DataSet(connection_id="d1", custom_data="newer", age_ms=1000)
    older = DataSet(connection_id="c1", custom_data="older", age_ms=5000)
    await other.send(connected("d1", "ann"), newer)
    await gateway.send(connected("c1", "ann"), older)
    assert plain_page(await store.page())["ann"]["customData"] == "newer"
    await gateway.send(data("c1", "newest"))
    assert plain_page(await store.page())["ann"]["customData"] == "newest"


async def test_custom_data_is_taken_after_the_clock_stepped_back(make_store, clock):
    store = await make_store()
    gateway = SimulatedGateway(store)
    await gateway.send(connected("c1", "ann"), data("c1", "before"))
    clock.advance(-30)
    (change,) = (await gateway.send(data("c1", "after"))).changes.users
    assert bytes(change.custom_data) == b'"after"'
    assert plain_page(await store.page())["ann"]["customData"] == "after"


NO_GRACE = LeaseTimings(lease_ms=9000, grace_ms=0, idle_room_ms=60_000)


@pytest.mark.parametrize("batches", [1, 5])
async def test_without_a_grace_a_full_announcement_changes_nothing(make_store, clock, batches):
    store = await make_store(timings=NO_GRACE)
    gateway = SimulatedGateway(store)
    await gateway.send(*users(0, 20), status("c3", "busy"), data("c4", 1))
    ops = [*users(0, 20), status("c3", "busy"), DataSet(connection_id="c4", custom_data=1, age_ms=2000)]
    size = -(-len(ops) // batches)
    for first in range(0, len(ops), size):
        announced = await gateway.send(*ops[first : first + size], fresh=first == 0)
        assert (announced.changes.users, announced.changes.rooms, announced.changes.notices) == ([], [], [])
        clock.advance(1)
        for swept in await sweep_all(store):
            assert swept.changes.empty
    clock.advance(8)
    await gateway.send()
    for swept in await sweep_all(store):
        assert swept.changes.empty
    assert ((await store.stats()).users, (await store.stats()).connections) == (20, 20)


async def test_without_a_grace_users_not_announced_again_expire_with_the_lease(make_store, clock):
    store = await make_store(timings=NO_GRACE)
    gateway = SimulatedGateway(store)
    await gateway.send(*users(0, 2))
    await gateway.send(*users(0, 1), fresh=True)
    clock.advance(8.9)
    await gateway.send()
    assert all(swept.changes.empty for swept in await sweep_all(store))
    clock.advance(0.2)
    (gone,) = [change for swept in await sweep_all(store) for change in swept.changes.users]
    assert gone.user_id == "u01"
    assert await sweep_all(store)
    assert (await store.stats()).connections == 1


async def test_a_batch_of_much_work_is_done_in_pieces(make_store, clock):
    store = await make_store(work=7)
    gateway = SimulatedGateway(store)
    gateway.batch, gateway.opened = 1, True
    one = batch(*users(0, 30), fresh=True)
    results, seen = [], set()
    while not results or results[-1] is BatchResult.PARTIAL:
        applied = await store.apply(one)
        results.append(applied.result)
        seen |= {change.user.user_id for change in applied.changes.users}
    assert results[-1] is BatchResult.APPLIED
    assert len(seen) == 30
    assert len((await store.page("hall")).users) == 30
    assert (await store.apply(one)).result is BatchResult.DUPLICATE
    assert (await gateway.send(active=[f"u{n:02}" for n in range(30)])).result is BatchResult.APPLIED
    await gateway.send(*(disconnected(f"c{n}", clean=True) for n in range(30)))
    assert (await store.stats()).connections == 0
    assert (await store.page()).users == []


async def test_a_partial_batch_can_be_replaced_by_a_full_announcement(make_store):
    store = await make_store(work=7)
    await store.apply(
        batch(*users(0, 30))
    )  # one piece; then the gateway starts over with a full announcement
    gateway = SimulatedGateway(store, batch=1, opened=True)
    assert (await gateway.send(*users(0, 3), fresh=True)).result is BatchResult.APPLIED
    assert (await store.stats()).connections == 3


async def test_after_an_outage_nothing_expires_until_gateways_had_time_to_report(make_store, clock):
    store = await make_store(timings=PAUSED)
    gateway, other = SimulatedGateway(store), SimulatedGateway(store, "g2")
    await gateway.send(connected("c1", "ann"), connected("c2", "bob"), connected("c3", "eve"))
    await gateway.send(disconnected("c2"))
    await sweep_all(store)
    clock.advance(30)  # presence_svc was away
    assert (await sweep_all(store))[0].changes.empty
    clock.advance(1)
    assert (await gateway.send()).result is BatchResult.APPLIED  # its lease is there, longer than it was
    assert (await other.send(connected("d2", "bob"))).changes.empty  # bob reconnected meanwhile: no change
    await gateway.send(disconnected("c3"))
    for _ in range(9):
        clock.advance(1)
        await gateway.send()
        await other.send()
        swept = [change for step in await sweep_all(store) for change in step.changes.users]
        assert [change.user_id for change in swept] in ([], ["eve"])
    assert list(plain_page(await store.page())) == ["ann", "bob"]


async def test_gateways_that_do_not_report_after_an_outage_expire(make_store, clock):
    store = await make_store(timings=PAUSED)
    await SimulatedGateway(store).send(connected("c1", "ann"))
    await sweep_all(store)
    clock.advance(30)
    await sweep_all(store)
    clock.advance(2.9)
    await sweep_all(store)
    assert (await store.stats()).connections == 1
    clock.advance(0.2)
    await sweep_all(store)
    assert (await store.stats()).connections == 0
    for _ in range(6):
        clock.advance(1)
        await sweep_all(store)
    assert (await store.page()).users == []
