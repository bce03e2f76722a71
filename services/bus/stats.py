"""What a process knows of its bus: counts, and whether messages come through. A leaf without the bus's client."""

from dataclasses import dataclass


@dataclass(slots=True)
class BusStats:
    """Counts since the bus was made, over all its connections."""

    published: int = 0
    published_bytes: int = 0
    publish_refused: int = 0
    """Publishes answered Unavailable or PayloadTooLarge at once: nothing was queued."""
    received: int = 0
    received_bytes: int = 0
    requests: int = 0
    unanswered: int = 0
    """Requests without a reply: no responders, too late, connection lost."""
    stored: int = 0
    """Publishes that a stream acknowledged."""
    not_stored: int = 0
    """Publishes that a stream did not acknowledge: refused, late, connection lost."""
    disconnects: int = 0
    reconnects: int = 0
    rebuilds: int = 0
    """The client had closed for good and was replaced."""
    discarded: int = 0
    """Messages accepted but not yet written when the connection was lost; never sent late."""
    callback_errors: int = 0
    permission_violations: int = 0
    slow_consumers: int = 0
    client_errors: int = 0
    """Other faults that the client reported, failed attempts to reconnect included."""
    probes_lost: int = 0


class Probe:
    """Whether the bus carries messages: the process publishes to itself and waits for the echo.

    `is_connected` is only the client's state, and stays true when the server is frozen or the read loop has ended.
    Times are seconds of one monotonic clock.
    """

    def __init__(self, stale_s: float, now: float) -> None:
        self._stale_s = stale_s
        self.on_echo(now)  # the connection was just made with an answered ping

    def on_echo(self, now: float) -> None:
        """Note that a probe arrived."""
        self._last_echo = now

    def healthy(self, now: float) -> bool:
        """Whether a probe arrived within the last `stale_s`."""
        return now - self._last_echo < self._stale_s
