"""Notices that a connection is dead though nobody said so. Pure: times are passed in.

After a silence as long as the server's ping interval we ask for a sign of life. A busy loop turns late and a sleeping
laptop not at all: a turn that comes late says nothing about the other side, so the question is asked afresh, once,
before silence is believed.
"""

from typing import Literal

Verdict = Literal["fine", "probe", "dead"]

TURN_S = 5.0
_LATE_S = 2 * TURN_S


class Watchdog:
    """Judges one connection. `probes`: whether it can be asked; if not, three silent intervals are the end."""

    def __init__(self, now: float, interval: float, answer: float, *, probes: bool) -> None:
        self._interval = interval
        self._answer = answer
        self._probes = probes
        self._turn_at = now
        self._probed_at: float | None = None
        self._patience = 1
        self.heard_at = now

    def on_heard(self, now: float) -> None:
        """Something came from the server."""
        self.heard_at = now
        self._probed_at = None
        self._patience = 1

    def turn(self, now: float) -> Verdict:
        """Judge; call every `TURN_S`."""
        late = now - self._turn_at > _LATE_S
        self._turn_at = now
        if not self._probes:
            if late:
                self.heard_at = max(self.heard_at, now - 2 * self._interval)
            return "dead" if now - self.heard_at > 3 * self._interval else "fine"
        if self._probed_at is None:
            return self.probe(now) if now - self.heard_at >= self._interval else "fine"
        if now - self._probed_at < self._answer:
            return "fine"
        if late and self._patience > 0:
            self._patience -= 1
            return self.probe(now)
        return "dead"

    def probe(self, now: float) -> Verdict:
        """Ask for a sign of life now, because there is reason to doubt."""
        if not self._probes:
            return "fine"
        self._probed_at = now
        return "probe"
