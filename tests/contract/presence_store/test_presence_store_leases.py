"""Batches, boots and leases of gateways, on every presence store."""

from presence_svc.changes import Outcome
from services.wire.rpc import PresenceBatch
from tests.support.presence import SimulatedGateway, connected, data, joined, plain_page, status, swept, told


async def test_a_repeated_batch_changes_nothing(store, gateway):
    await gateway.send(connected("c1", "ann"))
    batch = PresenceBatch(gateway="g1", boot="b1", batch=2, ops=[connected("c2", "bob")])
    first, second = await store.apply(batch), await store.apply(batch)
    assert (first.outcome, second.outcome) == (Outcome.APPLIED, Outcome.REPEATED)
    assert second.changes.empty
    assert (second.changes.epoch, second.changes.version) == (first.changes.epoch, first.changes.version)
    earlier = PresenceBatch(gateway="g1", boot="b1", batch=1, fresh=True, ops=[connected("c3", "eve")])
    assert (await store.apply(earlier)).outcome is Outcome.REPEATED
    assert list(plain_page(await store.everyone())) == ["ann", "bob"]


async def test_without_a_lease_the_gateway_must_announce_afresh(store, gateway):
    gateway.opened = True
    applied = await gateway.send(connected("c1", "ann"))
    assert applied.outcome is Outcome.UNKNOWN
    assert (await store.everyone()).users == []
    assert (await gateway.send(connected("c1", "ann"), fresh=True)).outcome is Outcome.APPLIED


async def test_a_missing_batch_means_lost_data_and_a_new_epoch(store, gateway):
    first = await gateway.send(connected("c1", "ann"))
    gateway.batch += 1
    missed = await gateway.send(connected("c2", "bob"))
    assert missed.outcome is Outcome.UNKNOWN
    assert missed.changes.epoch != first.changes.epoch
    again = await gateway.send(connected("c1", "ann"), connected("c2", "bob"), fresh=True)
    assert again.outcome is Outcome.APPLIED
    assert again.changes.epoch == missed.changes.epoch
    assert told(again.changes) == ["user_online bob"]


async def test_an_older_boot_is_superseded(store, gateway):
    await gateway.send(connected("c1", "ann"))
    newer = SimulatedGateway(store, boot="b2")
    await newer.send(connected("d1", "bob"))
    assert (await gateway.send()).outcome is Outcome.SUPERSEDED
    assert (await gateway.send(fresh=True)).outcome is Outcome.SUPERSEDED
    assert (await newer.send()).outcome is Outcome.APPLIED


async def test_a_boot_not_heard_of_must_open_its_lease(store, gateway):
    await gateway.send(connected("c1", "ann"))
    stranger = SimulatedGateway(store, boot="b2", opened=True)
    assert (await stranger.send(connected("d1", "bob"))).outcome is Outcome.UNKNOWN
    assert (await gateway.send()).outcome is Outcome.APPLIED


async def test_a_restarted_gateway_loses_what_it_does_not_announce_again(store, gateway, clock):
    await gateway.send(connected("c1", "ann"), connected("c2", "bob"), joined("c2", "lobby"))
    newer = SimulatedGateway(store, boot="b2")
    assert (await newer.send(connected("d1", "ann"))).changes.empty
    assert (await store.stats()).connections == 1
    clock.turn(5.1)
    assert await swept(store) == ["user_offline bob", "user_left bob lobby"]


async def test_announcing_everything_again_is_no_change(store, gateway, clock):
    ops = [connected("c1", "ann"), joined("c1", "lobby"), status("c1", "away"), data("c1", {"a": 1})]
    await gateway.send(*ops)
    before = await store.everyone()
    assert (await gateway.send(*ops, fresh=True)).changes.empty
    clock.turn(5.1)
    assert await swept(store) == []
    assert plain_page(await store.everyone()) == plain_page(before)


async def test_a_lease_not_renewed_loses_its_connections(store, gateway, other, clock):
    await gateway.send(connected("c1", "ann"), connected("c2", "bob"), joined("c2", "lobby"))
    await other.send(connected("d1", "ann"))
    clock.turn(5)
    await other.send()
    clock.turn(4.1)
    assert await swept(store) == []
    assert (await store.stats()).gateways == 1
    clock.turn(4)
    assert await swept(store) == []
    clock.turn(1.1)
    await other.send()
    assert await swept(store) == ["user_offline bob", "user_left bob lobby"]
    assert (await gateway.send()).outcome is Outcome.UNKNOWN


async def test_a_dead_gateways_users_who_reconnect_elsewhere_do_not_flicker(store, gateway, other, clock):
    await gateway.send(connected("c1", "ann"), joined("c1", "lobby"), status("c1", "away"))
    await other.send(connected("d0", "bob"))
    clock.turn(5)
    assert (await other.send(connected("d1", "ann"), joined("d1", "lobby"))).changes.users != []
    await other.send(status("d1", "away"))
    for _ in range(10):
        clock.turn(2)
        await other.send()
        assert await swept(store) == []
    assert list(plain_page(await store.members("lobby"))) == ["ann"]
