"""Large work in several steps, on every presence store."""

import asyncio

from presence_svc.changes import BatchResult
from tests.support.presence import SimulatedGateway, connected, sweep_all, sweep_lines


async def test_many_connections_of_a_dead_gateway_go_in_pieces(store, gateway, clock):
    for start in range(0, 1200, 400):
        await gateway.send(*(connected(f"c{i}", f"u{i}") for i in range(start, start + 400)))
    clock.advance(9.1)
    await sweep_all(store)
    assert await store.stats() == type(await store.stats())(users=1200, connections=0, rooms=0, gateways=0)
    clock.advance(5)
    gone = await sweep_lines(store)
    assert len(gone) == len(set(gone)) == 1200
    assert (await store.stats()).users == 0


async def test_opening_over_many_connections_is_one_step_for_the_caller(store, gateway, clock):
    for start in range(0, 1200, 400):
        await gateway.send(*(connected(f"c{i}", f"u{i}") for i in range(start, start + 400)))
    newer = SimulatedGateway(store, boot="b2")
    applied = await newer.send(connected("c1", "u1"))
    assert applied.result is BatchResult.APPLIED
    assert applied.changes.empty
    assert (await store.stats()).connections == 1


async def test_concurrent_sweeps_of_several_replicas_expire_each_user_once(store, gateway, other, clock):
    for start in range(0, 1200, 400):
        await gateway.send(*(connected(f"c{i}", f"u{i:04}") for i in range(start, start + 400)))
    await other.send(*(connected(f"d{i}", f"u{i:04}") for i in range(0, 1200, 3)))
    clock.advance(8)
    await other.send()
    clock.advance(1.1)
    # Each sweeper does a part, whichever is left; the first one never says that it published its own.
    await store.sweep()
    await asyncio.gather(*(sweep_all(store) for _ in range(8)))
    clock.advance(5)
    steps = await asyncio.gather(*(sweep_lines(store) for _ in range(8)))
    gone = [line for step in steps for line in step]
    assert sorted(gone) == [f"user_offline u{i:04}" for i in range(1200) if i % 3]
    assert (await store.stats()).users == 400
