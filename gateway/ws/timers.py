"""Timers shared by all connections: pings and idle time-outs, and time-outs of equal length."""

import asyncio
from collections.abc import Callable
from itertools import cycle
from typing import Generic, Protocol, TypeVar

import structlog

from services.telemetry import MetricName, counter
from services.wire.codes import CloseCode

log = structlog.get_logger(__name__)

T = TypeVar("T")


class Pinged(Protocol):
    """A connection as the keepalive sees it."""

    last_received: float

    def ping(self) -> None: ...

    def close(self, code: CloseCode) -> None: ...

    def abort(self) -> None: ...


class Keepalive:
    """Pings and idle time-outs of all connections. Call `tick(now)` once a second.

    Browsers throttle the timers of hidden tabs, so the server pings. A connection that sends nothing for
    `idle_timeout_s`, not even a pong, is dead. Connections are dealt over as many slots as the ping interval has
    seconds, and each second serves one slot: no timer per connection, and no burst of pings.
    """

    def __init__(self, ping_interval_s: float, idle_timeout_s: float) -> None:
        self._slots: list[dict[Pinged, None]] = [{} for _ in range(max(1, round(ping_interval_s)))]
        self._next_slot = cycle(range(len(self._slots)))
        self._slot_of: dict[Pinged, int] = {}
        self._due_slot = cycle(range(len(self._slots)))
        self._idle_timeout_s = idle_timeout_s

    def __len__(self) -> int:
        return len(self._slot_of)

    def add(self, connection: Pinged) -> None:
        """Watch a connection."""
        slot = self._slot_of[connection] = next(self._next_slot)
        self._slots[slot][connection] = None

    def discard(self, connection: Pinged) -> None:
        """Forget a connection, if known."""
        slot = self._slot_of.pop(connection, None)
        if slot is not None:
            del self._slots[slot][connection]

    def tick(self, now: float) -> None:
        """Ping the connections of the next slot, and close those that have been silent too long.

        A connection for which that fails is aborted, and the others are served.
        """
        for connection in list(self._slots[next(self._due_slot)]):
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


class TimeoutQueue(Generic[T]):
    """Calls `on_timeout` for each item that was added `limit_s` ago and not discarded since. One timer for all."""

    def __init__(self, limit_s: float, on_timeout: Callable[[T], None]) -> None:
        self._limit_s = limit_s
        self._on_timeout = on_timeout
        self._due: dict[T, float] = {}  # in the order of their ends, because all have the same time
        self._timer: asyncio.TimerHandle | None = None
        self._loop = asyncio.get_running_loop()

    def __len__(self) -> int:
        return len(self._due)

    def add(self, item: T) -> None:
        """Start the time of an item."""
        self._due[item] = self._loop.time() + self._limit_s
        if self._timer is None:
            self._timer = self._loop.call_later(self._limit_s, self._on_timer)

    def discard(self, item: T) -> None:
        """Stop its time, if it runs."""
        self._due.pop(item, None)

    def _on_timer(self) -> None:
        self._timer = None
        now = self._loop.time()
        for item, due in list(self._due.items()):
            if due > now:
                self._timer = self._loop.call_later(due - now, self._on_timer)
                return
            # One that times out may discard others.
            if self._due.pop(item, None) is not None:
                self._on_timeout(item)
