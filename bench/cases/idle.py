"""Connections that only exist: what they cost to make, and to keep."""

import time
from dataclasses import dataclass

from bench.launch import Peer, Running
from bench.load.clients import Clients


@dataclass(frozen=True)
class IdleFigures:
    """Each connection is connected, welcomed and joined to a room of ten."""

    connects_per_s: float
    cpu_us_per_connect: float
    kib_per_connection: float


def measure(peer: Peer, server: Running, *, connections: int, window: int = 64) -> IdleFigures:
    """Connect, join, and look at the server's memory once it has settled."""
    # A first hundred pays for what is loaded once.
    warm = Clients(peer.dialect, server.port)
    warm.connect(100, lambda number: f"{peer.room}-warm-{number // 10}")
    warm.close()
    time.sleep(1.0)
    before = server.memory()
    clients = Clients(peer.dialect, server.port)
    try:
        began, cpu = time.perf_counter(), server.cpu_s()
        clients.connect(connections, lambda number: f"{peer.room}-{number // 10}", window)
        elapsed, cpu = time.perf_counter() - began, server.cpu_s() - cpu
        clients.drain(1.0)
        grown = server.memory() - before
        return IdleFigures(connections / elapsed, cpu / connections * 1e6, grown / connections / 1024)
    finally:
        clients.close()
