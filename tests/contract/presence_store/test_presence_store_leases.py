"""Batches, boots and leases of gateways, on every presence store."""

from presence_svc.changes import BatchResult
from services.wire.rpc import PresenceBatch
from tests.support.presence import (
    SimulatedGateway,
    connected,
    data,
    joined,
    lines,
    plain_page,
    status,
    sweep_lines,
)


async def test_a_repeated_batch_changes_nothing(store, gateway):
    await gateway.send(connected("c1", "ann"))
    batch = PresenceBatch(gateway="g1", boot="b1", batch=2, ops=[connected("c2", "bob")])
    first, second = await store.apply(batch), await store.apply(batch)
    assert (first.result, second.result) == (BatchResult.APPLIED, BatchResult.DUPLICATE)
    assert second.changes.empty
    assert (second.changes.epoch, second.changes.version) == (first.changes.epoch, first.changes.version)
    earlier = PresenceBatch(gateway="g1", boot="b1", batch=1, fresh=True, ops=[connected("c3", "eve")])
    assert (await store.apply(earlier)).result is BatchResult.DUPLICATE
    assert list(plain_page(await store.page())) == ["ann", "bob"]


async def test_without_a_lease_the_gateway_must_announce_everything_again(store, gateway):
    gateway.opened = True
    applied = await gateway.send(connected("c1", "ann"))
    assert applied.result is BatchResult.RESYNC
    assert (await store.page()).users == []
    assert (await gateway.send(connected("c1", "ann"), fresh=True)).result is BatchResult.APPLIED


async def test_a_missing_batch_means_lost_data_and_a_new_epoch(store, gateway):
    first = await gateway.send(connected("c1", "ann"))
    gateway.batch += 1
    missed = await gateway.send(connected("c2", "bob"))
    assert missed.result is BatchResult.RESYNC
    assert missed.changes.epoch != first.changes.epoch
    again = await gateway.send(connected("c1", "ann"), connected("c2", "bob"), fresh=True)
    assert again.result is BatchResult.APPLIED
    assert again.changes.epoch == missed.changes.epoch
    assert lines(again.changes) == ["user_online bob"]


async def test_an_older_boot_is_superseded(store, gateway):
    await gateway.send(connected("c1", "ann"))
    newer = SimulatedGateway(store, boot="b2")
    await newer.send(connected("d1", "bob"))
    assert (await gateway.send()).result is BatchResult.FENCED
    assert (await gateway.send(fresh=True)).result is BatchResult.FENCED
    assert (await newer.send()).result is BatchResult.APPLIED


async def test_an_unknown_boot_must_open_its_lease(store, gateway):
    await gateway.send(connected("c1", "ann"))
    restarted = SimulatedGateway(store, boot="b2", opened=True)
    assert (await restarted.send(connected("d1", "bob"))).result is BatchResult.RESYNC
    assert (await gateway.send()).result is BatchResult.APPLIED


async def test_a_restarted_gateway_loses_what_it_does_not_announce_again(store, gateway, clock):
    await gateway.send(connected("c1", "ann"), connected("c2", "bob"), joined("c2", "lobby"))
    newer = SimulatedGateway(store, boot="b2")
    assert (await newer.send(connected("d1", "ann"))).changes.empty
    assert (await store.stats()).connections == 1
    clock.advance(5.1)
    assert await sweep_lines(store) == ["user_offline bob", "user_left bob lobby"]


async def test_announcing_everything_again_is_no_change(store, gateway, clock):
    ops = [connected("c1", "ann"), joined("c1", "lobby"), status("c1", "away"), data("c1", {"a": 1})]
    await gateway.send(*ops)
    before = await store.page()
    assert (await gateway.send(*ops, fresh=True)).changes.empty
    clock.advance(5.1)
    assert await sweep_lines(store) == []
    assert plain_page(await store.page()) == plain_page(before)


async def test_a_lease_not_renewed_loses_its_connections(store, gateway, other, clock):
    await gateway.send(connected("c1", "ann"), connected("c2", "bob"), joined("c2", "lobby"))
    await other.send(connected("d1", "ann"))
    clock.advance(5)
    await other.send()
    clock.advance(4.1)
    assert await sweep_lines(store) == []
    assert (await store.stats()).gateways == 1
    clock.advance(4)
    assert await sweep_lines(store) == []
    clock.advance(1.1)
    await other.send()
    assert await sweep_lines(store) == ["user_offline bob", "user_left bob lobby"]
    assert (await gateway.send()).result is BatchResult.RESYNC


async def test_users_of_a_dead_gateway_who_reconnect_elsewhere_stay_online(store, gateway, other, clock):
    await gateway.send(connected("c1", "ann"), joined("c1", "lobby"), status("c1", "away"))
    await other.send(connected("d0", "bob"))
    clock.advance(5)
    assert (await other.send(connected("d1", "ann"), joined("d1", "lobby"))).changes.users != []
    await other.send(status("d1", "away"))
    for _ in range(10):
        clock.advance(2)
        await other.send()
        assert await sweep_lines(store) == []
    assert list(plain_page(await store.page("lobby"))) == ["ann"]
