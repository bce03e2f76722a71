"""Faults with plain names: context managers that break something and repair it at the end.

Processes are started beside the event loop, so that clients in it go on recording meanwhile.
"""

import shutil
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from tests.support.cluster import Breakable, ServiceProcess, aside
from tests.support.deadline import eventually
from tests.support.tcp_proxy import TcpProxy
from tidings_cli.local.child_server import write_private
from tidings_cli.local.servers import NatsServer

STOP_S = 12.0


@asynccontextmanager
async def killed(process: Breakable) -> AsyncIterator[None]:
    """Kill a process as a crash would, and start it again on its data."""
    await aside(process.kill)
    try:
        yield
    finally:
        await aside(process.start)


@asynccontextmanager
async def paused(process: Breakable) -> AsyncIterator[None]:
    """Freeze a process: its connections stay, and nothing is answered."""
    process.pause()
    try:
        yield
    finally:
        process.resume()


@asynccontextmanager
async def stopped(process: ServiceProcess) -> AsyncIterator[None]:
    """Stop a process of ours in order (SIGTERM) and start it again; it must end with code 0 and in time."""
    process.terminate()
    try:
        code = await eventually_ended(process)
        assert code == 0, f"{process.name} ended with {code}:\n{process.log_tail()}"
        yield
    finally:
        await aside(process.start)


async def eventually_ended(process: ServiceProcess, timeout_s: float = STOP_S) -> int:
    """Wait for a process's end without holding up the event loop; return its exit code."""
    await eventually(lambda: not process.running, f"the end of {process.name}", timeout_s)
    return process.wait(0)


@asynccontextmanager
async def server_stopped(server: NatsServer) -> AsyncIterator[None]:
    """Stop a server in order and start it again on its data."""
    await aside(server.stop)
    try:
        yield
    finally:
        await aside(server.start)


@asynccontextmanager
async def store_wiped(server: NatsServer) -> AsyncIterator[None]:
    """Kill NATS and start it again without anything it stored."""
    await aside(server.kill)
    try:
        yield
    finally:
        await aside(lambda: shutil.rmtree(server.directory / "jetstream"))
        await aside(server.start)


@asynccontextmanager
async def connections_limited(server: NatsServer, limit: int) -> AsyncIterator[None]:
    """Lower the server's connection limit while it runs: it answers -ERR to the connections above it."""
    before = server.extra_config
    _reload(server, f"{before}\nmax_connections: {limit}\n")
    try:
        yield
    finally:
        _reload(server, before)


def _reload(server: NatsServer, extra_config: str) -> None:
    server.extra_config = extra_config
    write_private(server._config_path, server._configuration())
    assert server._process is not None
    server._process.send_signal(signal.SIGHUP)


@asynccontextmanager
async def partitioned(proxy: TcpProxy) -> AsyncIterator[None]:
    """Pause a proxy: nothing passes, nothing is closed; waiting bytes pass afterwards."""
    proxy.stall()
    try:
        yield
    finally:
        proxy.heal()


@asynccontextmanager
async def half_open(proxy: TcpProxy) -> AsyncIterator[None]:
    """Break a proxy: bytes are lost, and its connections end afterwards."""
    proxy.half_open()
    try:
        yield
    finally:
        proxy.heal()


@asynccontextmanager
async def delayed(proxy: TcpProxy, seconds: float) -> AsyncIterator[None]:
    """Make a link slow."""
    proxy.delay(seconds)
    try:
        yield
    finally:
        proxy.heal()


async def reset_connections(proxy: TcpProxy) -> None:
    """End all connections through a proxy with RST."""
    proxy.reset()
