"""A token bucket, the rate limit of one connection. Time is passed in."""


class TokenBucket:
    """Allows `rate` per second and bursts of twice that; a rate of 0 allows everything."""

    __slots__ = ("_at", "_rate", "_tokens")

    def __init__(self, rate: float, now: float) -> None:
        self._rate = rate
        self._tokens = 2 * rate
        self._at = now

    def take(self, now: float) -> float:
        """Take one token. Return 0.0, or the seconds until there will be one (and take none)."""
        rate = self._rate
        if not rate:
            return 0.0
        tokens = min(2 * rate, self._tokens + (now - self._at) * rate)
        self._at = now
        if tokens >= 1.0:
            self._tokens = tokens - 1.0
            return 0.0
        self._tokens = tokens
        return (1.0 - tokens) / rate
