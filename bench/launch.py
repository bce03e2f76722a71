"""How each server under test is started, and which of its processes count."""

import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import psutil

from bench.load.dialects import Dialect, Rooms, SocketIo
from bench.machine import LOAD_CORES, SERVER_CORES, pinned
from services.local.servers import NatsServer, RedisServer, free_port

PROGRAMS = Path(__file__).parent / "peers"
_READY_S = 30.0


@dataclass
class Running:
    """A started peer. `server` counts; `brokers` are reported beside it."""

    port: int
    server: list[psutil.Process]
    brokers: list[psutil.Process] = field(default_factory=list)
    ports: list[int] = field(default_factory=list)

    def cpu_s(self) -> float:
        """Return user and system seconds of the server's processes so far."""
        return sum(sum(process.cpu_times()[:2]) for process in self.server)

    def broker_cpu_s(self) -> float:
        """Return user and system seconds of the brokers so far."""
        return sum(sum(process.cpu_times()[:2]) for process in self.brokers)

    def memory(self) -> int:
        """Return resident bytes of the server's processes."""
        return sum(process.memory_info().rss for process in self.server)


@dataclass(frozen=True)
class Peer:
    """One server under test."""

    name: str
    dialect: Dialect
    start: Callable[[ExitStack], Running]
    room: str = "bench"
    available: Callable[[], bool] = lambda: True


@contextmanager
def running(peer: Peer) -> Iterator[Running]:
    """Start a peer, wait until it listens, and stop it and its brokers afterwards."""
    with ExitStack() as stack:
        yield peer.start(stack)


def tidings(gateways: int = 1, **environment: str) -> Callable[[ExitStack], Running]:
    """Return what starts gateways on NATS alone: presence and metrics services take no part in fan-out."""

    def start(stack: ExitStack) -> Running:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        nats = NatsServer(folder / "nats")
        nats.start()
        stack.callback(nats.stop)
        os.sched_setaffinity(nats.pid, LOAD_CORES)
        ports = [free_port() for _ in range(gateways)]
        processes = []
        for port in ports:
            env = {
                **os.environ,
                "TIDINGS_NATS_URL": nats.url,
                "TIDINGS_PORT": str(port),
                "TIDINGS_SESSION_SECRET": "b" * 32,
                "TIDINGS_MESSAGE_RATE": "0",  # one publisher plays the part of many
                "TIDINGS_LOG_LEVEL": "error",
                **environment,
            }
            processes.append(_spawn(stack, [sys.executable, "-m", "gateway"], env))
        for port in ports:
            _wait_until_listening(port)
        return Running(ports[0], processes, [psutil.Process(nats.pid)], ports)

    return start


def program(*command: str, redis: bool = False) -> Callable[[ExitStack], Running]:
    """Return what starts one of the peers' programs, with a Redis of its own where it needs one."""

    def start(stack: ExitStack) -> Running:
        port = free_port()
        env = {**os.environ, "PORT": str(port), "NODE_ENV": "production"}
        brokers = []
        if redis:
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
            server = RedisServer(folder / "redis")
            server.start()
            stack.callback(server.stop)
            os.sched_setaffinity(server.pid, LOAD_CORES)
            brokers.append(psutil.Process(server.pid))
            env["REDIS_URL"] = server.url
        process = _spawn(stack, list(command), env)
        _wait_until_listening(port)
        return Running(port, [process], brokers, [port])

    return start


def _spawn(stack: ExitStack, command: list[str], env: dict[str, str]) -> psutil.Process:
    child = subprocess.Popen(command, env=env, preexec_fn=pinned(SERVER_CORES))  # noqa: PLW1509  # no threads here

    def stop() -> None:
        child.terminate()
        try:
            child.wait(10)
        except subprocess.TimeoutExpired:
            child.kill()
            child.wait()

    stack.callback(stop)
    return psutil.Process(child.pid)


def _wait_until_listening(port: int) -> None:
    deadline = time.monotonic() + _READY_S
    while True:
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
        except OSError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.05)
        else:
            return


_MODULES = PROGRAMS / "node_modules"
_BUN = _MODULES / ".bin" / "bun"


def _compiled_loop() -> str:
    target = PROGRAMS / "epoll_loop"
    source = PROGRAMS / "epoll_loop.c"
    if not target.exists() or target.stat().st_mtime < source.stat().st_mtime:
        subprocess.run(["cc", "-O2", "-o", str(target), str(source)], check=True)  # noqa: S607  # the system's compiler
    return str(target)


def _c_loop(stack: ExitStack) -> Running:
    return program(_compiled_loop())(stack)


PEERS = {
    peer.name: peer
    for peer in (
        Peer("tidings", Rooms(), tidings(), room="live:bench"),
        Peer("tidings durable", Rooms(), tidings(), room="bench"),
        Peer("bun", Rooms(), program(str(_BUN), str(PROGRAMS / "bun_native.ts")), available=_BUN.exists),
        Peer(
            "bun + redis",
            Rooms(),
            program(str(_BUN), str(PROGRAMS / "bun_redis.ts"), redis=True),
            available=_BUN.exists,
        ),
        Peer(
            "socket.io + redis",
            SocketIo(),
            program("node", str(PROGRAMS / "socketio_redis.mjs"), redis=True),
            available=lambda: _MODULES.exists() and shutil.which("node") is not None,
        ),
        Peer(
            "python-socketio + redis",
            SocketIo(),
            program(sys.executable, str(PROGRAMS / "socketio_python.py"), redis=True),
        ),
        Peer("starlette loop", Rooms(), program(sys.executable, str(PROGRAMS / "starlette_loop.py"))),
        Peer("C epoll loop", Rooms(), _c_loop, available=lambda: shutil.which("cc") is not None),
    )
}
