"""A roll-out of a new version under load, as by Kubernetes: no message is missed, no user appears to leave."""

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed

from services.wire.codes import CloseCode
from tests.chaos.load import Load, under_load
from tests.support.cluster import CHAOS_SETTINGS, Cluster, ServiceProcess, aside
from tests.support.deadline import eventually
from tests.support.rollout import Service, replace_one_by_one
from tidings_cli.gateways import socket_url

# A false `user_offline` comes when lease and grace are over.
_FALSE_OFFLINE_S = float(CHAOS_SETTINGS["presence_lease_s"]) + float(CHAOS_SETTINGS["presence_grace_s"]) + 1


class Watcher:
    """Follows presence through the Service, and reconnects as any client does."""

    def __init__(self) -> None:
        self.offline: list[str] = []
        self.listed: list[set[str]] = []  # each snapshot

    async def run(self, url: str) -> None:
        async for connection in connect(
            socket_url(url, {"username": "watcher", "channels": "presence"}), proxy=None
        ):
            with contextlib.suppress(ConnectionClosed):
                async for frame in connection:
                    message = json.loads(frame)
                    if message["type"] == "user_offline":
                        self.offline.append(message["userId"])
                    elif message["type"] == "presence_list":
                        self.listed.append({user["userId"] for user in message["users"]})


@asynccontextmanager
async def watched(url: str, running: Load) -> AsyncIterator[Watcher]:
    """Watch from when all users are online; at the end none of the load's users may have been offline in between."""
    watcher = Watcher()
    watching = asyncio.create_task(watcher.run(url))
    try:
        await eventually(lambda: watcher.listed, "a list of who is online")
        assert watcher.listed[0] >= running.users
        yield watcher
        over = asyncio.get_running_loop().time() + _FALSE_OFFLINE_S
        await eventually(
            lambda: asyncio.get_running_loop().time() > over, "lease and grace over", 2 * _FALSE_OFFLINE_S
        )
    finally:
        watching.cancel()
        await asyncio.gather(watching, return_exceptions=True)
    assert not running.users.intersection(watcher.offline)
    for listed in watcher.listed:
        assert listed >= running.users, "a list after a reconnect lacks somebody who never left"


async def test_all_gateways_are_replaced_under_load(cluster: Cluster, tmp_path: Path) -> None:
    old = list(cluster.gateways)
    new: list[ServiceProcess] = []
    async with Service(list(old)) as service:
        try:
            async with under_load([service.url], tmp_path / "history.jsonl") as running:
                async with watched(service.url, running) as watcher:
                    new = await replace_one_by_one(
                        old, lambda n: cluster.another(f"gateway-new-{n + 1}", "gateway"), service
                    )
                    await running.everybody_in()
                    await running.acknowledged(50)
                assert len(watcher.listed) > 1, "the watcher was moved too"
            assert service.endpoints == new
            # Everybody was sent away by the code that says so, or, on a stream, by its orderly end; nobody was cut off, and
            # nobody came to a gateway that takes no more.
            parted = {(lost.who.partition("-")[0], lost.sent_away or lost.why) for lost in running.lost}
            assert parted == {
                ("member", CloseCode.DRAIN.number),
                ("publisher", CloseCode.DRAIN.number),
                ("stream", "ended"),
            }
            assert service.refused == 0
            assert not running.report.gaps
            assert running.report.resumed > 0
        finally:
            for process in new:
                await aside(process.kill)


async def test_presence_is_replaced_under_load(cluster: Cluster, tmp_path: Path) -> None:
    new: list[ServiceProcess] = []
    try:
        async with under_load(cluster.urls, tmp_path / "history.jsonl") as running:
            async with watched(cluster.urls[1], running) as watcher:
                new = await replace_one_by_one(
                    [cluster.presence], lambda _: cluster.another("presence-new", "presence_svc")
                )
                await running.acknowledged(20)
            assert not running.lost
        assert len(watcher.listed) == 1
    finally:
        for process in new:
            await aside(process.kill)
