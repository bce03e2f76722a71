"""A closed loop: N messages outstanding, so that the server sets the rate."""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

from bench.launch import Running
from bench.load.clients import Clients
from bench.load.meter import Meter


@dataclass(frozen=True)
class FanoutFigures:
    """Deliveries are counted at all members; CPU is user and system time."""

    deliveries_per_s: float
    cpu_us_per_delivery: float
    broker_us_per_delivery: float
    server_utilisation: float
    load_utilisation: float
    lost: int


class Publisher:
    """The client that publishes, and its messages in turn."""

    def __init__(self, clients: Clients, fd: int, messages: Sequence[bytes]) -> None:
        self.fd = fd
        self.sent = 0
        self._clients = clients
        self._messages = itertools.cycle(messages)

    def send(self, count: int) -> None:
        """Publish `count` messages in one piece."""
        self._clients.send(self.fd, b"".join(itertools.islice(self._messages, count)))
        self.sent += count


def closed_loop(
    server: Running,
    clients: Clients,
    publisher: Publisher,
    members: Sequence[int],
    *,
    depth: int,
    seconds: float,
) -> FanoutFigures:
    """Keep `depth` messages outstanding for `seconds`.

    One member, in the middle of the order of joins, sets the pace: each message that it receives triggers the next one,
    like a publisher that waits for its own copy. The last of all deliveries would sound stricter, but then the number of
    messages that a server finds waiting and joins in one write depends on the load's own turns. CPU counts until
    everything has arrived, so that all work is included.
    """
    pacemaker = members[len(members) // 2]
    delivered = seen = 0
    publisher.sent = 0

    def on_data(fd: int, _data: memoryview, found: int) -> None:
        nonlocal delivered, seen
        if fd == pacemaker:
            seen += found
        if fd != publisher.fd:  # some peers echo to the publisher
            delivered += found

    meter = Meter(server)
    publisher.send(depth)
    while meter.elapsed_s < seconds:
        clients.poll(0.5, on_data)
        if (behind := seen + depth - publisher.sent) > 0:
            publisher.send(behind)
    lap, in_time = meter.lap(), delivered
    expected = publisher.sent * len(members)
    clients.settle(on_data, lambda: delivered >= expected)
    return FanoutFigures(
        deliveries_per_s=in_time / lap.elapsed_s,
        cpu_us_per_delivery=meter.cpu_us(delivered),
        broker_us_per_delivery=meter.broker_us(delivered),
        server_utilisation=lap.server_utilisation,
        load_utilisation=lap.load_utilisation,
        lost=expected - delivered,
    )
