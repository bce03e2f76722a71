"""One presence_svc on one core, its NATS and Redis, and simulated gateways on another.

A simulated gateway sends what a real one sends, by the same code (`gateway.presence.batch_queue`), for connections that
exist only in its memory.
"""

import asyncio
import json
import os
import random
import tempfile
import time
import urllib.request
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil
import redis

from bench.machine import LOAD_CORES
from bench.single import keep, spawn
from gateway.presence.batch_queue import BatchQueue
from gateway.presence.reporter import ANNOUNCE_WITHIN_S
from services.bus import rpc
from services.bus.client import Bus
from services.settings import Settings
from services.wire.rpc import (
    PRESENCE_APPLY,
    PRESENCE_STATS,
    AnyPresenceOp,
    Connected,
    Empty,
    Joined,
    PresenceBatch,
    PresenceStats,
)
from tidings_cli.local.processes import free_port
from tidings_cli.local.servers import NatsServer, RedisServer

_START_S = 30.0


@dataclass
class Here:
    """A connection in the memory of a simulated gateway."""

    connection_id: str
    user_id: str
    rooms: list[str] = field(default_factory=list)

    def presence_ops(self) -> Iterable[AnyPresenceOp]:
        yield Connected(connection_id=self.connection_id, user_id=self.user_id, username=self.user_id)
        for room in self.rooms:
            yield Joined(connection_id=self.connection_id, room=room)


class SimulatedGateway:
    """Sends batches until stopped; `kill` ends it as a crash would."""

    def __init__(self, bus: Bus, settings: Settings, name: str) -> None:
        self.batches = BatchQueue(name, "boot")
        self.here: dict[str, Here] = {}
        self.sent = 0
        self.times_ms: list[float] = []
        self._bus = bus
        self._settings = settings
        self._changed = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        self._task = asyncio.create_task(self._run())

    def kill(self) -> None:
        if self._task is not None:
            self._task.cancel()

    def connect(self, *connections: Here) -> None:
        for one in connections:
            self.here[one.connection_id] = one
            for op in one.presence_ops():
                self.batches.add(op)
        self._changed.set()

    def say(self, *ops: AnyPresenceOp) -> None:
        for op in ops:
            self.batches.add(op)
        self._changed.set()

    async def settled(self) -> None:
        """Wait until everything was sent and answered."""
        while self.batches.has_work:  # noqa: ASYNC110  # polled: the batch core sets no event
            await asyncio.sleep(0.01)
        sent = self.sent
        self._changed.set()
        while self.sent < sent + 2:
            self._changed.set()
            await asyncio.sleep(0.01)

    async def _run(self) -> None:
        while True:
            if not self.batches.has_work:
                self._changed.clear()
                try:
                    async with asyncio.timeout(self._settings.presence_renew_s):
                        await self._changed.wait()
                except TimeoutError:
                    pass  # time to renew
            batch = self.batches.next(self.here.values())
            began = time.perf_counter()
            applied = await self._ask(batch)
            self.times_ms.append((time.perf_counter() - began) * 1000)
            self.sent += 1
            if not applied:
                self.batches.reannounce()
                await asyncio.sleep(random.uniform(0, ANNOUNCE_WITHIN_S))  # no secret

    async def _ask(self, batch: PresenceBatch) -> bool:
        while True:
            try:
                answer = await rpc.call(self._bus, self._settings.subjects, PRESENCE_APPLY, batch)
            except rpc.BusError:
                await asyncio.sleep(0.2)
            else:
                return answer.known


