"""Many rooms of two: the cost of a message without fan-out."""

from dataclasses import dataclass

from bench.launch import Peer, Running
from bench.load.clients import Clients
from bench.load.contents import content
from bench.load.meter import Meter


@dataclass(frozen=True)
class PairFigures:
    """Messages published and delivered to the other one of the room."""

    messages_per_s: float
    cpu_us_per_message: float
    broker_us_per_message: float
    server_utilisation: float
    load_utilisation: float
    lost: int


def measure(peer: Peer, server: Running, *, rooms: int, seconds: float) -> PairFigures:
    """Let one member of each room publish, one message outstanding per room."""
    with Clients(peer.dialect, server.port) as clients:
        fds = clients.connect(2 * rooms, lambda number: f"{peer.room}-{number // 2}")
        clients.drain()
        speakers, listeners = fds[::2], fds[1::2]
        speaker_of = dict(zip(listeners, speakers, strict=True))
        messages = {
            fd: peer.dialect.publish(f"{peer.room}-{index}", content()) for index, fd in enumerate(speakers)
        }
        sent = received = 0
        stopping = False

        def send(fd: int) -> None:
            nonlocal sent
            clients.sockets[fd].sendall(messages[fd])
            sent += 1

        def on_data(fd: int, _data: memoryview, marks: int) -> None:
            nonlocal received
            if fd in messages:  # an acknowledgement, or a peer that echoes
                return
            received += marks
            if not stopping:
                for _ in range(marks):
                    send(speaker_of[fd])

        meter = Meter(server)
        for fd in messages:
            send(fd)
        while meter.elapsed_s < seconds:
            clients.poll(0.5, on_data)
        stopping = True
        lap, in_time = meter.lap(), received
        clients.settle(on_data, lambda: received >= sent)
        return PairFigures(
            messages_per_s=in_time / lap.elapsed_s,
            cpu_us_per_message=meter.cpu_us(received),
            broker_us_per_message=meter.broker_us(received),
            server_utilisation=lap.server_utilisation,
            load_utilisation=lap.load_utilisation,
            lost=sent - received,
        )
