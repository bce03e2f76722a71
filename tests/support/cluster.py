"""A complete deployment as processes that can be killed, paused and started again: NATS, Redis, gateways, services."""

import asyncio
import contextlib
import http.client
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Protocol, Self, TypeVar

from tests.support.deadline import PATIENCE_S
from tests.support.startable import Startable
from tests.support.tcp_proxy import TcpProxy
from tidings_cli.local.die_with_parent import die_with_parent
from tidings_cli.local.processes import free_port
from tidings_cli.local.servers import NatsServer, RedisServer

T = TypeVar("T")

_START_S = 40.0  # imports take seconds where many processes share two cores
_POLL_S = 0.02
_TAIL_LINES = 40

# Children die with the thread that spawned them, so one thread that lives as long as the process spawns them all.
_spawner = ThreadPoolExecutor(1, thread_name_prefix="spawner")


async def aside(work: Callable[[], T]) -> T:
    """Run something that blocks (and may spawn processes) beside the event loop."""
    return await asyncio.get_running_loop().run_in_executor(_spawner, work)


# Settings for chaos: leases that are over within a test, and rooms that keep what a slow machine falls behind by.
CHAOS_SETTINGS = {
    "presence_renew_s": "1",
    "presence_lease_s": "4",
    "presence_grace_s": "3",
    "namespaces": '{"default": {"history_size": 1000}}',
    "recovery_limit": "1000",
    "message_rate": "0",  # some tests flood
    "message_bytes_rate": "0",
}


class Breakable(Protocol):
    """A process that tests kill, pause and start again."""

    name: str

    def start(self) -> object: ...
    def kill(self) -> None: ...
    def pause(self) -> None: ...
    def resume(self) -> None: ...


class ServiceProcess:
    """One process of ours, started as `python -m MODULE`; ready when `/readyz` says so."""

    def __init__(self, name: str, module: str, log: Path, environment: Mapping[str, str]) -> None:
        self.name = name
        own_port = "TIDINGS_PORT" if module == "gateway" else "TIDINGS_HEALTH_PORT"
        self.host = environment.get("TIDINGS_HOST", "127.0.0.1")
        self.port = int(environment.get(own_port, 0)) or free_port()
        clean = {key: value for key, value in os.environ.items() if not key.startswith("TIDINGS_")}
        self._environment = {
            **clean,
            **environment,
            "TIDINGS_INSTANCE": name,
            own_port: str(self.port),
            "TIDINGS_LOG_FORMAT": "json",
        }
        self._module = module
        self._log = log
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        """Where it answers HTTP."""
        return f"http://{self.host}:{self.port}"

    @property
    def pid(self) -> int:
        """The process id of the present or last process."""
        return self._process.pid if self._process else 0

    @property
    def running(self) -> bool:
        """Whether the process lives."""
        return self._process is not None and self._process.poll() is None

    def spawn(self) -> None:
        """Start without waiting; harmless while it runs."""
        if self.running:
            return
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                die_with_parent([sys.executable, "-m", self._module]),
                env=self._environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def start(self) -> Self:
        """Start and wait until it is ready."""
        self.spawn()
        self.wait_ready()
        return self

    def ready(self) -> bool:
        """Whether `/readyz` answers 200 now."""
        return self.get("/readyz", timeout_s=2.0)[0] == 200

    def get(self, path: str, timeout_s: float = PATIENCE_S) -> tuple[int, bytes]:
        """Return status and body of a GET; status 0 where nothing answers."""
        connection = http.client.HTTPConnection(self.host, self.port, timeout=timeout_s)
        with contextlib.closing(connection):
            try:
                connection.request("GET", path)
                with connection.getresponse() as response:
                    return response.status, response.read()
            except (OSError, http.client.HTTPException):
                return 0, b""

    def wait_ready(self) -> None:
        """Wait until it is ready; fail with the end of its log."""
        deadline = time.monotonic() + _START_S
        while not self.ready():
            if not self.running or time.monotonic() > deadline:
                raise AssertionError(f"{self.name} is not ready; its log ends with:\n{self.log_tail()}")
            time.sleep(_POLL_S)

    def terminate(self) -> None:
        """Ask it to end (SIGTERM)."""
        self._signal(signal.SIGTERM)

    def wait(self, timeout_s: float) -> int:
        """Wait for its end and return the exit code."""
        assert self._process is not None
        return self._process.wait(timeout_s)

    def kill(self) -> None:
        """End it as a crash would (SIGKILL)."""
        self._signal(signal.SIGKILL)
        if self._process is not None:
            self._process.wait()

    def pause(self) -> None:
        """Freeze it (SIGSTOP). Returns when all its threads have stopped."""
        assert self._process is not None
        self._signal(signal.SIGSTOP)
        os.waitid(os.P_PID, self._process.pid, os.WSTOPPED | os.WEXITED | os.WNOWAIT)

    def resume(self) -> None:
        """Let it go on (SIGCONT)."""
        self._signal(signal.SIGCONT)

    def log_text(self) -> str:
        """Return everything it logged."""
        return self._log.read_text(errors="replace") if self._log.exists() else ""

    def log_tail(self) -> str:
        """Return the last lines it logged."""
        return "\n".join(self.log_text().splitlines()[-_TAIL_LINES:])

    def _signal(self, number: signal.Signals) -> None:
        if self._process is not None and self._process.poll() is None:
            self._process.send_signal(number)


