"""One of a thousand clients stops reading: the effect on the others, the cost, and its close code.

Everything is measured twice on the same server, first while that client still reads. In both runs it is also alone in a
second room with 3.2 MB/s, so that it exceeds the server's limit within seconds.
"""

import socket
import time
from dataclasses import dataclass

from bench.cases import open_loop
from bench.launch import Peer, Running
from bench.load.clients import Clients

_RATE = 50.0  # messages/s to the room of all
_FLOOD_RATE = 200.0  # messages/s to the room of the one
_FLOOD_BYTES = 16_384
_SAMPLE_S = 0.05
_RECEIVE_BUFFER = 16_384  # small, so that unread messages wait in the server
_LISTEN_S = 10.0
_CLOSE = 0x88  # FIN and the opcode of a close frame (RFC 6455 §5.5.1)


@dataclass(frozen=True)
class StalledFigures:
    """Figures of the others, with a client that does not read, and before. `close_code` is 0 if it was not closed."""

    p99_ms: float
    p99_before_ms: float
    p99_ratio: float
    memory_growth_mb: float
    memory_growth_before_mb: float
    close_code: int
    lost: int
    load_utilisation: float


class _Watch:
    """Publishes to the second room, and reads the server's memory."""

    def __init__(self, server: Running, clients: Clients, feeder: int, message: bytes) -> None:
        self._server = server
        self._clients = clients
        self._feeder = feeder
        self._message = message
        self._fed = 0
        self._looked_at = -1.0
        self._first = server.memory()
        self._most = self._first

    @property
    def growth_mb(self) -> float:
        return (self._most - self._first) / 1e6

    def __call__(self, elapsed: float) -> None:
        if elapsed >= self._fed / _FLOOD_RATE:
            self._clients.send(self._feeder, self._message)
            self._fed += 1
        if elapsed - self._looked_at >= _SAMPLE_S:
            self._looked_at = elapsed
            self._most = max(self._most, self._server.memory())


def measure(peer: Peer, server: Running, *, members: int, seconds: float) -> StalledFigures:
    """Measure the members' latency while the client reads, then while it does not."""
    flood_room = f"{peer.room}-flood"
    # No mark: what the one receives is no delivery to the others.
    flood = peer.dialect.publish(flood_room, "0" * _FLOOD_BYTES)
    with Clients(peer.dialect, server.port) as clients:
        fds = clients.connect(members + 1, lambda _: peer.room)
        feeder = clients.connect(1, lambda _: flood_room)[0]
        one = clients.connect(1, lambda _: peer.room, receive_buffer=_RECEIVE_BUFFER)[0]
        clients.send(one, peer.dialect.join(flood_room))
        clients.drain()
        runs = []
        for stalls in (False, True):
            deaf = clients.forget(one) if stalls else None
            watch = _Watch(server, clients, feeder, flood)
            figures = open_loop.run(
                peer,
                server,
                clients,
                fds[-1],
                members=members if stalls else members + 1,
                rate=_RATE,
                seconds=seconds,
                meanwhile=watch,
            )
            runs.append((figures, watch.growth_mb))
    assert deaf is not None
    with deaf:
        code = _close_code(deaf)
    (before, before_mb), (after, after_mb) = runs
    return StalledFigures(
        p99_ms=after.p99_ms,
        p99_before_ms=before.p99_ms,
        p99_ratio=after.p99_ms / before.p99_ms,
        memory_growth_mb=after_mb,
        memory_growth_before_mb=before_mb,
        close_code=code,
        lost=before.lost + after.lost,
        load_utilisation=max(before.load_utilisation, after.load_utilisation),
    )


def _close_code(deaf: socket.socket) -> int:
    """Read to the end; return the code of the last close frame, or 0."""
    received = b""
    deaf.settimeout(1.0)
    deadline = time.monotonic() + _LISTEN_S
    while time.monotonic() < deadline:
        try:
            data = deaf.recv(1 << 20)
        except (TimeoutError, ConnectionError):
            break
        if not data:
            break
        received = (received + data)[-1000:]
        if code := closing_code(received):
            return code
    return closing_code(received)


def closing_code(received: bytes) -> int:
    """Return the code of the close frame with which `received` ends, or 0."""
    at = received.rfind(_CLOSE)
    while at >= 0:
        if len(received) >= at + 4 and at + 2 + received[at + 1] == len(received):
            return int.from_bytes(received[at + 2 : at + 4], "big")
        at = received.rfind(_CLOSE, 0, at)
    return 0
