"""Names of all limits, and rate limiters. Time is passed in."""

from collections.abc import Callable
from enum import StrEnum
from typing import Generic, TypeVar

import structlog

log = structlog.get_logger(__name__)

T = TypeVar("T")


class Limit(StrEnum):
    """Every limit that an untrusted client can reach, by the name under which it is counted (`docs/security.md`)."""

    ACCEPT_RATE = "accept_rate"
    REQUEST_RATE = "request_rate"
    TICKET_RATE = "ticket_rate"
    ADDRESS_CONNECTIONS = "address_connections"
    USER_CONNECTIONS = "user_connections"
    HEAD_BYTES = "head_bytes"
    HEAD_TIME = "head_time"
    BAD_REQUEST = "bad_request"
    PIPELINED = "pipelined"
    BODY_BYTES = "body_bytes"
    BODY_TIME = "body_time"
    EXPORTS = "exports"
    PUSHES = "pushes"
    TLS_HANDSHAKE = "tls_handshake"
    HANDSHAKE_TIME = "handshake_time"
    MESSAGE_BYTES = "message_bytes"
    CUSTOM_DATA_BYTES = "custom_data_bytes"
    MEMBER_DATA_BYTES = "member_data_bytes"
    MESSAGE_RATE = "message_rate"
    MESSAGE_BYTES_RATE = "message_bytes_rate"
    PRESENCE_RATE = "presence_rate"
    NAMESPACE_RATE = "namespace_rate"
    FLOODING = "flooding"
    FRAME_RATE = "frame_rate"
    JSON_DEPTH = "json_depth"
    MARKUP = "markup"
    ROOMS = "rooms"
    CONNECTION_CALLS = "connection_calls"
    METHOD_CALLS = "method_calls"
    CALLS = "calls"
    RECOVERIES = "recoveries"
    WRITE_BYTES = "write_bytes"
    WRITE_TIME = "write_time"
    IDLE = "idle"


MAX_KEYS = 50_000


class TokenBucket:
    """Allows `rate` per second and bursts of twice that; a rate of 0 allows everything."""

    __slots__ = ("_at", "_rate", "_tokens")

    def __init__(self, rate: float, now: float) -> None:
        self._rate = rate
        # A rate below one still allows single ones.
        self._tokens = max(1.0, 2 * rate)
        self._at = now

    def consume(self, now: float, cost: float = 1.0) -> float:
        """Take `cost` tokens, at most a burst. Return 0.0, or the seconds until there are as many (and take none)."""
        rate = self._rate
        if not rate:
            return 0.0
        burst = max(1.0, 2 * rate)
        tokens = min(burst, self._tokens + (now - self._at) * rate)
        self._at = now
        cost = min(cost, burst)
        if tokens >= cost:
            self._tokens = tokens - cost
            return 0.0
        self._tokens = tokens
        return (cost - tokens) / rate

    def charge(self, tokens: float, now: float) -> None:
        """Take tokens that are owed already, into debt if necessary: at most one burst."""
        self._tokens = min(max(1.0, 2 * self._rate), self._tokens + (now - self._at) * self._rate) - tokens
        self._tokens = max(self._tokens, -2 * self._rate)
        self._at = now


class Recent(Generic[T]):
    """A value for each key that was seen within the last `keep_s` seconds, at least.

    Older keys are forgotten a generation at a time, and earlier if one generation has `MAX_KEYS`: memory is bounded.
    """

    def __init__(self, keep_s: float, now: float) -> None:
        self._keep_s = keep_s
        self._recent: dict[str, T] = {}
        self._older: dict[str, T] = {}
        self._turns_at = now + keep_s

    def __len__(self) -> int:
        return len(self._recent) + len(self._older)

    def get(self, key: str, now: float, make: Callable[[], T]) -> T:
        """Return the value of a key, made on first use."""
        if now >= self._turns_at + self._keep_s:
            self._older, self._recent, self._turns_at = {}, {}, now + self._keep_s
        elif now >= self._turns_at or len(self._recent) >= MAX_KEYS:
            self._older, self._recent, self._turns_at = self._recent, {}, now + self._keep_s
        if key not in self._recent:
            self._recent[key] = self._older.pop(key) if key in self._older else make()
        return self._recent[key]


def refill_s(rate: float) -> float:
    """Return the seconds in which an empty bucket of this rate fills up."""
    return max(2.0, 1 / rate) if rate else 0.0


class KeyedBuckets:
    """A `TokenBucket` for each key: an address, a user.

    A bucket is kept until it is full again, or until too many keys are seen: a sender with so many addresses has no use
    for bursts.
    """

    def __init__(self, rate: float, now: float) -> None:
        self.rate = rate
        self._buckets: Recent[TokenBucket] = Recent(refill_s(rate), now)

    def __len__(self) -> int:
        return len(self._buckets)

    def consume(self, key: str, now: float) -> float:
        """Take one token of a key. Return 0.0, or the seconds until there will be one (and take none)."""
        if not self.rate:
            return 0.0
        return self._buckets.get(key, now, lambda: TokenBucket(self.rate, now)).consume(now)


class FloodDetector:
    """Distinguishes a client that exceeds its rate now and then from one that floods.

    Each refused message is a strike, and strikes are forgotten at the rate itself. More than `FLOOD_S` seconds' worth of
    them at once is a flood: three times the rate is one after some seconds, up to twice the rate never is.
    """

    FLOOD_S = 10.0

    __slots__ = ("_at", "_count", "_rate")

    def __init__(self, rate: float, now: float) -> None:
        self._rate = rate
        self._count = 0.0
        self._at = now

    def add(self, now: float) -> bool:
        """Count one refused message. True: this is a flood."""
        self._count = max(0.0, self._count - (now - self._at) * self._rate) + 1.0
        self._at = now
        return self._count > self.FLOOD_S * self._rate + 1.0


class AcceptRateLimiter:
    """Admits `rate` new connections per second, with bursts of twice that; a rate of 0 admits all until `close`.

    When a gateway dies, all its clients connect to the others at once. A handshake costs a fifth of a millisecond, so a
    few thousand in one second would starve the open connections. Connections above the rate are rejected before any
    work, each with a `Retry-After` one position later than the one before: they return at the rate that is admitted.
    """

    _MIN_S = 1.0  # `Retry-After` counts in seconds
    _MAX_S = 30.0
    _LOG_EVERY_S = 1.0

    def __init__(self, rate: float, now: float) -> None:
        self._rate = rate
        self._bucket = TokenBucket(rate, now)
        self._queue_until = now  # when the last rejected connection may return
        self._closed = False
        self._unlogged = 0
        self._logged_at = float("-inf")

    def close(self) -> None:
        """Reject all from now on."""
        self._closed = True

    def retry_after_s(self, now: float) -> float:
        """Return 0.0 for an admitted connection, else the seconds after which it may try again."""
        if self._closed:
            return self._MIN_S
        if not self._bucket.consume(now):
            return 0.0
        self._queue_until = max(self._queue_until, now) + 1 / self._rate
        self._log(now)
        return min(self._MAX_S, self._MIN_S + self._queue_until - now)

    def _log(self, now: float) -> None:
        self._unlogged += 1
        if now - self._logged_at >= self._LOG_EVERY_S:
            log.warning("more connections than the accept rate", refused=self._unlogged, rate=self._rate)
            self._unlogged, self._logged_at = 0, now
