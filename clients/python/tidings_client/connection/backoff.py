"""How long to wait before an attempt."""

from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Backoff:
    """Most seconds before the first attempt, doubled for each one after it, and before any."""

    first: float = 0.5
    longest: float = 30.0


def delay_before(attempt: int, server_delay: float, limits: Backoff, random: Callable[[], float]) -> float:
    """Return any time up to a limit that doubles ("full jitter"), on top of what the server asked for.

    Clients who lost the same server do not come back in one wave.
    """
    limit = min(limits.longest, limits.first * 2.0 ** min(attempt, 30))
    return server_delay + random() * limit
