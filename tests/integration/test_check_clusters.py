"""`tidings check` on several servers: a missing copy, a missing majority, different versions, Redis Cluster."""

from collections.abc import Callable
from pathlib import Path

import pytest

from services.bus.client import Bus
from services.bus.rpc import Service
from services.bus.specs import inbox_spec
from services.bus.streams import DurableLog
from services.settings import Settings
from services.wire.records import GatewayStats
from services.wire.rpc import GATEWAY_STATS, Empty
from tests.support.deadline import eventually
from tests.support.nats_cluster import NatsCluster
from tests.support.redis_cluster import RedisCluster
from tests.support.redis_sentinels import NAME, SentinelSet
from tests.support.requires import need
from tidings_cli.backup import back_up, restore
from tidings_cli.check import run_checks
from tidings_cli.checks.outcome import Outcome, Verdict

pytestmark = [pytest.mark.timeout(120), pytest.mark.xdist_group("check clusters")]


async def _named(settings: Settings, start: str) -> list[Outcome]:
    return [outcome for outcome in await run_checks(settings) if outcome.name.startswith(start)]


async def test_copies_of_a_stream(tmp_path: Path) -> None:
    need("nats-server")
    with NatsCluster(tmp_path, password="of-the-cluster") as cluster:
        settings = Settings(nats_url=cluster.url, replicas=3, redis_url="redis://127.0.0.1:1", port=0)
        subjects = settings.subjects
        bus = await Bus.connect(settings, "test")
        log = DurableLog(bus, inbox_spec(settings))
        await log.open()

        async def complete() -> bool:
            said = await _named(settings, "stream")
            return all(outcome.verdict is Verdict.OK for outcome in said)

        await eventually(complete, "all copies are there")
        (replicas,) = await _named(settings.model_copy(update={"replicas": 1}), "replicas")
        assert (replicas.verdict, replicas.advice) == (Verdict.WARN, "set TIDINGS_REPLICAS=3")

        # A backup of the cluster, where some of the streams are not there yet, comes back with all its copies.
        async def stored() -> bool:
            # A cluster that is still choosing leaders may refuse it.
            log.publish(subjects.user_in("ada"), b"kept", message_id="once", on_done=lambda _: None)
            return (await log.state()).last_seq == 1

        await eventually(stored, "it is stored")
        before = log.epoch
        (copied,) = await back_up(settings, tmp_path / "backup")
        assert ": 1 messages," in copied
        (back,) = await restore(settings, tmp_path / "backup", replace=True)
        assert ": 1 messages," in back
        await log.open()
        assert log.epoch != before
        await eventually(complete, "all copies are there again")

        leader = cluster.leader_of(subjects.inbox_stream)
        others = [peer for peer in cluster.peers if peer is not leader]
        others[0].kill()

        async def late() -> list[Outcome]:
            return [
                outcome for outcome in await _named(settings, "stream ") if outcome.verdict is Verdict.WARN
            ]

        (said,) = await eventually(late, "a copy is away")
        assert others[0].peer_name in said.detail
        assert "one more loss" in said.advice
        (away,) = [outcome for outcome in await _named(settings, "NATS") if outcome.verdict is Verdict.WARN]
        assert f"127.0.0.1:{others[0].port}" in away.detail

        others[1].kill()

        async def stuck() -> list[Outcome]:
            return [
                outcome
                for outcome in await run_checks(settings)
                if not outcome.ok and "tream" in outcome.name
            ]

        faults = await eventually(stuck, "no majority")
        assert {"majority" in outcome.advice for outcome in faults} == {True}, faults
        log.close()
        await bus.close()


async def test_a_cluster_that_advertises_no_server(tmp_path: Path) -> None:
    """As both production deployments have it."""
    need("nats-server")
    with NatsCluster(tmp_path, password="of-the-cluster", no_advertise=True) as cluster:
        whole = Settings(nats_url=cluster.url, replicas=3, redis_url="redis://127.0.0.1:1", port=0)
        assert await _named(whole, "replicas") == []
        one = whole.model_copy(update={"nats_url": cluster.url_of(cluster.peers[0])})
        (unknown,) = await _named(one, "replicas")
        assert unknown.verdict is Verdict.WARN  # there may be more, and there are
        assert unknown.advice == "name every server of the cluster in TIDINGS_NATS_URL"
        bus = await Bus.connect(whole, "test")
        log = DurableLog(bus, inbox_spec(whole))
        await log.open()
        assert await _named(one, "replicas") == []  # a stream has its copies
        outcomes = await run_checks(whole.model_copy(update={"replicas": 1}))
        (less,) = [outcome for outcome in outcomes if outcome.name == "replicas"]
        assert (less.verdict, less.advice) == (Verdict.WARN, "set TIDINGS_REPLICAS=3")
        (differs,) = [one for one in outcomes if one.name == f"stream {whole.subjects.inbox_stream}"]
        assert (differs.verdict, differs.detail) == (Verdict.WARN, "has num_replicas 3 (settings: 1)")
        assert [one.name for one in await run_checks(whole) if not one.ok] == ["Redis"]
        log.close()
        await bus.close()


async def test_versions_that_differ(
    make_settings: Callable[..., Settings], monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = make_settings()
    bus = await Bus.connect(settings, "test")
    services = [Service(bus, settings, "gateway") for _ in range(2)]

    async def stats(_: Empty) -> GatewayStats:
        raise NotImplementedError

    for service, version in zip(services, ("9.9.1", "9.9.2"), strict=True):
        monkeypatch.setattr("services.bus.rpc.__version__", version)
        service.endpoint(GATEWAY_STATS, stats, queue=False)
        await service.start()
    (said,) = await _named(settings, "processes")
    # Other tests' processes may answer on the same server.
    assert said.verdict is Verdict.WARN
    assert "9.9.1, 9.9.2" in said.detail
    for service in services:
        await service.stop()
    await bus.close()


async def test_redis_cluster(make_settings: Callable[..., Settings], tmp_path: Path) -> None:
    need("redis-server")
    with RedisCluster(tmp_path, password="of-the-cluster") as cluster:
        said = await _named(make_settings(redis_url=cluster.url), "Redis")
        assert {outcome.name for outcome in said} >= {"Redis", "Redis permissions", "Redis memory"}
        assert [outcome for outcome in said if not outcome.ok] == []
        assert await _named(make_settings(redis_url=cluster.url), "clock of Redis")


async def test_redis_under_sentinels(make_settings: Callable[..., Settings], tmp_path: Path) -> None:
    need("redis-server")
    with SentinelSet(tmp_path) as sentinels:
        settings = make_settings(redis_url=sentinels.url)
        said = {outcome.name: outcome for outcome in await _named(settings, "Redis")}
        assert [outcome for outcome in said.values() if not outcome.ok] == []
        assert "of Sentinels" in said["Redis"].detail
        assert said["Redis replication"].detail == "1 replica(s)"
        unknown = make_settings(redis_url=sentinels.url.replace(f"/{NAME}/", "/another/"))
        (outcome,) = await _named(unknown, "Redis")
        assert outcome.verdict is Verdict.FAIL
