"""Start of a server under test, and the figures of its processes."""

import http.client
import json
import os
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil

from bench.load.dialects import Dialect
from bench.machine import LOAD_CORES, SERVER_CORES, cpu_s, pinned, prioritise
from tidings_cli.local.child_server import LocalServer
from tidings_cli.local.die_with_parent import die_with_parent
from tidings_cli.local.processes import free_port
from tidings_cli.local.servers import NatsServer, RedisServer

PROGRAMS = Path(__file__).parent / "peers"
_READY_S = 60.0
_GATEWAY = "bench-gateway"
_OF_ROOMS = ".room."  # in every subject of room messages to gateways (`services.wire.subjects`)
_STOP_S = 15.0


@dataclass(frozen=True)
class Setup:
    """A server's setup for a case."""

    gateways: int = 1
    compression: bool = False


@dataclass
class Running:
    """A started peer. Its `server` counts; its `brokers` are reported beside it."""

    ports: list[int]
    server: list[int]
    brokers: list[int] = field(default_factory=list)
    monitor: int = 0  # NATS's monitoring address, if there is one

    @property
    def port(self) -> int:
        """The port of the first server."""
        return self.ports[0]

    def cpu_s(self) -> float:
        """Return the CPU seconds of the server's processes so far."""
        return sum(map(cpu_s, self.server))

    def broker_cpu_s(self) -> float:
        """Return the CPU seconds of the brokers so far."""
        return sum(map(cpu_s, self.brokers))

    def memory(self) -> int:
        """Return resident bytes of the server's processes."""
        return sum(psutil.Process(pid).memory_info().rss for pid in self.server)

    def bus_messages(self) -> int:
        """Return NATS's count of room messages delivered to all gateways."""
        with closing(http.client.HTTPConnection("127.0.0.1", self.monitor, timeout=10)) as connection:
            connection.request("GET", "/connz?subs=detail&limit=1000")
            statistics: dict[str, Any] = json.loads(connection.getresponse().read())
        return sum(
            subscription["msgs"]
            for client in statistics["connections"]
            if client.get("name", "").startswith(_GATEWAY)
            for subscription in client.get("subscriptions_list_detail", ())
            if _OF_ROOMS in subscription["subject"]
        )


Start = Callable[[ExitStack, Setup], Running]


@dataclass(frozen=True)
class Peer:
    """One server under test."""

    name: str
    label: str
    dialect: Dialect
    start: Start
    room: str = "bench"
    missing: Callable[[], str] = lambda: ""  # what it lacks on this machine


@contextmanager
def running(peer: Peer, setup: Setup = Setup()) -> Iterator[Running]:
    """Start a peer, wait until it listens, and stop it and its brokers afterwards."""
    with ExitStack() as stack:
        yield peer.start(stack, setup)


def tidings(stack: ExitStack, setup: Setup) -> Running:
    """Start a whole deployment: NATS with JetStream, Redis, presence_svc, metrics_svc and gateways.

    All options have their defaults, except that publishers have no rate limit, because each one stands for many.
    """
    folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="tidings-bench-")))
    monitor = free_port()
    nats = NatsServer(folder / "nats", extra_config=f'http: "127.0.0.1:{monitor}"')
    redis = RedisServer(folder / "redis")
    for broker in (nats, redis):
        _start_broker(stack, broker)
    shared = {
        "TIDINGS_NATS_URL": nats.url,
        "TIDINGS_REDIS_URL": redis.url,
        "TIDINGS_SESSION_SECRET": "b" * 32,
        "TIDINGS_MESSAGE_RATE": "0",
        "TIDINGS_MESSAGE_BYTES_RATE": "0",
        "TIDINGS_COMPRESSION": str(setup.compression).lower(),
        "TIDINGS_LOG_FORMAT": "json",
    }

    def ours(module: str, name: str, port_setting: str, cores: set[int]) -> _Child:
        own = {"TIDINGS_INSTANCE": name, port_setting: str(free_port())}
        return _spawn(stack, ["-m", module], shared | own, folder / name, cores, int(own[port_setting]))

    services = [
        ours(module, f"bench-{module}", "TIDINGS_HEALTH_PORT", LOAD_CORES)
        for module in ("presence_svc", "metrics_svc")
    ]
    gateways = [
        ours("gateway", f"{_GATEWAY}-{number}", "TIDINGS_PORT", SERVER_CORES)
        for number in range(1, setup.gateways + 1)
    ]
    for child in (*services, *gateways):
        child.wait_until(_ready)
    brokers = [nats.pid, redis.pid, *(child.pid for child in services)]
    return Running([child.port for child in gateways], [child.pid for child in gateways], brokers, monitor)


