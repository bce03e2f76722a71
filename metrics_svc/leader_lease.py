"""The leader lease, and the fleet's clock that comes with it.

The lease lives two seconds and is renewed every 0.7 s, so a dead leader is replaced within 2.5 s. Each new holder gets a
higher term, every write names its term, and the store rejects a term that has ended: a suspended holder can do no
harm. A failover of Redis may lose the last term and lead to a slower clock, so every replica asks for a term above the
highest that it has seen.

While Redis is unavailable no replica holds the lease, and none publishes: otherwise two could announce different
alerts about the same seconds. Every replica keeps its closed seconds, for `evaluation_loop.BACKLOG_S`.
"""

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass, field

import structlog

from metrics_svc.store import MetricsStore, MetricsStoreUnavailable

log = structlog.get_logger(__name__)

TTL_MS = 2000
RENEW_S = 0.7
# Readiness fails after so long without an answer from Redis.
STALE_S = 3.0
# Per look at Redis' clock, about twice a second. Replicas that agree stay within a few milliseconds anyway.
MAX_CORRECTION_S = 0.05


class FleetClock:
    """One time for all replicas, in seconds since 1970: Redis' clock, extrapolated by the monotonic clock.

    Replicas with different clocks would count the same report in different seconds, and a takeover would repeat or skip
    seconds. The time never runs backwards: after the first look at Redis' clock, corrections are slewed.
    """

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
        """Correct the time by Redis' clock; `asked` and `answered` are monotonic.

        The clock was read somewhere between the two, so a difference within that span is no error.
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


@dataclass(eq=False)
class LeaderLease:
    """The lease of one replica. `holder` must be unique to this process."""

    _store: MetricsStore
    holder: str
    _clock: FleetClock
    _monotonic: Callable[[], float] = time.monotonic
    _term: int = 0
    _highest: int = 0  # the highest known term, of any holder
    _valid_until: float = 0.0
    _answered_at: float = float("-inf")
    _unavailable: bool = False
    _acquired: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def term(self) -> int:
        """The term of the lease while it is certainly held, else 0."""
        return self._term if self._monotonic() < self._valid_until else 0

    @property
    def reachable(self) -> bool:
        return self._monotonic() - self._answered_at < STALE_S

    async def run(self) -> None:
        """Renew or acquire the lease until cancelled."""
        while True:
            pause_s = await self.attempt()
            await asyncio.sleep(pause_s)

    async def wait_for_term(self, timeout_s: float) -> bool:
        """Wait for a new term of this replica, at most `timeout_s`; return whether one began."""
        try:
            async with asyncio.timeout(timeout_s):
                await self._acquired.wait()
        except TimeoutError:
            return False
        self._acquired.clear()
        return True

    async def attempt(self) -> float:
        """Renew or acquire once; return the seconds until the next attempt."""
        asked = self._monotonic()
        try:
            grant = await self._store.acquire(self.holder, TTL_MS, self._highest)
        except MetricsStoreUnavailable as fault:
            if not self._unavailable:
                log.warning("lease cannot be renewed", reason=str(fault))
            self._unavailable = True
            return RENEW_S / 2
        answered = self._monotonic()
        self._answered_at = answered
        self._unavailable = False
        self._highest = max(self._highest, grant.newest)
        self._clock.observe(grant.clock_s, asked, answered)
        if not grant.term:
            self.lose()
            return max(0.01, min(RENEW_S, grant.left_ms / 1000 + 0.01))
        if grant.term != self._term:
            log.info("lease acquired", term=grant.term)
            self._acquired.set()
        self._term = grant.term
        # From before the request: the store's two seconds cannot have begun earlier.
        self._valid_until = asked + TTL_MS / 1000
        return RENEW_S

    def lose(self) -> None:
        """Note that another replica has the lease."""
        if self._term:
            log.warning("lease lost", term=self._term)
        self._term = 0

    async def release(self) -> None:
        """Release the lease, so that the next replica need not wait until it expires."""
        term, self._term = self._term, 0
        if term:
            try:
                await self._store.release(self.holder, term)
            except MetricsStoreUnavailable as fault:
                log.info("lease not released; it expires by itself", reason=str(fault))
