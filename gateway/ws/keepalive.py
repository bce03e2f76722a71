"""Pings and idle time-outs of all connections, from one timer.

Browsers throttle the timers of hidden tabs, so the server pings. A connection that sends nothing for
`idle_timeout_s`, not even a pong, is gone without having said so. Connections are dealt over as many slots as the
ping interval has seconds, and each second serves one slot: no timer per connection, and no burst of pings.
"""

from itertools import cycle
from typing import Protocol

import structlog

from services.telemetry import MetricName, counter
from services.wire.codes import CloseCode

log = structlog.get_logger(__name__)


class Pinged(Protocol):
    """A connection as the keepalive sees it."""

    last_received: float

    def ping(self) -> None: ...

    def close(self, code: CloseCode) -> None: ...

    def abort(self) -> None: ...


class Keepalive:
    """Call `tick(now)` once a second."""

    def __init__(self, ping_interval_s: float, idle_timeout_s: float) -> None:
        self._slots: list[dict[Pinged, None]] = [{} for _ in range(max(1, round(ping_interval_s)))]
        self._deal = cycle(range(len(self._slots)))
        self._slot_of: dict[Pinged, int] = {}
        self._turn = cycle(range(len(self._slots)))
        self._idle_timeout_s = idle_timeout_s

    def __len__(self) -> int:
        return len(self._slot_of)

    def add(self, connection: Pinged) -> None:
        """Watch a connection."""
        slot = self._slot_of[connection] = next(self._deal)
        self._slots[slot][connection] = None

    def discard(self, connection: Pinged) -> None:
        """Forget a connection, if known."""
        slot = self._slot_of.pop(connection, None)
        if slot is not None:
            del self._slots[slot][connection]

    def tick(self, now: float) -> None:
        """Ping the connections whose turn it is, and close those that have been silent too long.

        A connection with which that fails is cut off, and the others have their turn.
        """
        for connection in list(self._slots[next(self._turn)]):
            try:
                if now - connection.last_received > self._idle_timeout_s:
                    connection.close(CloseCode.IDLE_TIMEOUT)
                else:
                    connection.ping()
            except Exception:
                log.exception("keepalive of a connection failed")
                counter(MetricName.CONNECTION_FAULTS).labels("keepalive").inc()
                self.discard(connection)
                connection.abort()
