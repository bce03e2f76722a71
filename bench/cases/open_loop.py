"""One room at a fixed rate: latency from when a message was due to when a member had it.

An open loop: messages are due at fixed times, whether or not the server keeps up, and latency counts from the due time, so
a stall is charged to every message it delayed (no coordinated omission). Each message carries its number.
"""

import time
from dataclasses import dataclass

from hdrh.histogram import HdrHistogram

from bench.launch import Peer, Running
from bench.load.clients import Clients
from bench.load.dialects import MARK, content

_MAX_US = 60_000_000
_NUMBER = 8  # digits after the mark


@dataclass(frozen=True)
class LatencyFigures:
    """Milliseconds from due to received, over a sample of members."""

    p50_ms: float
    p99_ms: float
    p999_ms: float
    cpu_us_per_delivery: float
    lost: int


def measure(
    peer: Peer, server: Running, *, members: int, rate: float, seconds: float, stalled: int = 0
) -> LatencyFigures:
    """Publish `rate` messages per second to a room of `members`; `stalled` more members never read."""
    clients = Clients(peer.dialect, server.port)
    try:
        fds = clients.connect(members + 1 + stalled, lambda _number: peer.room)
        deaf = [clients.forget(fd) for fd in fds[members + 1 :]]
        try:
            return _run(peer, server, clients, fds[members], members, rate, seconds)
        finally:
            for sock in deaf:
                sock.close()
    finally:
        clients.close()


def _run(
    peer: Peer, server: Running, clients: Clients, publisher: int, members: int, rate: float, seconds: float
) -> LatencyFigures:
    histogram = HdrHistogram(1, _MAX_US, 3)
    total = int(rate * seconds)
    clients.drain()
    base = time.perf_counter() + 0.1
    body = content()[1 + _NUMBER :]
    messages = [
        peer.dialect.publish(peer.room, f"{MARK.decode()}{number:0{_NUMBER}d}{body}")
        for number in range(total)
    ]
    own = 0

    def on_data(fd: int, data: memoryview, marks: int) -> None:
        nonlocal own
        if fd == publisher:
            own += marks
            return
        if not marks:
            return
        now = time.perf_counter()
        raw = bytes(data)
        at = raw.find(MARK)
        while at >= 0:
            number = raw[at + 1 : at + 1 + _NUMBER]
            if number.isdigit():
                histogram.record_value(max(1, int((now - base - int(number) / rate) * 1e6)))
            at = raw.find(MARK, at + 1)

    sock = clients.sockets[publisher]
    cpu = server.cpu_s()
    sent = delivered = 0
    while sent < total:
        due = base + sent / rate
        wait = due - time.perf_counter()
        if wait <= 0:
            sock.setblocking(True)
            sock.sendall(messages[sent])
            sock.setblocking(False)
            sent += 1
            continue
        delivered += clients.poll(min(wait, 0.05), on_data)
    quiet = time.perf_counter()
    while time.perf_counter() - quiet < 0.5:
        if found := clients.poll(0.05, on_data):
            delivered += found
            quiet = time.perf_counter()
    cpu = server.cpu_s() - cpu
    expected = total * members
    return LatencyFigures(
        histogram.get_value_at_percentile(50) / 1000,
        histogram.get_value_at_percentile(99) / 1000,
        histogram.get_value_at_percentile(99.9) / 1000,
        cpu / expected * 1e6,
        expected - (delivered - own),
    )
