"""Redis and the services die or freeze: rooms continue, their own data is `unavailable`, and heals."""

from typing import Any

import msgspec

from tests.chaos.load import Load, StartLoad
from tests.support.cluster import Breakable, Cluster, aside
from tests.support.deadline import eventually
from tests.support.faults import killed, paused


async def _present(cluster: Cluster) -> set[str]:
    """Return the users in `/api/presence`; none if it does not answer with a list."""
    status, body = await aside(lambda: cluster.gateways[1].get("/api/presence", 10.0))
    users: list[dict[str, Any]] = msgspec.json.decode(body) if status == 200 else []
    return {user["userId"] for user in users}


async def _answers_unavailable(cluster: Cluster) -> bool:
    status, body = await aside(lambda: cluster.gateways[1].get("/api/presence", 10.0))
    return status == 503 and msgspec.json.decode(body)["code"] == "unavailable"


async def _everybody_online(cluster: Cluster, running: Load) -> None:
    async def online() -> bool:
        return running.users <= await _present(cluster)

    await eventually(online, "everybody online", 30.0)


async def _rooms_go_on(cluster: Cluster, running: Load) -> None:
    await running.acknowledged(30)
    assert not running.lost
    refused = [event for event in running.events if event.__class__.__name__ == "RefusedRecord"]
    assert not refused


async def _without_presence(cluster: Cluster, load: StartLoad, broken: Any) -> None:
    async with load() as running:
        await _everybody_online(cluster, running)
        async with broken:
            await eventually(lambda: _answers_unavailable(cluster), "presence unavailable", 20.0)
            await _rooms_go_on(cluster, running)
        await _everybody_online(cluster, running)
    assert not running.report.gaps
    assert running.report.longest_answer_s < 5


async def test_rooms_go_on_while_redis_is_dead(cluster: Cluster, load: StartLoad) -> None:
    await _without_presence(cluster, load, killed(cluster.redis))


async def test_rooms_go_on_while_redis_is_frozen(cluster: Cluster, load: StartLoad) -> None:
    await _without_presence(cluster, load, paused(cluster.redis))


async def test_rooms_go_on_while_presence_is_dead(cluster: Cluster, load: StartLoad) -> None:
    await _without_presence(cluster, load, killed(cluster.presence))


async def test_rooms_go_on_while_metrics_are_dead(cluster: Cluster, load: StartLoad) -> None:
    dead: Breakable = cluster.metrics
    async with load() as running:
        async with killed(dead):
            await _rooms_go_on(cluster, running)
            status, body = await aside(lambda: cluster.gateways[1].get("/api/metrics/history", 10.0))
            assert (status, msgspec.json.decode(body)["code"]) == (503, "unavailable")
        await eventually(
            lambda: aside(lambda: cluster.gateways[1].get("/api/metrics/history")[0] == 200),
            "metrics again",
            20.0,
        )
    assert not running.report.gaps
