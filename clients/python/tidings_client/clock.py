"""Time and random numbers, which tests replace. All times are seconds."""

import asyncio
import random
import time
from collections.abc import Callable
from typing import Protocol


class Timer(Protocol):
    """A scheduled call, which can be cancelled."""

    def cancel(self) -> None: ...


class Clock(Protocol):
    """The client's source of time and random numbers."""

    def now(self) -> float:
        """Seconds since 1970. It advances while a laptop sleeps; a monotonic clock may not."""
        ...

    def call_later(self, delay: float, callback: Callable[[], None]) -> Timer: ...

    def random(self) -> float:
        """A number from 0 to below 1."""
        ...


class SystemClock:
    """The clock of the machine and the timers of the running loop."""

    def now(self) -> float:
        return time.time()

    def call_later(self, delay: float, callback: Callable[[], None]) -> Timer:
        return asyncio.get_running_loop().call_later(delay, callback)

    def random(self) -> float:
        return random.random()
