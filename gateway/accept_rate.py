"""How many new connections a gateway takes in a second. Time is passed in.

When a gateway dies, all its clients come to the others at once. Each handshake costs a fifth of a millisecond, so a few
thousand in one second would starve those who are connected already. Those above the rate are told when to come back,
before any work is done for them, each a place later than the one before: they return at the rate at which they will
be let in, not all together once more.
"""

import structlog

from gateway.limits import TokenBucket

log = structlog.get_logger(__name__)

_LEAST_S = 1.0  # `Retry-After` counts in seconds
_LONGEST_S = 30.0
_LOG_EVERY_S = 1.0


class Admission:
    """Lets in `rate` per second, with bursts of twice that; a rate of 0 lets everyone in until `close`."""

    def __init__(self, rate: float, now: float) -> None:
        self._rate = rate
        self._bucket = TokenBucket(rate, now)
        self._queue_until = now  # when the last of those sent away may be back
        self._closed = False
        self._unlogged = 0
        self._logged_at = float("-inf")

    def close(self) -> None:
        """Let nobody in any more: this gateway stops, and another one will do."""
        self._closed = True

    def wait_s(self, now: float) -> float:
        """Return 0.0 for a connection that is let in, else the seconds after which it may try again."""
        if self._closed:
            return _LEAST_S
        if not self._bucket.take(now):
            return 0.0
        self._queue_until = max(self._queue_until, now) + 1 / self._rate
        self._log(now)
        return min(_LONGEST_S, _LEAST_S + self._queue_until - now)

    def _log(self, now: float) -> None:
        self._unlogged += 1
        if now - self._logged_at >= _LOG_EVERY_S:
            log.warning("more connections than the accept rate", refused=self._unlogged, rate=self._rate)
            self._unlogged, self._logged_at = 0, now
