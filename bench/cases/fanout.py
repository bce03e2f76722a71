"""One room of many members, N messages outstanding: closed loop, as fast as the server goes."""

import time
from dataclasses import dataclass

from bench.launch import Peer, Running
from bench.load.clients import Clients
from bench.load.dialects import content


@dataclass(frozen=True)
class FanoutFigures:
    """Deliveries are counted at all members; CPU is the server's, user and system."""

    deliveries_per_s: float
    cpu_us_per_delivery: float
    broker_us_per_delivery: float
    lost: int


def measure(
    peer: Peer, server: Running, *, members: int, outstanding: list[int], seconds: float
) -> dict[int, FanoutFigures]:
    """Measure one room at several depths, on the same connections."""
    clients = Clients(peer.dialect, server.port)
    try:
        fds = clients.connect(members + 1, lambda _number: peer.room)
        publisher = fds[-1]
        clients.drain()
        return {
            depth: _closed_loop(peer, server, clients, publisher, fds[0], members, depth, seconds)
            for depth in outstanding
        }
    finally:
        clients.close()


def _closed_loop(
    peer: Peer,
    server: Running,
    clients: Clients,
    publisher: int,
    witness: int,
    members: int,
    depth: int,
    seconds: float,
) -> FanoutFigures:
    message = peer.dialect.publish(peer.room, content())
    sock = clients.sockets[publisher]
    sent = delivered = own = seen = 0

    def on_data(fd: int, _data: memoryview, marks: int) -> None:
        nonlocal own, seen
        if fd == publisher:
            own += marks  # some peers echo to the publisher
        elif fd == witness:
            seen += marks

    def send(count: int) -> None:
        nonlocal sent
        sock.setblocking(True)
        sock.sendall(message * count)
        sock.setblocking(False)
        sent += count

    began, cpu, broker = time.perf_counter(), server.cpu_s(), server.broker_cpu_s()
    send(depth)
    while time.perf_counter() - began < seconds:
        delivered += clients.poll(0.5, on_data)
        if (behind := seen + depth - sent) > 0:
            send(behind)
    elapsed = time.perf_counter() - began
    timed = delivered - own
    delivered += clients.drain()
    cpu, broker = server.cpu_s() - cpu, server.broker_cpu_s() - broker
    # `own` grows in the drain unseen; a peer that echoes delivers exactly one copy more per message.
    echoes = sent if own else 0
    lost = sent * members - (delivered - echoes)
    total = sent * members - lost
    return FanoutFigures(timed / elapsed, cpu / total * 1e6, broker / total * 1e6, lost)