@dataclass
class Rig:
    """The running processes, and a connection to their bus."""

    settings: Settings
    bus: Bus
    service: psutil.Process
    nats: NatsServer
    redis: RedisServer
    monitor: str
    gateways: list[SimulatedGateway]

    def client(self) -> "redis.Redis[bytes]":
        return redis.Redis(port=self.redis.port, password=self.redis.password)

    def cpu_s(self) -> dict[str, float]:
        """Return user and system seconds of each process so far."""
        processes = {
            "presence_svc": self.service,
            "redis": psutil.Process(self.redis.pid),
            "nats": psutil.Process(self.nats.pid),
        }
        return {name: sum(process.cpu_times()[:2]) for name, process in processes.items()}

    def traffic(self) -> dict[str, float]:
        """Return the traffic of bus and Redis so far."""
        with urllib.request.urlopen(f"{self.monitor}/varz") as answer:  # noqa: S310  # our own server
            varz = json.load(answer)
        with self.client() as client:
            stats = client.info("stats")
        return {
            "bus_messages_in": varz["in_msgs"],
            "bus_bytes_in": varz["in_bytes"],
            "redis_commands": stats["total_commands_processed"],
            "redis_bytes_in": stats["total_net_input_bytes"],
            "redis_bytes_out": stats["total_net_output_bytes"],
        }

    async def stats(self) -> PresenceStats:
        return await rpc.call(self.bus, self.settings.subjects, PRESENCE_STATS, Empty(), timeout_s=10)

    async def populate(self, users: int, *, rooms: int = 1000) -> float:
        """Bring `users` online, evenly over the gateways, each in one room; return the seconds."""
        began = time.perf_counter()
        per_gateway = users // len(self.gateways)
        for number, gateway in enumerate(self.gateways):
            existing = len(gateway.here)
            made = [
                Here(f"g{number}c{n}", f"user-{number}-{n:06}", [f"room-{(n * 4 + number) % rooms}"])
                for n in range(existing, per_gateway)
            ]
            gateway.connect(*made)
        await asyncio.gather(*(gateway.settled() for gateway in self.gateways))
        return time.perf_counter() - began

    def watch_slow_scripts(self, over_us: int = 1000) -> None:
        """Record commands that block Redis for longer."""
        with self.client() as client:
            client.config_set("slowlog-log-slower-than", over_us)
            client.config_set("slowlog-max-len", 100_000)
            client.slowlog_reset()

    def slowest_scripts_ms(self) -> dict[str, float]:
        """Return the durations of the slowest commands since `watch_slow_scripts`."""
        with self.client() as client:
            durations = sorted(entry["duration"] / 1000 for entry in client.slowlog_get(100_000))
        if not durations:
            return {"count": 0}
        return {
            "count": len(durations),
            "p50": round(durations[len(durations) // 2], 1),
            "p99": round(durations[int(len(durations) * 0.99)], 1),
            "max": round(durations[-1], 1),
        }


@asynccontextmanager
async def running(*, gateways: int = 4, **environment: str) -> AsyncIterator[Rig]:
    """Start everything, with `gateways` simulated gateways; stop everything."""
    os.sched_setaffinity(0, LOAD_CORES)
    with tempfile.TemporaryDirectory() as name:
        folder, port, monitor = Path(name), free_port(), free_port()
        nats_server = NatsServer(folder / "nats", extra_config=f'http: "127.0.0.1:{monitor}"')
        with nats_server as nats, RedisServer(folder / "redis") as store:
            for server in (nats, store):
                os.sched_setaffinity(server.pid, LOAD_CORES)
            settings = Settings(nats_url=nats.url, redis_url=store.url, data_dir=folder)
            env = {
                **os.environ,
                "TIDINGS_NATS_URL": nats.url,
                "TIDINGS_REDIS_URL": store.url,
                "TIDINGS_HEALTH_PORT": str(port),
                "TIDINGS_LOG_LEVEL": "error",
                **environment,
            }
            with (folder / "log").open("wb") as log:
                process = spawn("presence_svc", env, log)
            bus = await Bus.connect(settings, "bench")
            simulated = [SimulatedGateway(bus, settings, f"gateway-{n}") for n in range(gateways)]
            try:
                await _wait_ready(f"http://127.0.0.1:{port}/readyz", folder / "log")
                for gateway in simulated:
                    gateway.start()
                yield Rig(
                    settings, bus, psutil.Process(process.pid), nats, store,
                    f"http://127.0.0.1:{monitor}", simulated,
                )  # fmt: skip
            finally:
                for gateway in simulated:
                    gateway.kill()
                await bus.close()
                process.terminate()
                process.wait()


def _tail(log: Path) -> str:
    return log.read_text()[-2000:]


async def _wait_ready(url: str, log: Path) -> None:
    deadline = time.monotonic() + _START_S
    while True:
        try:
            urllib.request.urlopen(url).close()  # noqa: S310, ASYNC210  # our own server, nothing else runs yet
        except OSError:
            if time.monotonic() > deadline:
                raise RuntimeError(_tail(log)) from None
            await asyncio.sleep(0.05)
        else:
            return


def report(case: str, figures: dict[str, Any]) -> None:
    """Print and keep figures, with how the processes got their cores (`chrt -r 5` puts them before all others)."""
    scheduling = "shared" if os.sched_getscheduler(0) == os.SCHED_OTHER else "ahead of all others"
    keep(case, figures, load_average_at_end=os.getloadavg()[0], scheduling=scheduling)
