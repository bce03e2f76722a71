"""A log with three replicas: opened during an election, read completely from lagging followers, kept after a loss."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from services.bus.client import Bus
from services.bus.errors import BusError
from services.settings import Settings
from tests.support.bus import publishing, room_log, store
from tests.support.deadline import eventually
from tests.support.requires import need
from tidings_cli.local.processes import free_port
from tidings_cli.local.servers import NatsServer


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[list[NatsServer]]:
    need("nats-server")
    routes = [free_port() for _ in range(3)]
    listed = ", ".join(f"nats-route://127.0.0.1:{port}" for port in routes)
    servers = [
        NatsServer(
            tmp_path / f"n{number}",
            password="secret",
            extra_config=f"server_name: n{number}\n"
            f'cluster {{ name: test, listen: "127.0.0.1:{port}", routes: [{listed}] }}\n',
        )
        for number, port in enumerate(routes)
    ]
    try:
        yield [server.start() for server in servers]
    finally:
        for server in servers:
            server.stop()


async def test_replicated_log(cluster: list[NatsServer], make_settings: Callable[..., Settings]) -> None:
    settings = make_settings(nats_url=",".join(server.url for server in cluster))
    bus = await Bus.connect(settings, "test")
    log = room_log(bus, settings, replicas=3)
    room = settings.subjects.room_in("default", "r")
    try:
        await log.open(30)
        epoch = log.epoch

        for number in range(100):
            stored = await store(log, room, b"%d" % number)
            batch = await log.read_from(room, stored.seq, 10)
            assert [m.data for m in batch.messages] == [b"%d" % number], "what was acknowledged is read"
            assert (await log.last_of(room))[0] == stored.seq

        connected_to = bus._client.connected_url
        assert connected_to is not None
        victim = next(server for server in cluster if server.port == connected_to.port)
        outcomes = [publishing(log, room, b"x%d" % n, f"id-{n}") for n in range(20)]
        victim.kill()
        await eventually(lambda: bus.connected and bus.stats.reconnects >= 1, "another server took over")
        for outcome in outcomes:
            await outcome

        async def stored_all() -> bool:
            again = [publishing(log, room, b"x%d" % n, f"id-{n}") for n in range(20)]
            return not [outcome for outcome in again if isinstance(await outcome, BusError)]

        await eventually(stored_all, "the rest elected a leader", timeout_s=30)
        await log.open(30)
        assert log.epoch == epoch
        batch = await log.read_from(room, 1, 200)
        # A retry that meets the election halfway stores its second half first: each once, in whatever order.
        kept = sorted(m.data for m in batch.messages if m.data.startswith(b"x"))
        assert kept == sorted(b"x%d" % n for n in range(20))
    finally:
        await bus.close()
