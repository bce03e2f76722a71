"""Redis with a replica, and three Sentinels: a deployment while the master dies and returns as a replica."""

import asyncio
import logging
import secrets
import time
from collections.abc import Iterator

import pytest

from tests.chaos.presence import GRACE_S, are_online, get, users_on, watching
from tests.support.clients import client
from tests.support.cluster import ServiceProcess, aside
from tests.support.deadline import eventually
from tests.support.deployment import Deployment
from tests.support.redis_sentinels import SentinelSet
from tests.support.requires import need
from tidings_cli.local.servers import NatsServer

log = logging.getLogger(__name__)

ROOM = "failing-over"


@pytest.fixture
def sentinels(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SentinelSet]:
    need("redis-server")
    with SentinelSet(tmp_path_factory.mktemp("sentinels")) as running:
        yield running


@pytest.fixture
def deployment(
    sentinels: SentinelSet, nats_server: NatsServer, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Deployment]:
    with Deployment(
        tmp_path_factory.mktemp("on-sentinels"),
        nats_url=nats_server.url,
        redis_url=sentinels.url,
        prefix=f"s{secrets.token_hex(4)}",
    ) as running:
        yield running


async def newest_second(gateway: ServiceProcess) -> int:
    status, rows = await get(gateway, "/api/metrics/history?limit=1")
    return int(rows[0]["timestamp"]) if status == 200 and rows else 0


@pytest.mark.parametrize("fault", ["killed", "frozen"])
async def test_presence_and_metrics_go_on_with_the_new_master(
    sentinels: SentinelSet, deployment: Deployment, fault: str
) -> None:
    one, two = deployment.gateways[:2]
    async with (
        users_on(one, ROOM, "Ann") as (ann,),
        users_on(two, ROOM, "Bob") as (bob,),
        watching(one) as watcher,
    ):
        stable = {ann.user, bob.user}
        await ann.ask("status_change", status="busy")
        await bob.ask("presence_update", customData={"kept": True})
        await eventually(lambda: stable <= set(watcher.online), "both are seen")
        before = await eventually(lambda: newest_second(one), "a second is stored")
        old = await aside(lambda: sentinels.master)
        await aside(old.kill if fault == "killed" else old.pause)
        died = time.monotonic()
        # Rooms do not mind.
        assert (await ann.ask("room_message", room=ROOM, content="on we go"))["type"] == "ack"
        await bob.expect("room_message", room=ROOM)

        await eventually(lambda: are_online(two, stable), "presence answers")
        log.info("%s: presence answered again after %.1f s", fault, time.monotonic() - died)

        async def second_later() -> bool:
            return await newest_second(two) > time.time() * 1000 - 3000

        await eventually(second_later, "metrics are stored again")
        log.info("%s: metrics were stored again after %.1f s", fault, time.monotonic() - died)
        _, rows = await get(two, "/api/metrics/history?limit=100")
        assert before in {row["timestamp"] for row in rows}
        assert (await aside(lambda: sentinels.master)) is not old

        async with client(two, "username=New") as newcomer:
            await eventually(lambda: newcomer.user in watcher.online, "who comes is seen")
        old.resume()
        await aside(sentinels.start)  # the old one returns, and becomes a replica
        assert (await aside(lambda: sentinels.master)) is not old
        await asyncio.sleep(GRACE_S)
        assert not stable & set(watcher.went), "somebody flickered"
        _, users = await get(two, f"/api/presence?user={ann.user}&user={bob.user}")
        shown = {user["userId"]: user for user in users}
        assert shown[ann.user]["status"] == "busy"
        assert shown[bob.user]["customData"] == {"kept": True}
