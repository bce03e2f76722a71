"""A circuit breaker: asks nothing of a service that has just failed several times, then tries again with one request.

Pure: `now` (seconds of any monotonic clock) is passed in.

```
state      event      next     why
closed     failed     closed   until `threshold` failures came one after the other, then open
closed     succeeded  closed   and the count of failures starts over
half open  succeeded  closed
half open  failed     open     for twice as long, at most `max_open_s`
open       succeeded  closed   an answer to a request that did not wait
open       failed     open     late: changes nothing
```

An open breaker that is asked for permission when its time is over is half open: one request may pass, to see.
"""

from dataclasses import dataclass
from enum import Enum


class State(Enum):
    """What a breaker does with requests. The values are those of the metric."""

    CLOSED = 0
    HALF_OPEN = 1
    OPEN = 2


class Event(Enum):
    """What a breaker hears."""

    SUCCEEDED = "succeeded"
    FAILED = "failed"


# (state, event) -> next state, once `threshold` failures have come together.
TRANSITIONS: dict[tuple[State, Event], State] = {
    (State.CLOSED, Event.SUCCEEDED): State.CLOSED,
    (State.CLOSED, Event.FAILED): State.OPEN,
    (State.OPEN, Event.SUCCEEDED): State.CLOSED,
    (State.OPEN, Event.FAILED): State.OPEN,
    (State.HALF_OPEN, Event.SUCCEEDED): State.CLOSED,
    (State.HALF_OPEN, Event.FAILED): State.OPEN,
}


@dataclass(frozen=True, slots=True)
class Tolerance:
    """How much a breaker takes: failures in a row, and seconds until it tries again."""

    threshold: int = 3
    open_s: float = 0.5
    max_open_s: float = 2.0
    trial_s: float = 5.0  # a trial that is not heard of for so long is given up, and another may pass


class Breaker:
    """One service's breaker. Ask `permits` before each request, and report how it went."""

    __slots__ = ("_failures", "_open_s", "_until", "state", "tolerance")

    def __init__(self, tolerance: Tolerance) -> None:
        self.tolerance = tolerance
        self.state = State.CLOSED
        self._failures = 0
        self._open_s = tolerance.open_s
        self._until = 0.0

    def permits(self, now: float) -> bool:
        """Whether a request may be sent now; of a half-open breaker one is the trial."""
        if self.state is State.CLOSED:
            return True
        if now < self._until:
            return False
        self.state = State.HALF_OPEN
        self._until = now + self.tolerance.trial_s
        return True

    def succeeded(self) -> None:
        """Report that the service answered."""
        self.state = TRANSITIONS[self.state, Event.SUCCEEDED]
        self._failures = 0
        self._open_s = self.tolerance.open_s

    def failed(self, now: float) -> None:
        """Report that the service did not answer, or said that it cannot."""
        self._failures += 1
        if self.state is State.CLOSED and self._failures < self.tolerance.threshold:
            return
        was, self.state = self.state, TRANSITIONS[self.state, Event.FAILED]
        if was is State.OPEN:
            return
        if was is State.HALF_OPEN:
            self._open_s = min(2 * self._open_s, self.tolerance.max_open_s)
        self._until = now + self._open_s
