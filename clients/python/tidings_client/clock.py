"""Time and chance, so that tests can own both. All times are seconds."""

import asyncio
import random
import time
from collections.abc import Callable
from typing import Protocol


class Timer(Protocol):
    """Something that will happen unless it is cancelled."""

    def cancel(self) -> None: ...


class Clock(Protocol):
    """What the client knows of time."""

    def now(self) -> float:
        """Seconds since 1970: it goes on while a laptop sleeps, as a monotonic clock may not."""
        ...

    def call_later(self, delay: float, callback: Callable[[], None]) -> Timer: ...

    def random(self) -> float:
        """From 0 up to, but without, 1."""
        ...


class SystemClock:
    """The clock of the machine and the timers of the running loop."""

    def now(self) -> float:
        return time.time()

    def call_later(self, delay: float, callback: Callable[[], None]) -> Timer:
        return asyncio.get_running_loop().call_later(delay, callback)

    def random(self) -> float:
        return random.random()
