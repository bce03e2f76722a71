"""One metrics_svc on one core, its NATS and Redis and the load on another."""

import asyncio
import os
import tempfile
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import psutil

from bench.machine import LOAD_CORES
from bench.single import spawn
from services.bus.client import Bus
from services.settings import Settings
from tidings_cli.local.servers import NatsServer, RedisServer

_START_S = 30.0


class Rig:
    """The running processes, and a connection to their bus."""

    def __init__(self, settings: Settings, bus: Bus, service: psutil.Process) -> None:
        self.settings = settings
        self.bus = bus
        self.service = service

    def cpu_s(self) -> float:
        """Return user and system seconds of metrics_svc so far."""
        return sum(self.service.cpu_times()[:2])


@asynccontextmanager
async def running(port: int = 0, **environment: str) -> AsyncIterator[Rig]:
    """Start everything, with a gateway on `port` if given; wait for the first tick; stop everything."""
    os.sched_setaffinity(0, LOAD_CORES)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        with NatsServer(folder / "nats") as nats, RedisServer(folder / "redis") as redis:
            for server in (nats, redis):
                os.sched_setaffinity(server.pid, LOAD_CORES)
            settings = Settings(nats_url=nats.url, redis_url=redis.url, data_dir=folder)
            env = {
                **os.environ,
                "TIDINGS_NATS_URL": nats.url,
                "TIDINGS_REDIS_URL": redis.url,
                "TIDINGS_LOG_LEVEL": "error",
                **environment,
            }
            with (folder / "log").open("wb") as log:
                children = [spawn("metrics_svc", env, log)]
                if port:
                    children.append(spawn("gateway", env | {"TIDINGS_PORT": str(port)}, log))
            bus = await Bus.connect(settings, "bench")
            try:
                await _first_tick(bus, settings)
                if port:
                    await _listening(port)
                yield Rig(settings, bus, psutil.Process(children[0].pid))
            finally:
                await bus.close()
                for child in children:
                    child.terminate()
                    child.wait(15)


async def _first_tick(bus: Bus, settings: Settings) -> None:
    ticked = asyncio.Event()
    subscription = bus.subscribe(settings.subjects.metrics_feed, lambda _: ticked.set())
    async with asyncio.timeout(_START_S):
        await ticked.wait()
    subscription.close()


async def _listening(port: int) -> None:
    async with asyncio.timeout(_START_S):
        while True:
            try:
                _, writer = await asyncio.open_connection("127.0.0.1", port)
            except ConnectionRefusedError:
                await asyncio.sleep(0.05)
            else:
                writer.close()
                return


async def paced(seconds: float, per_second: int, send: Callable[[int], None]) -> None:
    """Call `send` with rising numbers, `per_second` times, evenly in steps of 5 ms."""
    begun = time.monotonic()
    sent = 0
    while (passed := time.monotonic() - begun) < seconds:
        due = int(passed * per_second)
        while sent < due:
            send(sent)
            sent += 1
        await asyncio.sleep(0.005)