class Cluster(Startable):
    """NATS, Redis, gateways, one presence_svc and one metrics_svc on free ports. A context manager.

    The first gateway reaches NATS through `proxy`, so that it can be cut off alone.
    """

    def __init__(
        self, directory: Path, *, gateways: int = 2, with_services: bool = True, **settings: str
    ) -> None:
        self._with_services = with_services
        directory.mkdir(parents=True, exist_ok=True)
        self.nats = NatsServer(directory / "nats")
        self.redis = RedisServer(directory / "redis")
        self.nats.fix_port()
        self.redis.fix_port()
        self.proxy = TcpProxy(self.nats.port)
        shared = {
            "TIDINGS_NATS_URL": self.nats.url,
            "TIDINGS_REDIS_URL": self.redis.url,
            "TIDINGS_SESSION_SECRET": "the-same-on-all-gateways-0123456789",
            **{f"TIDINGS_{name.upper()}": value for name, value in settings.items()},
        }
        behind_proxy = {
            "TIDINGS_NATS_URL": self.nats.url.replace(f":{self.nats.port}", f":{self.proxy.port}")
        }

        self._directory = directory
        self._shared = shared
        self.gateways = [
            self.another(f"gateway-{n}", "gateway", behind_proxy if n == 1 else None)
            for n in range(1, gateways + 1)
        ]
        self.presence = self.another("presence-1", "presence_svc")
        self.metrics = self.another("metrics-1", "metrics_svc")

    def another(self, name: str, module: str, more: Mapping[str, str] | None = None) -> ServiceProcess:
        """Return one more process of this deployment, not started; the caller ends it."""
        environment = {**self._shared, **(more or {})}
        return ServiceProcess(name, module, self._directory / f"{name}.log", environment)

    @property
    def services(self) -> list[ServiceProcess]:
        """Every process of ours that belongs to this deployment; without services, the gateways alone."""
        return [self.presence, self.metrics, *self.gateways] if self._with_services else self.gateways

    @property
    def urls(self) -> list[str]:
        """The gateways' addresses."""
        return [gateway.url for gateway in self.gateways]

    def start(self) -> Self:
        """Start everything, and wait until it is ready. Runs in the spawner's thread."""
        _spawner.submit(self._start).result()
        return self

    def _start(self) -> None:
        self.proxy.start()
        for server in (self.nats, self.redis):
            if not server.running:
                server.start()
        for service in self.services:
            service.spawn()
        for service in self.services:
            service.wait_ready()

    async def heal(self) -> None:
        """Bring back whatever a test left broken, and wait until all are ready."""
        self.proxy.heal()
        for breakable in (self.nats, self.redis, *self.services):
            breakable.resume()
        await aside(self._start)

    def stop(self) -> None:
        """End everything."""
        for service in self.services:
            service.resume()
            service.terminate()
        for service in self.services:
            if service.running:
                try:
                    service.wait(12.0)
                except subprocess.TimeoutExpired:
                    service.kill()
        self.proxy.stop()
        self.nats.resume()
        self.nats.stop()
        self.redis.resume()
        self.redis.stop()
