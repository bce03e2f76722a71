"""One room at a fixed rate: latency from a message's due time to its receipt by a member.

An open loop: messages are due at fixed times, whether or not the server keeps up. Latency counts from the due time, so a
stall counts for every message that it delays (no coordinated omission). Each message carries its number.
"""

import time
from array import array
from collections.abc import Callable
from dataclasses import dataclass

from hdrh.histogram import HdrHistogram

from bench.launch import Peer, Running
from bench.load.clients import Clients
from bench.load.contents import MARK, content
from bench.load.meter import Meter

_MAX_US = 120_000_000
_NUMBER = 8  # digits after the mark


@dataclass(frozen=True)
class LatencyFigures:
    """Milliseconds from due to received, at every member."""

    p50_ms: float
    p99_ms: float
    p999_ms: float
    deliveries_per_s: float
    cpu_us_per_delivery: float
    server_utilisation: float
    load_utilisation: float
    lost: int


class Arrivals:
    """Arrival times by message: stored while messages arrive, counted afterwards."""

    def __init__(self, publisher: int) -> None:
        self.delivered = 0
        self._publisher = publisher
        self._times = array("d")
        self._numbers: list[bytes] = []
        self._cut: dict[int, bytes] = {}  # by connection: a number whose end is in the next read

    def on_data(self, fd: int, data: memoryview, marks: int) -> None:
        if fd == self._publisher:
            return
        if fd in self._cut:
            begun = self._cut.pop(fd)
            self._keep(fd, begun + bytes(data[: _NUMBER - len(begun)]))
        if not marks:
            return
        self.delivered += marks
        raw = bytes(data)
        at = raw.find(MARK)
        while at >= 0:
            self._keep(fd, raw[at + 1 : at + 1 + _NUMBER])
            at = raw.find(MARK, at + 1)

    def _keep(self, fd: int, number: bytes) -> None:
        if len(number) < _NUMBER:
            self._cut[fd] = number
            return
        if not number.isdigit():  # not a message of this case
            self.delivered -= 1
            return
        self._numbers.append(number)
        self._times.append(time.perf_counter())

    @property
    def last(self) -> float:
        """Time of the last arrival."""
        return self._times[-1] if self._times else time.perf_counter()

    def latencies(self, base: float, rate: float) -> HdrHistogram:
        """Return microseconds since each message's due time."""
        histogram = HdrHistogram(1, _MAX_US, 3)
        for number, at in zip(self._numbers, self._times, strict=True):
            histogram.record_value(min(_MAX_US, max(1, int((at - base - int(number) / rate) * 1e6))))
        return histogram


def measure(peer: Peer, server: Running, *, members: int, rate: float, seconds: float) -> LatencyFigures:
    """Publish `rate` messages per second to a room of `members`."""
    with Clients(peer.dialect, server.port) as clients:
        fds = clients.connect(members + 1, lambda _: peer.room)
        clients.drain()
        return run(peer, server, clients, fds[-1], members=members, rate=rate, seconds=seconds)


def run(
    peer: Peer,
    server: Running,
    clients: Clients,
    publisher: int,
    *,
    members: int,
    rate: float,
    seconds: float,
    meanwhile: Callable[[float], None] = lambda _elapsed: None,
) -> LatencyFigures:
    """Publish to connected members; `meanwhile` is called from time to time with the elapsed seconds."""
    total = max(1, int(rate * seconds))
    body = content()[1 + _NUMBER :]
    messages = [
        peer.dialect.publish(peer.room, f"{MARK.decode()}{number:0{_NUMBER}d}{body}")
        for number in range(total)
    ]
    arrivals = Arrivals(publisher)
    base = time.perf_counter() + 0.1
    meter = Meter(server)
    sent = 0
    while sent < total:
        now = time.perf_counter()
        meanwhile(now - base)
        wait = base + sent / rate - now
        if wait <= 0:
            clients.send(publisher, messages[sent])
            sent += 1
            continue
        clients.poll(min(wait, 0.05), arrivals.on_data)
    lap = meter.lap()
    expected = total * members
    clients.settle(arrivals.on_data, lambda: arrivals.delivered >= expected)
    cpu_us = meter.cpu_us(arrivals.delivered)  # before the percentiles take their time
    histogram = arrivals.latencies(base, rate)
    return LatencyFigures(
        p50_ms=histogram.get_value_at_percentile(50) / 1000,
        p99_ms=histogram.get_value_at_percentile(99) / 1000,
        p999_ms=histogram.get_value_at_percentile(99.9) / 1000,
        deliveries_per_s=arrivals.delivered / max(1e-9, arrivals.last - base),
        cpu_us_per_delivery=cpu_us,
        server_utilisation=lap.server_utilisation,
        load_utilisation=lap.load_utilisation,
        lost=expected - arrivals.delivered,
    )
