"""Buses that close with their test, servers to break, and recorded messages."""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AsyncExitStack, ExitStack
from pathlib import Path
from typing import Any, Protocol

import psutil
import pytest
import pytest_asyncio

from services.bus.ack_publisher import Stored
from services.bus.client import Bus, BusMessage
from services.bus.errors import BusError
from services.bus.specs import StreamSpec
from services.bus.streams import DurableLog
from services.settings import Settings
from tests.support.deadline import wait_until
from tests.support.requires import need
from tidings_cli.local.servers import NatsServer


class ConnectBus(Protocol):
    """Connect a bus that is closed when the test ends; by default to the session's server."""

    async def __call__(self, server: NatsServer | None = None, **options: Any) -> Bus: ...


@pytest_asyncio.fixture
async def connect_bus(make_settings: Callable[..., Settings]) -> AsyncIterator[ConnectBus]:
    async with AsyncExitStack() as stack:

        async def connect(server: NatsServer | None = None, **options: Any) -> Bus:
            settings = make_settings(**({"nats_url": server.url} if server else {}))
            bus = await Bus.connect(settings, "test", **options)
            stack.push_async_callback(bus.close)
            return bus

        yield connect


@pytest.fixture
def breakable_nats(tmp_path: Path) -> Iterator[Callable[..., NatsServer]]:
    """Return a function that starts a server of this test's own."""
    need("nats-server")
    with ExitStack() as stack:

        def start(name: str = "nats", **options: Any) -> NatsServer:
            server = NatsServer(tmp_path / name, **options)
            stack.callback(server.stop)
            stack.callback(server.resume)
            return server.start()

        yield start


def freeze(server: NatsServer) -> None:
    """Pause a server, and return when it has stopped: under load it may answer a little longer."""
    server.pause()
    process = psutil.Process(server.pid)

    def stopped() -> bool:
        return process.status() == psutil.STATUS_STOPPED and all(
            psutil.Process(thread.id).status() == psutil.STATUS_STOPPED for thread in process.threads()
        )

    wait_until(stopped, "every thread of the server has stopped")


class Collected:
    """A callback that keeps what it was called with."""

    def __init__(self) -> None:
        self.messages: list[BusMessage] = []

    def __call__(self, message: BusMessage) -> None:
        self.messages.append(message)

    @property
    def data(self) -> list[bytes]:
        return [message.data for message in self.messages]

    def __len__(self) -> int:
        return len(self.messages)


def room_log(bus: Bus, settings: Settings, *, publish_timeout_s: float = 5.0, **changes: Any) -> DurableLog:
    """Return the log of the default namespace's rooms, as gateways open it."""
    subjects = settings.subjects
    spec: dict[str, Any] = {
        "name": subjects.rooms_stream("default"),
        "captured": subjects.rooms_captured("default"),
        "max_per_subject": 100,
        "max_age_s": 600,
        "duplicate_window_s": 120,
        "replicas": 1,
    }
    return DurableLog(bus, StreamSpec(**(spec | changes)), publish_timeout_s)


def publishing(
    log: DurableLog, subject: str, payload: bytes, message_id: str = ""
) -> "asyncio.Future[Stored | BusError]":
    """Publish, and return a future that fails the test's loop if the outcome comes twice."""
    outcome: asyncio.Future[Stored | BusError] = asyncio.get_running_loop().create_future()
    log.publish(subject, payload, message_id=message_id, on_done=outcome.set_result)
    return outcome


async def store(log: DurableLog, subject: str, payload: bytes, message_id: str = "") -> Stored:
    """Publish and return where it was stored; raise what went wrong."""
    outcome = await publishing(log, subject, payload, message_id)
    if isinstance(outcome, BusError):
        raise outcome
    return outcome
