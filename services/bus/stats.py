"""What the bus counts, for metrics and for tests."""

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
