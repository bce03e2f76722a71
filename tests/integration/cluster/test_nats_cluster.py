"""Three NATS servers, streams with three replicas: failures that a deployment survives."""

import asyncio
import itertools
import logging
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import msgspec
import pytest

from services.bus.client import Bus
from services.settings import Settings
from services.wire.events import RoomPublished
from tests.chaos.load import Load, under_load
from tests.support.clients import Client, client
from tests.support.cluster import aside
from tests.support.deadline import PATIENCE_S, eventually
from tests.support.deployment import Deployment
from tests.support.nats_cluster import NatsCluster, Peer
from tidings_cli.local.servers import RedisServer
from tidings_cli.verify.history import AcknowledgedRecord

pytestmark = pytest.mark.xdist_group("nats cluster")  # one deployment for all of them
log = logging.getLogger(__name__)

PREFIX = "three"
STREAM = f"{PREFIX}-rooms-default"
ROOMS = 60


@pytest.fixture(scope="module")
def deployment(
    nats_cluster: NatsCluster, redis_server: RedisServer, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Deployment]:
    with Deployment(
        tmp_path_factory.mktemp("on-nats-cluster"),
        nats_url=nats_cluster.url,
        redis_url=redis_server.url,
        prefix=PREFIX,
        replicas=3,
    ) as running:
        yield running


def urls(deployment: Deployment) -> list[str]:
    return [gateway.url for gateway in deployment.gateways[:2]]  # those that are there all the time


def note(what: str, running: Load) -> float:
    """Say how long nothing was acknowledged, and return that of one publisher: `docs/operations.md` has these times."""
    acknowledged = [event for event in running.events if isinstance(event, AcknowledgedRecord)]
    whole_s = _longest_pause(acknowledged)
    one_s = max(
        _longest_pause([e for e in acknowledged if e.who == who]) for who in {e.who for e in acknowledged}
    )
    log.info(
        "%s: nothing was acknowledged for %.1f s, to one publisher for %.1f s\n%s",
        what,
        whole_s,
        one_s,
        running.report.text(),
    )
    return one_s


def _longest_pause(events: list[AcknowledgedRecord]) -> float:
    times = sorted(event.clock for event in events)
    return max((after - before for before, after in itertools.pairwise(times)), default=0.0)


async def leader(nats: NatsCluster) -> Peer:
    return await eventually(lambda: aside(lambda: nats.leader_of(STREAM)), "the stream has a leader")


async def test_streams_are_replicated(nats_cluster: NatsCluster, deployment: Deployment) -> None:
    told = await aside(lambda: nats_cluster.peers[0].monitor("/jsz?accounts=true&streams=true&config=true"))
    replicas = {
        one["name"]: one["config"]["num_replicas"]
        for account in told["account_details"]
        for one in account["stream_detail"]
    }
    assert STREAM in replicas
    assert set(replicas.values()) == {3}


async def test_nothing_acknowledged_is_lost_with_the_streams_leader(
    nats_cluster: NatsCluster, deployment: Deployment, tmp_path: Path
) -> None:
    async with under_load(urls(deployment), tmp_path / "history.jsonl") as running:
        for _ in range(2):
            led = await leader(nats_cluster)
            await aside(led.kill)
            await running.acknowledged(40)
            assert (await leader(nats_cluster)) is not led
            await aside(nats_cluster.start)
    note("stream leader killed, twice", running)
    assert not running.report.gaps
    assert not running.lost, "a socket ended, though a gateway has other servers to go to"


async def test_a_machine_that_is_gone_without_a_word_is_left_for_another(
    nats_cluster: NatsCluster, deployment: Deployment, tmp_path: Path
) -> None:
    """Frozen, as by a power cut or a cable: connections to it stand, and nothing comes."""
    async with under_load(urls(deployment), tmp_path / "history.jsonl") as running:
        frozen = await aside(lambda: nats_cluster.peer_of("gateway-1"))
        frozen.pause()
        try:
            await eventually(
                lambda: aside(lambda: nats_cluster.peer_of("gateway-1")), "it goes to another server", 60
            )
            await running.acknowledged(40, timeout_s=60)
        finally:
            frozen.resume()
        await aside(nats_cluster.start)
    # The pings of the connection alone would notice after 20 to 30 s.
    assert note("a gateway's server frozen", running) < 20
    assert not running.report.gaps
    assert not running.lost


async def test_a_gateway_starts_while_the_first_server_named_is_away(
    nats_cluster: NatsCluster, deployment: Deployment
) -> None:
    await aside(nats_cluster.peers[0].kill)
    try:
        late = await aside(lambda: deployment.extra_gateway("gateway-late"))
        async with client(late, "username=Late") as one:
            await one.join("anywhere")
        assert await aside(lambda: late.terminate() or late.wait(PATIENCE_S)) == 0
    finally:
        await aside(nats_cluster.start)


