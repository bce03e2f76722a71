"""Detects a dead connection that no close has reported. Pure: times are passed in.

After one heartbeat interval of silence the client sends a `heartbeat` that the server answers. A busy loop turns late,
and a sleeping laptop not at all: a late turn proves nothing about the server, so the probe is repeated once before the
connection counts as dead.
"""

from typing import Literal

Verdict = Literal["fine", "probe", "dead"]

TURN_S = 5.0
_LATE_S = 2 * TURN_S


class Watchdog:
    """Watches one connection. `probes`: whether it can probe; if not, it is dead after three silent intervals."""

    def __init__(self, now: float, interval: float, answer: float, *, probes: bool) -> None:
        self._interval = interval
        self._answer = answer
        self._probes = probes
        self._turn_at = now
        self._probed_at: float | None = None
        self._patience = 1
        self.heard_at = now

    def on_heard(self, now: float) -> None:
        """Something arrived from the server."""
        self.heard_at = now
        self._probed_at = None
        self._patience = 1

    def turn(self, now: float) -> Verdict:
        """Return the verdict. Call it every `TURN_S`."""
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
        """Probe now, because a request was not answered or the machine woke."""
        if not self._probes:
            return "fine"
        self._probed_at = now
        return "probe"
