"""Delays between attempts: doubled up to a limit, with jitter, so that a fleet does not return in step.

A leaf: every retry loop imports it, and it imports nothing of ours. Source: Marc Brooker, "Exponential Backoff And Jitter", AWS Architecture Blog, 2015.
"""

import asyncio
import random

# 2 ** 16 times any first delay is over every limit in use; more would overflow a float in the end.
_MAX_DOUBLINGS = 16


def delay_s(attempt: int, first_s: float, longest_s: float, jitter: float = 0.5) -> float:
    """Return the delay before an attempt, counted from 0: `first_s` doubled each time, at most `longest_s`.

    `jitter` is the part of it left to chance: with 0.5 the delay lies between half of the ceiling and the ceiling.
    """
    ceiling: float = min(longest_s, first_s * 2.0 ** min(attempt, _MAX_DOUBLINGS))
    return ceiling * random.uniform(1.0 - jitter, 1.0)


class Backoff:
    """Delays of one retry loop. `reset` when an attempt has succeeded."""

    __slots__ = ("_attempts", "_first_s", "_jitter", "_longest_s")

    def __init__(self, first_s: float = 0.1, longest_s: float = 2.0, *, jitter: float = 0.5) -> None:
        self._first_s = first_s
        self._longest_s = longest_s
        self._jitter = jitter
        self._attempts = 0

    def next_s(self) -> float:
        """Return the delay before the next attempt."""
        delay = delay_s(self._attempts, self._first_s, self._longest_s, self._jitter)
        self._attempts += 1
        return delay

    async def wait(self) -> None:
        """Sleep for the next delay."""
        await asyncio.sleep(self.next_s())

    def reset(self) -> None:
        """Start again with the first delay."""
        self._attempts = 0
