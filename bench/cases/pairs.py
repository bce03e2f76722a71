"""Many rooms of two: what a message costs where fan-out saves nothing."""

import time
from dataclasses import dataclass

from bench.launch import Peer, Running
from bench.load.clients import Clients
from bench.load.dialects import content


@dataclass(frozen=True)
class PairFigures:
    """Messages published, delivered to the other one of the room."""

    messages_per_s: float
    cpu_us_per_message: float
    lost: int


def measure(peer: Peer, server: Running, *, rooms: int, seconds: float) -> PairFigures:
    """Let one member of each room publish, one message outstanding per room."""
    clients = Clients(peer.dialect, server.port)
    try:
        fds = clients.connect(2 * rooms, lambda number: f"{peer.room}-{number // 2}")
        clients.drain()
        speaker_of = {fds[2 * index + 1]: fds[2 * index] for index in range(rooms)}
        messages = {
            fds[2 * index]: peer.dialect.publish(f"{peer.room}-{index}", content()) for index in range(rooms)
        }
        sent = 0
        received = own = 0
        stopping = False

        def send(fd: int) -> None:
            nonlocal sent
            clients.sockets[fd].sendall(messages[fd])
            sent += 1

        def on_data(fd: int, _data: memoryview, marks: int) -> None:
            nonlocal received, own
            if fd in messages:
                own += marks
                return
            received += marks
            if marks and not stopping:
                for _ in range(marks):
                    send(speaker_of[fd])

        began, cpu = time.perf_counter(), server.cpu_s()
        for fd in messages:
            send(fd)
        while time.perf_counter() - began < seconds:
            clients.poll(0.5, on_data)
        elapsed = time.perf_counter() - began
        rate = received / elapsed
        stopping = True
        quiet = time.perf_counter()
        while received < sent and time.perf_counter() - quiet < 2:
            clients.poll(0.1, on_data)
        cpu = server.cpu_s() - cpu
        return PairFigures(rate, cpu / max(1, received) * 1e6, sent - received)
    finally:
        clients.close()