def program(*command: str, redis: bool = False) -> Start:
    """Return the launcher of a peer's program, with its own Redis if it needs one."""

    def start(stack: ExitStack, setup: Setup) -> Running:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="tidings-bench-")))
        port = free_port()
        environment = {"PORT": str(port), "NODE_ENV": "production"}
        if setup.compression:
            environment["COMPRESS"] = "1"
        brokers = []
        if redis:
            server = RedisServer(folder / "redis")
            _start_broker(stack, server)
            brokers.append(server.pid)
            environment["REDIS_URL"] = server.url
        child = _spawn(stack, list(command), environment, folder / "log", SERVER_CORES, port)
        child.wait_until(_listening)
        return Running([port], [child.pid], brokers)

    return start


def _start_broker(stack: ExitStack, broker: LocalServer) -> None:
    """Start a broker on this process's cores, with its priority."""
    broker.start()
    stack.callback(broker.stop)
    if nice := os.getpriority(os.PRIO_PROCESS, 0):
        prioritise(broker.pid, nice)


class _Child:
    """A child process whose output explains a failed start."""

    def __init__(self, process: subprocess.Popen[bytes], log: Path, port: int) -> None:
        self._process = process
        self._log = log
        self.pid = process.pid
        self.port = port

    def wait_until(self, ready: Callable[[int], bool]) -> None:
        """Wait until the port answers.

        Raises:
            OSError: the process ended or took too long. The message has the end of its output.
        """
        deadline = time.monotonic() + _READY_S
        while not ready(self.port):
            ended = self._process.poll()
            if ended is not None or time.monotonic() > deadline:
                said = self._log.read_text(errors="replace")[-1000:]
                why = f"ended with {ended}" if ended is not None else f"was not ready within {_READY_S:.0f} s"
                raise OSError(f"{Path(self._process.args[-1]).name} {why}: {said}")  # type: ignore[index,arg-type]
            time.sleep(0.02)

    def stop(self) -> None:
        """Terminate it; kill it after a time limit."""
        self._process.terminate()
        try:
            self._process.wait(_STOP_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()


def _spawn(
    stack: ExitStack, command: list[str], own: dict[str, str], log: Path, cores: set[int], port: int
) -> _Child:
    """Start a program, or one of our modules, with only the given settings."""
    if command[0] == "-m":
        command = [sys.executable, *command]
    clean = {key: value for key, value in os.environ.items() if not key.startswith("TIDINGS_")}
    with log.open("wb") as output:
        process = subprocess.Popen(
            die_with_parent(command),
            env={**clean, **own},
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            preexec_fn=pinned(cores),  # noqa: PLW1509  # no threads here
        )
    child = _Child(process, log, port)
    stack.callback(child.stop)
    return child


def _listening(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), timeout=1).close()
    except OSError:
        return False
    return True


def _ready(port: int) -> bool:
    with closing(http.client.HTTPConnection("127.0.0.1", port, timeout=5)) as connection:
        try:
            connection.request("GET", "/readyz")
            return connection.getresponse().status == http.client.OK
        except (OSError, http.client.HTTPException):
            return False
