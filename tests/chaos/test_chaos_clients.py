"""Clients that do not read, and many clients that return at once."""

import asyncio
import json
import re
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
from websockets.asyncio.client import connect

from tests.chaos.load import StartLoad, under_load
from tests.support.cluster import Cluster, ServiceProcess, aside
from tests.support.deadline import eventually
from tests.support.faults import eventually_ended, killed
from tests.support.requires import need
from tests.support.stalled import StalledClient
from tidings_cli.gateways import socket_url
from tidings_cli.verify.campaign import Plan
from tidings_cli.verify.history import LostRecord

_FLOOD_MESSAGE = "x" * 60_000
_FLOOD_MESSAGES = 1000  # 60 MB: far more than any socket buffer holds


def _slow_clients(gateway: ServiceProcess) -> int:
    _, body = gateway.get("/metrics")
    found = re.search(rb"^tidings_gateway_slow_clients_total (\d+)", body, re.MULTILINE)
    assert found is not None
    return int(found[1])


async def _flood(url: str, room: str, count: int, until: asyncio.Event | None = None) -> int:
    """Publish large messages to a room, `count` or until stopped; return the number of stored ones."""
    stored = 0
    async with connect(socket_url(url, {"username": "loud"}), proxy=None) as connection:
        await connection.send(json.dumps({"type": "join_room", "room": room, "id": "join"}))
        while stored < count and not (until and until.is_set()):
            message = {"type": "room_message", "room": room, "content": _FLOOD_MESSAGE, "id": str(stored)}
            await connection.send(json.dumps(message))
            while (answer := json.loads(await connection.recv())).get("id") != str(stored):
                pass
            assert answer["type"] == "ack", answer
            stored += 1
    return stored


async def test_a_client_that_does_not_read_is_sent_away_alone(cluster: Cluster, load: StartLoad) -> None:
    gateway = cluster.gateways[0]
    before = _slow_clients(gateway)
    closed = asyncio.Event()
    async with load() as running:
        with StalledClient(gateway.port, ["flooded"]):
            flooding = asyncio.create_task(_flood(gateway.url, "flooded", _FLOOD_MESSAGES, closed))
            await eventually(
                lambda: aside(lambda: _slow_clients(gateway) > before), "a slow client noticed", 60.0
            )
            closed.set()
            assert await flooding < _FLOOD_MESSAGES
        await running.acknowledged(20)
    assert not running.lost
    assert not running.report.gaps
    assert running.report.longest_answer_s < 5


@pytest.fixture
def patient(tmp_path: Path) -> Iterator[Cluster]:
    """One gateway that lets far more wait for a client than sockets hold."""
    need("nats-server")
    with Cluster(
        tmp_path / "cluster",
        gateways=1,
        with_services=False,
        write_buffer_bytes=str(64 * 1024 * 1024),
        message_rate="0",
        message_bytes_rate="0",
    ) as cluster:
        yield cluster


async def test_a_stopping_gateway_does_not_wait_for_a_client_that_does_not_read(patient: Cluster) -> None:
    gateway = patient.gateways[0]
    with StalledClient(gateway.port, ["flooded"]):
        assert await _flood(gateway.url, "flooded", _FLOOD_MESSAGES // 3) == _FLOOD_MESSAGES // 3
        gateway.terminate()
        assert await eventually_ended(gateway) == 0


@pytest.fixture
def rate_limited(tmp_path: Path) -> Iterator[Cluster]:
    need("nats-server")
    need("redis-server")
    settings = {"accept_rate": "40", "namespaces": json.dumps({"crowd": {"history_size": 1000}})}
    with Cluster(tmp_path / "cluster", **settings) as cluster:
        yield cluster


async def test_a_crowd_that_returns_at_once_loses_nothing(rate_limited: Cluster, tmp_path: Path) -> None:
    plan = Plan(publishers=2, members=400, rooms=20, rate=5.0, namespace="crowd")
    async with under_load(rate_limited.urls, tmp_path / "history.jsonl", plan, before_fault=10) as running:
        came_in = len(running.lost)
        async with killed(rate_limited.gateways[0]):
            await eventually(lambda: len(running.lost) - came_in >= 150, "the crowd without its gateway")
            await running.everybody_in(90.0)
    turned_away = [
        event for event in running.events if isinstance(event, LostRecord) and " answered 503" in event.why
    ]
    assert turned_away, "the accept rate was never reached"
    assert not running.report.gaps


async def test_connections_over_the_rate_get_a_retry_time(rate_limited: Cluster) -> None:
    url = rate_limited.gateways[0].url
    port = rate_limited.gateways[0].port
    heads = await asyncio.gather(*(_head_of(port, path) for path in ["/ws", "/events"] * 200))
    refused = [head for head in heads if b" 503 " in head.split(b"\r\n")[0]]
    assert refused
    assert all(re.search(rb"\r\nretry-after: \d+\r\n", head, re.IGNORECASE) for head in refused)
    assert await aside(rate_limited.gateways[0].ready), f"{url} fell over"


async def _head_of(port: int, path: str) -> bytes:
    """Ask for an upgrade or a stream; return the head of the answer."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    upgrade = (
        "connection: upgrade\r\nupgrade: websocket\r\nsec-websocket-version: 13\r\n"
        "sec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
        if path == "/ws"
        else ""
    )
    writer.write(f"GET {path} HTTP/1.1\r\nhost: 127.0.0.1\r\n{upgrade}\r\n".encode())
    try:
        return await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 30)
    finally:
        writer.transport.abort()


def test_a_stalled_client_holds_little(tmp_path: Path) -> None:
    """The receive buffer of the tests' stalled client is small, or the tests would need more load."""
    listener = socket.create_server(("127.0.0.1", 0))
    with listener, StalledClient.connected(listener.getsockname()[1]) as client:
        assert client.getsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF) <= 65_536
