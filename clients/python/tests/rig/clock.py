"""A clock that advances on request, and random numbers that are always 0.5."""

import asyncio
import heapq
from collections.abc import Callable
from dataclasses import dataclass, field

# Enough turns of the loop for anything that needs no time to happen.
_TURNS = 60


@dataclass(order=True)
class FakeTimer:
    """One timer, due at a time that only `pass_` reaches."""

    due: float
    number: int
    callback: Callable[[], None] = field(compare=False)
    cancelled: bool = field(default=False, compare=False)

    def cancel(self) -> None:
        self.cancelled = True


class FakeClock:
    """Timers run in order, each at its time; what they set off happens before the next."""

    def __init__(self) -> None:
        self._wall = 1_795_996_800.0
        self._elapsed = 0.0  # what timers know of; a sleep moves the wall alone
        self._timers: list[FakeTimer] = []
        self._count = 0

    def now(self) -> float:
        return self._wall

    def random(self) -> float:
        return 0.5

    def call_later(self, delay: float, callback: Callable[[], None]) -> FakeTimer:
        self._count += 1
        timer = FakeTimer(self._elapsed + delay, self._count, callback)
        heapq.heappush(self._timers, timer)
        return timer

    @property
    def pending(self) -> int:
        return sum(not timer.cancelled for timer in self._timers)

    def sleep(self, seconds: float) -> None:
        """Let time go by in which nothing runs, as on a laptop that sleeps."""
        self._wall += seconds

    async def pass_(self, seconds: float = 0.0) -> None:
        """Let everything happen that happens within a time."""
        end = self._elapsed + seconds
        await settle()
        while self._timers and self._timers[0].due <= end + 1e-9:
            timer = heapq.heappop(self._timers)
            if timer.cancelled:
                continue
            self._move(timer.due)
            timer.callback()
            await settle()
        self._move(end)

    def _move(self, to: float) -> None:
        self._wall += max(0.0, to - self._elapsed)
        self._elapsed = max(self._elapsed, to)


async def settle() -> None:
    """Let everything happen that needs no time."""
    for _ in range(_TURNS):
        await asyncio.sleep(0)
