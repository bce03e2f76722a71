"""Acknowledged publishes: messages accepted (in durable rooms: stored) and acknowledged."""

import time
from dataclasses import dataclass

from bench.launch import Peer, Running
from bench.load.clients import Clients
from bench.load.contents import content
from bench.load.meter import Meter


@dataclass(frozen=True)
class PublishFigures:
    """Each publisher is alone in its room, so no copies are delivered."""

    acks_per_s: float
    cpu_us_per_ack: float
    broker_us_per_ack: float
    server_utilisation: float
    load_utilisation: float
    lost: int


def measure(
    peer: Peer, server: Running, *, publishers: int, outstanding: int, seconds: float
) -> PublishFigures:
    """Let `publishers` publish to rooms of their own with `outstanding` unacknowledged messages each."""
    with Clients(peer.dialect, server.port) as clients:
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

        meter = Meter(server)
        for fd in fds:
            clients.sockets[fd].sendall(texts[fd] * outstanding)
            sent += outstanding
        while meter.elapsed_s < seconds:
            clients.poll(0.5, on_data)
        stopping = True
        lap, in_time = meter.lap(), acked
        # Acknowledgements carry no mark, so `settle` would not see them.
        end = time.perf_counter() + 10.0
        while acked < sent and time.perf_counter() < end:
            clients.poll(0.1, on_data)
        return PublishFigures(
            acks_per_s=in_time / lap.elapsed_s,
            cpu_us_per_ack=meter.cpu_us(acked),
            broker_us_per_ack=meter.broker_us(acked),
            server_utilisation=lap.server_utilisation,
            load_utilisation=lap.load_utilisation,
            lost=sent - acked,
        )
