"""Connections that have the same time to get something done, watched with one timer."""

import asyncio
from collections.abc import Callable
from typing import Generic, TypeVar

T = TypeVar("T")


class TimeoutQueue(Generic[T]):
    """Calls `on_late` with everyone who was added `limit_s` ago and not discarded since."""

    def __init__(self, limit_s: float, on_late: Callable[[T], None]) -> None:
        self._limit_s = limit_s
        self._on_late = on_late
        self._due: dict[T, float] = {}  # in the order of their ends, because all have the same time
        self._timer: asyncio.TimerHandle | None = None
        self._loop = asyncio.get_running_loop()

    def __len__(self) -> int:
        return len(self._due)

    def add(self, who: T) -> None:
        """Start somebody's clock."""
        self._due[who] = self._loop.time() + self._limit_s
        if self._timer is None:
            self._timer = self._loop.call_later(self._limit_s, self._on_timer)

    def discard(self, who: T) -> None:
        """Stop it, if it runs."""
        self._due.pop(who, None)

    def _on_timer(self) -> None:
        self._timer = None
        now = self._loop.time()
        for who, due in list(self._due.items()):
            if due > now:
                self._timer = self._loop.call_later(due - now, self._on_timer)
                return
            # Whoever is late may take others with it.
            if self._due.pop(who, None) is not None:
                self._on_late(who)
