"""Idle connections: the cost to open them, to keep them, and of a mass reconnect."""

import time
from dataclasses import dataclass

from bench.launch import Peer, Running
from bench.load.clients import Clients
from bench.load.dialects import places
from bench.load.meter import Meter

_AWAY_S = 0.2


@dataclass(frozen=True)
class IdleFigures:
    """Each connection is connected, welcomed and joined to a room of ten. A kibibyte is 1024 bytes."""

    connects_per_s: float
    cpu_us_per_connect: float
    broker_us_per_connect: float
    kib_per_connection: float
    server_utilisation: float
    load_utilisation: float


@dataclass(frozen=True)
class ReconnectFigures:
    """All connections break at once and reconnect: same users, same rooms, with positions."""

    reconnects_per_s: float
    seconds_until_all_back: float
    cpu_us_per_reconnect: float
    kib_per_connection_after: float
    server_utilisation: float
    load_utilisation: float
    not_recovered: int


def measure(
    peer: Peer, server: Running, *, connections: int, durable: bool, window: int = 64
) -> tuple[IdleFigures, ReconnectFigures]:
    """Connect and join, read the server's memory once it is stable, then break and reconnect all."""

    def room_of(number: int) -> str:
        return f"{peer.room}-{number // 10}"

    # A first hundred pays for what is loaded once.
    with Clients(peer.dialect, server.port) as warm:
        warm.connect(min(100, connections), lambda number: f"{peer.room}-warm-{number // 10}")
    time.sleep(1.0)
    before = server.memory()
    heard: list[bytes] = []
    again: list[bytes] = []
    with Clients(peer.dialect, server.port) as clients:
        meter = Meter(server)
        clients.connect(connections, room_of, window=window, heard=heard)
        lap = meter.lap()
        clients.drain(
            1.0
        )  # presence notifies the room's members of a join, which is part of a connection's cost
        idle = IdleFigures(
            connects_per_s=connections / lap.elapsed_s,
            cpu_us_per_connect=meter.cpu_us(connections),
            broker_us_per_connect=meter.broker_us(connections),
            kib_per_connection=(server.memory() - before) / connections / 1024,
            server_utilisation=lap.server_utilisation,
            load_utilisation=lap.load_utilisation,
        )
        meter = Meter(server)  # the work for lost connections is part of a reconnect's cost
    time.sleep(_AWAY_S)
    known = places(heard)
    with Clients(peer.dialect, server.port) as clients:
        began = meter.elapsed_s
        clients.connect(connections, room_of, window=window, places=known, heard=again)
        lap = meter.lap()
        clients.drain(1.0)
        back = ReconnectFigures(
            reconnects_per_s=connections / (lap.elapsed_s - began),
            seconds_until_all_back=lap.elapsed_s - began,
            cpu_us_per_reconnect=meter.cpu_us(connections),
            kib_per_connection_after=(server.memory() - before) / connections / 1024,
            server_utilisation=lap.server_utilisation,
            load_utilisation=lap.load_utilisation,
            not_recovered=sum(b'"recovered":true' not in data for data in again) if durable else 0,
        )
    return idle, back
