"""One time for all replicas: Redis' clock, carried between looks at it by the monotonic clock.

Replicas on machines whose clocks differ would file the same report in different seconds, and a takeover would
repeat seconds or skip them. The time given out never runs backwards: after the first look, corrections are
slewed.
"""

import time
from collections.abc import Callable

# Per look at Redis' clock, about twice a second. Replicas that agree stay within a few milliseconds anyway.
MAX_CORRECTION_S = 0.05


class FleetClock:
    """Tells the time in seconds since 1970."""

    def __init__(
        self, wall: Callable[[], float] = time.time, monotonic: Callable[[], float] = time.monotonic
    ) -> None:
        self._monotonic = monotonic
        self._offset = wall() - monotonic()
        self._set = False
        self._last = 0.0

    def now(self) -> float:
        """Return the time; never less than before."""
        self._last = max(self._last, self._monotonic() + self._offset)
        return self._last

    def observe(self, store_s: float, asked: float, answered: float) -> None:
        """Take a look at Redis' clock into account; `asked` and `answered` are monotonic.

        The answer was given somewhere between the two, so a difference within that span says nothing.
        """
        first, self._set = not self._set, True
        span = (answered - asked) / 2
        error = store_s - (asked + span) - self._offset
        if abs(error) <= span:
            return
        if first:
            self._offset += error
            self._last = 0.0
        else:
            self._offset += max(-MAX_CORRECTION_S, min(MAX_CORRECTION_S, error))
