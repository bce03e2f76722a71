"""Acknowledged publishes: messages stored and confirmed, per second."""

import time
from dataclasses import dataclass

from bench.launch import Peer, Running
from bench.load.clients import Clients
from bench.load.dialects import content


@dataclass(frozen=True)
class PublishFigures:
    """`ack` received for each; the room has one other member."""

    acks_per_s: float
    cpu_us_per_ack: float
    lost: int


def measure(
    peer: Peer, server: Running, *, publishers: int, outstanding: int, seconds: float
) -> PublishFigures:
    """Let `publishers` publish to rooms of their own with `outstanding` unacknowledged messages each."""
    clients = Clients(peer.dialect, server.port)
    try:
        fds = clients.connect(publishers, lambda number: f"{peer.room}-{number}")
        clients.drain()
        texts = {fd: peer.dialect.publish(f"{peer.room}-{index}", content()) for index, fd in enumerate(fds)}
        acked = sent = 0
        stopping = False

        def on_data(fd: int, data: memoryview, _marks: int) -> None:
            nonlocal acked, sent
            found = bytes(data).count(b'"ack"')
            acked += found
            if found and not stopping:
                clients.sockets[fd].sendall(texts[fd] * found)
                sent += found

        began, cpu = time.perf_counter(), server.cpu_s()
        for fd in fds:
            clients.sockets[fd].sendall(texts[fd] * outstanding)
            sent += outstanding
        while time.perf_counter() - began < seconds:
            clients.poll(0.5, on_data)
        elapsed, rate = time.perf_counter() - began, 0.0
        rate = acked / elapsed
        stopping = True
        quiet = time.perf_counter()
        while acked < sent and time.perf_counter() - quiet < 5:
            clients.poll(0.1, on_data)
        cpu = server.cpu_s() - cpu
        return PublishFigures(rate, cpu / max(1, acked) * 1e6, sent - acked)
    finally:
        clients.close()
