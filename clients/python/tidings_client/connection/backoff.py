"""The wait before an attempt to connect."""

from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Backoff:
    """Longest wait before the first attempt, doubled for each later one, and before any; in seconds."""

    first: float = 0.5
    longest: float = 30.0


def delay_before(attempt: int, server_delay: float, limits: Backoff, random: Callable[[], float]) -> float:
    """Return the wait in seconds: the server's, plus a random time up to a limit that doubles ("full jitter").

    The clients of a lost server then do not reconnect in one wave.
    """
    limit = min(limits.longest, limits.first * 2.0 ** min(attempt, 30))
    return server_delay + random() * limit
