"""Presence on a Redis Cluster of three masters, and behind Sentinels: the same scripts on any node."""

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from presence_svc.changes import BatchResult, PresenceStoreUnavailable
from presence_svc.policy import AnnouncePolicy
from presence_svc.store import PresenceStore
from services.redis_client import AnyRedis, check_server, close_redis, open_redis
from services.settings import Settings
from tests.support.deadline import eventually
from tests.support.presence import TIMINGS, SimulatedGateway, connected, disconnected, joined, plain_page
from tests.support.redis_cluster import RedisCluster
from tests.support.redis_sentinels import SentinelSet
from tests.support.requires import need

log = logging.getLogger(__name__)


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisCluster]:
    need("redis-server")
    with RedisCluster(tmp_path_factory.mktemp("cluster"), password="secret") as running:
        yield running


@pytest.fixture
async def redis(cluster: RedisCluster) -> AsyncIterator[AnyRedis]:
    client = open_redis(Settings(redis_url=cluster.url), "presence")
    yield client
    await client.aclose()


@pytest.fixture
async def store(redis: AnyRedis, prefix: str) -> AsyncIterator[PresenceStore]:
    made = PresenceStore(redis, prefix, TIMINGS, AnnouncePolicy(events=~AnnouncePolicy().events))
    yield made
    await made.close()


async def test_every_operation_works_on_the_node_that_has_the_slot(redis, store, cluster, prefix):
    await check_server(redis)
    gateways = [SimulatedGateway(store, f"g{n}") for n in range(20)]
    for i in range(3):
        applied = await asyncio.gather(
            *(
                g.send(connected(f"{g.name}-{i}", f"u{g.name}"), joined(f"{g.name}-{i}", "lobby"))
                for g in gateways
            )
        )
        assert {one.result for one in applied} == {BatchResult.APPLIED}
    await gateways[0].send(*(disconnected(f"g0-{i}", clean=True) for i in range(3)))
    await store.sweep()
    assert len(plain_page(await store.page("lobby"))) == 19
    assert list(plain_page(await store.lookup(["ug1", "ug0"]))) == ["ug1"]
    assert (await store.stats()).users == 19
    assert [room.users for room in await store.rooms(5)] == [19]
    lease = await store.claim_events("t", "h", 1000, 100)
    assert len(lease.events) == 43  # 20 users and members who came, one who left, and the room
    await store.ack_events("t", lease.events[-1])
    await store.ack([1, 2, 3])
    owner = cluster.owner_of(f"{{{prefix}:presence}}")
    for index in range(3):
        with cluster.client(index) as node:
            assert bool(list(node.scan_iter(f"*{prefix}*"))) == (index == owner)


async def test_it_follows_a_slot_that_moves(store, cluster, prefix):
    key = f"{{{prefix}:presence}}"
    gateway = SimulatedGateway(store)
    await gateway.send(connected("c1", "ann"))
    to = (cluster.owner_of(key) + 1) % 3
    await asyncio.to_thread(cluster.move_slot, key, to)
    for n in range(5):
        assert (await gateway.send(connected(f"d{n}", "bob"))).result is BatchResult.APPLIED
    assert list(plain_page(await store.page())) == ["ann", "bob"]
    with cluster.client(to) as node:
        assert list(node.scan_iter(f"*{prefix}*"))


async def test_a_missing_node_is_reported_and_its_return_noticed(store, cluster, prefix):
    gateway = SimulatedGateway(store)
    await gateway.send(connected("c1", "ann"))
    node = cluster.nodes[cluster.owner_of(f"{{{prefix}:presence}}")]
    node.pause()
    try:
        with pytest.raises(PresenceStoreUnavailable):
            await gateway.send()
    finally:
        node.resume()

    async def answers() -> bool:
        try:
            return list(plain_page(await store.page())) == ["ann"]
        except PresenceStoreUnavailable:
            return False

    await eventually(answers, "the node is asked again")


async def test_a_replica_replaces_a_master_that_dies(tmp_path, prefix):
    need("redis-server")
    with RedisCluster(tmp_path, password="secret") as cluster:
        dying = cluster.owner_of(f"{{{prefix}:presence}}")
        await asyncio.to_thread(cluster.add_replica, dying)
        redis = open_redis(Settings(redis_url=cluster.url), "presence")
        store = PresenceStore(redis, prefix, TIMINGS)
        gateway = SimulatedGateway(store)
        await gateway.send(connected("c1", "ann"), joined("c1", "lobby"))
        with cluster.client(dying) as master:
            await asyncio.to_thread(master.wait, 1, 5000)
        await asyncio.to_thread(cluster.nodes[dying].kill)
        died = time.monotonic()

        async def served() -> bool:
            try:
                return (await gateway.send()).result in (BatchResult.APPLIED, BatchResult.RESYNC)
            except PresenceStoreUnavailable:
                gateway.batch -= 1
                return False

        await eventually(served, "the replica answers", timeout_s=30)
        log.info("the replica answered %.1f s after its master died", time.monotonic() - died)
        assert list(plain_page(await store.page("lobby"))) == ["ann"]
        await store.close()
        await close_redis(redis)


# --- Sentinel -------------------------------------------------------------------------------------------------


@pytest.fixture
def sentinels(tmp_path: Path) -> Iterator[SentinelSet]:
    need("redis-server")
    with SentinelSet(tmp_path, sentinels=1, down_after_ms=500) as running:
        yield running


async def test_after_a_failover_presence_is_served_by_the_new_master(sentinels, prefix):
    redis = open_redis(Settings(redis_url=sentinels.url), "presence")
    store = PresenceStore(redis, prefix, TIMINGS)
    gateway = SimulatedGateway(store)
    await check_server(redis)
    await gateway.send(connected("c1", "ann"), joined("c1", "lobby"))

    async def replicated() -> bool:
        return bool(await redis.wait(1, 100))

    await eventually(replicated, "the replica has it")
    await asyncio.to_thread(sentinels.master.kill)

    async def served() -> bool:
        try:
            return (await gateway.send()).result in (BatchResult.APPLIED, BatchResult.RESYNC)
        except PresenceStoreUnavailable:
            gateway.batch -= 1
            return False

    await eventually(served, "the new master answers", timeout_s=30)
    assert list(plain_page(await store.page("lobby"))) == ["ann"]
    await store.close()
    await close_redis(redis)
