"""NATS stops, freezes, dies, loses its store, refuses connections, or is out of reach for one gateway."""

from tests.chaos.load import StartLoad
from tests.support.cluster import Cluster, ServiceProcess, aside
from tests.support.deadline import eventually
from tests.support.faults import (
    connections_limited,
    delayed,
    half_open,
    killed,
    partitioned,
    paused,
    reset_connections,
    server_stopped,
    store_wiped,
)
from tidings_cli.verify.history import AcknowledgedRecord


async def _unready(gateway: ServiceProcess) -> None:
    await eventually(
        lambda: aside(lambda: gateway.get("/readyz")[0] == 503), f"{gateway.name} not ready", 15.0
    )


async def _ready(gateway: ServiceProcess) -> None:
    await eventually(lambda: aside(gateway.ready), f"{gateway.name} ready", 20.0)


async def test_sockets_stay_open_while_nats_is_stopped(cluster: Cluster, load: StartLoad) -> None:
    async with load() as running:
        async with server_stopped(cluster.nats):
            await running.refused()
            await _unready(cluster.gateways[1])
        await _ready(cluster.gateways[1])
        await running.acknowledged(20)
    assert not running.lost
    assert not running.report.gaps


async def test_nothing_acknowledged_is_lost_with_a_killed_nats(cluster: Cluster, load: StartLoad) -> None:
    async with load() as running:
        async with killed(cluster.nats):
            await running.refused()
        await running.acknowledged(20)
    assert not running.lost
    assert not running.report.gaps


async def test_a_frozen_nats_is_answered_for(cluster: Cluster, load: StartLoad) -> None:
    async with load() as running:
        async with paused(cluster.nats):
            await running.refused()
            await _unready(cluster.gateways[0])
        await _ready(cluster.gateways[0])
    assert not running.lost
    assert not running.report.gaps


async def test_all_clients_are_notified_of_a_wiped_store(cluster: Cluster, load: StartLoad) -> None:
    async with load() as running:
        before = running.epochs
        async with store_wiped(cluster.nats):
            await running.refused()
        await running.notified_of_a_new_epoch(before)
    assert not running.lost
    assert running.report.gaps
    assert all(gap.other_epoch for gap in running.report.gaps)


async def test_a_client_that_was_away_during_a_wipe_is_notified(cluster: Cluster, load: StartLoad) -> None:
    async with load() as running:
        before = running.epochs
        await aside(cluster.gateways[0].kill)
        async with store_wiped(cluster.nats):
            await running.refused()
        await running.everybody_in()
        await running.notified_of_a_new_epoch(before)
    assert running.lost
    assert all(gap.other_epoch for gap in running.report.gaps)


async def test_a_connection_limit_is_waited_out(cluster: Cluster, load: StartLoad) -> None:
    async with load() as running:
        async with connections_limited(cluster.nats, 1):
            # The one connection that is left may be a gateway's.
            await running.refused()
            await eventually(
                lambda: aside(lambda: not all(gateway.ready() for gateway in cluster.gateways)),
                "one not ready",
            )
        for gateway in cluster.gateways:
            await _ready(gateway)
        await running.acknowledged(20)
    assert not running.report.gaps


async def test_a_partitioned_gateway_answers_and_its_members_catch_up(
    cluster: Cluster, load: StartLoad
) -> None:
    async with load() as running:
        async with partitioned(cluster.proxy):
            await running.refused()
            await _unready(cluster.gateways[0])
            start = len(running.events)
            await eventually(
                lambda: running.count(lambda event: isinstance(event, AcknowledgedRecord), start) > 10,
                "publishes through the other gateway",
            )
        await _ready(cluster.gateways[0])
    assert not running.lost
    assert not running.report.gaps


async def test_a_half_open_connection_is_noticed_and_replaced(cluster: Cluster, load: StartLoad) -> None:
    async with load() as running:
        async with half_open(cluster.proxy):
            await running.refused()
            await _unready(cluster.gateways[0])
        await _ready(cluster.gateways[0])
    assert not running.lost
    assert not running.report.gaps


async def test_a_reset_connection_costs_nothing(cluster: Cluster, load: StartLoad) -> None:
    async with load() as running:
        for _ in range(3):
            await reset_connections(cluster.proxy)
            await running.acknowledged(10)
    assert not running.lost
    assert not running.report.gaps


async def test_a_slow_link_keeps_the_order(cluster: Cluster, load: StartLoad) -> None:
    async with load() as running, delayed(cluster.proxy, 0.4):
        await running.acknowledged(30)
    assert not running.lost
    assert not running.report.gaps
    assert not running.report.refused