async def test_servers_are_restarted_one_after_the_other(
    nats_cluster: NatsCluster, deployment: Deployment, tmp_path: Path
) -> None:
    async with under_load(urls(deployment), tmp_path / "history.jsonl") as running:
        for peer in nats_cluster.peers:
            await aside(peer.stop)
            await running.acknowledged(20)
            await aside(nats_cluster.start)
            await running.acknowledged(20)
    note("servers restarted in turn", running)
    assert not running.report.gaps
    assert not running.lost


async def test_a_message_to_a_quiet_room_arrives_though_its_leader_dies(
    nats_cluster: NatsCluster, deployment: Deployment
) -> None:
    """One message each, and no other after it that would show the gap."""
    one, two = deployment.gateways[:2]
    async with client(one, "username=Writer") as writer, client(two, "username=Reader") as reader:
        for turn in range(2):
            rooms = [f"quiet-{turn}-{n}" for n in range(ROOMS)]
            for room in rooms:
                await writer.join(room)
                await reader.join(room)
            led = await leader(nats_cluster)
            for n, room in enumerate(rooms):
                await writer.send("room_message", room=room, content=n, id=room)
                await asyncio.sleep(0.002)
                if n == ROOMS // 2:
                    killing = asyncio.ensure_future(aside(led.kill))
            await killing
            await everything_acknowledged(writer, rooms)
            heard = set[str]()
            async with asyncio.timeout(PATIENCE_S):
                while len(heard) < ROOMS:
                    heard.add((await reader.expect("room_message"))["room"])
            await aside(nats_cluster.start)
            for room in rooms:
                await writer.ask("leave_room", room=room)
                await reader.ask("leave_room", room=room)


async def test_messages_stored_but_not_republished_by_a_dead_leader_arrive_after_the_election(
    nats_cluster: NatsCluster, deployment: Deployment
) -> None:
    """Stored without being republished, as by a leader that dies in between, in a room where nothing follows."""
    room = "told-nobody"
    settings = Settings(nats_url=nats_cluster.url, prefix=PREFIX)
    bus = await Bus.connect(settings, "test")
    async with client(deployment.gateways[1], "username=Reader") as reader:
        await reader.join(room)
        async with without_republishing(bus):
            event = RoomPublished(
                user_id="w", username="W", room=room, content=msgspec.Raw(b'"hello"'), timestamp=1
            )
            await bus.request(
                settings.subjects.room_in("default", room), msgspec.json.encode(event), timeout_s=PATIENCE_S
            )
        await reader.nothing_of("room_message")
        await bus.request(f"$JS.API.STREAM.LEADER.STEPDOWN.{STREAM}", b"", timeout_s=PATIENCE_S)
        assert (await reader.expect("room_message", room=room))["content"] == "hello"
    await bus.close()


@asynccontextmanager
async def without_republishing(bus: Bus) -> AsyncIterator[None]:
    """Let the stream store without republishing."""
    info = msgspec.json.decode(
        (await bus.request(f"$JS.API.STREAM.INFO.{STREAM}", b"", timeout_s=PATIENCE_S)).data
    )
    whole = info["config"]

    async def update(config: dict[str, Any]) -> None:
        answer = await bus.request(
            f"$JS.API.STREAM.UPDATE.{STREAM}", msgspec.json.encode(config), timeout_s=PATIENCE_S
        )
        assert "error" not in msgspec.json.decode(answer.data), answer.data

    await update({name: value for name, value in whole.items() if name != "republish"})
    try:
        yield
    finally:
        await update(whole)


async def everything_acknowledged(writer: Client, rooms: list[str]) -> None:
    """Send again what is refused until everything is acknowledged."""
    waiting = set(rooms)
    async with asyncio.timeout(60):
        while waiting:
            answer = await writer.receive(30)
            if answer.get("id") not in waiting:
                continue
            if answer["type"] == "ack":
                waiting.discard(answer["id"])
            else:
                assert answer["code"] == "unavailable"
                await asyncio.sleep(0.05)
                await writer.send(
                    "room_message",
                    room=answer["id"],
                    content=int(answer["id"].rpartition("-")[2]),
                    id=answer["id"],
                )


async def test_without_a_majority_nothing_is_acknowledged_and_nothing_is_lost(
    nats_cluster: NatsCluster, deployment: Deployment, tmp_path: Path
) -> None:
    async with under_load(urls(deployment), tmp_path / "history.jsonl") as running:
        for peer in nats_cluster.peers[:2]:
            await aside(peer.kill)
        await running.refused(timeout_s=PATIENCE_S)
        await aside(nats_cluster.start)
        back = time.monotonic()
        await running.acknowledged(1)
        log.info("acknowledged again %.1f s after the majority was back", time.monotonic() - back)
    assert not running.report.gaps
    assert not running.lost
