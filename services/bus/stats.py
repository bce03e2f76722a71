"""What a process knows of its bus: counts, and whether messages come through."""

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
    """Requests that ended without an answer: no responders, too late, connection lost."""
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
    """Whatever else the client reported, failed attempts to reconnect included."""
    probes_lost: int = 0


class Probe:
    """Whether the bus carries messages: the process publishes to itself and waits for the echo.

    `is_connected` is only the client's state, and stays true when the server is frozen or the read loop has ended.
    Pure bookkeeping; times in seconds of one monotonic clock.
    """

    def __init__(self, stale_s: float, now: float) -> None:
        self._stale_s = stale_s
        self._sent = 0
        self._last_return = now  # the connection was just made with an answered ping

    def next_payload(self) -> bytes:
        """Return the next probe's payload."""
        self._sent += 1
        return b"%d" % self._sent

    def on_echo(self, payload: bytes, now: float) -> None:
        """Note a probe that came back."""
        if payload.isdigit():
            self._last_return = now

    def healthy(self, now: float) -> bool:
        """Whether a probe came back within the last `stale_s`."""
        return now - self._last_return < self._stale_s
