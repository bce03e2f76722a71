"""Which replica ticks: the one that holds the lease.

The lease lives two seconds and is renewed every 0.7 s; candidates ask again when it would run out. So a
replica that dies is replaced within 2.5 s. Each new holder gets a higher term, every write names its term,
and the store refuses a term that is over: a holder that was asleep can do no harm. A failover of Redis may
lose the last term and lead to a slower clock; so every replica remembers the highest term it has seen, also
while another holds the lease, and asks for one above.

While Redis is away nobody can prove to hold the lease, so nobody ticks, and the page says that its data is
late. To tick on would mean that two replicas may judge the same seconds and announce different alerts.
Nothing measured is lost for the length of `ticker.BACKLOG_S`: every replica keeps its closed seconds and
writes them afterwards.
"""

import asyncio
import time
from collections.abc import Callable

import structlog

from metrics_svc.clock import FleetClock
from metrics_svc.store import MetricsStore, MetricsStoreUnavailable

log = structlog.get_logger(__name__)

TTL_MS = 2000
RENEW_S = 0.7
# Readiness fails when Redis has not answered for so long.
STALE_S = 3.0


class LeaderLease:
    """Holds, or tries to get, the lease for one replica. `holder` must be unique to this process."""

    def __init__(
        self,
        store: MetricsStore,
        holder: str,
        clock: FleetClock,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self.holder = holder
        self._store = store
        self._clock = clock
        self._monotonic = monotonic
        self._term = 0
        self._newest = 0  # the highest term known here, of any holder
        self._valid_until = 0.0
        self._answered_at = monotonic() - STALE_S
        self._away = False
        self._taken = asyncio.Event()

    @property
    def term(self) -> int:
        """The term of the lease while it is certainly held, else 0."""
        return self._term if self._monotonic() < self._valid_until else 0

    @property
    def reachable(self) -> bool:
        """Whether the store answered lately."""
        return self._monotonic() - self._answered_at < STALE_S

    async def run(self) -> None:
        """Renew or ask, for ever."""
        while True:
            pause_s = await self.attempt()
            await asyncio.sleep(pause_s)

    async def taken_within(self, timeout_s: float) -> bool:
        """Wait until a new term begins here, for at most `timeout_s`; say whether one did."""
        try:
            async with asyncio.timeout(timeout_s):
                await self._taken.wait()
        except TimeoutError:
            return False
        self._taken.clear()
        return True

    async def attempt(self) -> float:
        """Renew or ask once; return after how many seconds to do so again."""
        asked = self._monotonic()
        try:
            grant = await self._store.acquire(self.holder, TTL_MS, self._newest)
        except MetricsStoreUnavailable as fault:
            if not self._away:
                log.warning("lease cannot be renewed", reason=str(fault))
            self._away = True
            return RENEW_S / 2
        answered = self._monotonic()
        self._answered_at = answered
        self._away = False
        self._newest = max(self._newest, grant.newest)
        self._clock.observe(grant.clock_s, asked, answered)
        if not grant.term:
            self.lose()
            return max(0.01, min(RENEW_S, grant.left_ms / 1000 + 0.01))
        if grant.term != self._term:
            log.info("lease taken", term=grant.term)
            self._taken.set()
        self._term = grant.term
        # Counted from before the question: the store's two seconds cannot have begun earlier.
        self._valid_until = asked + TTL_MS / 1000
        return RENEW_S

    def lose(self) -> None:
        """Note that the lease is another's."""
        if self._term:
            log.warning("lease lost", term=self._term)
        self._term = 0

    async def release(self) -> None:
        """Give the lease up, so that the next replica need not wait for it to run out."""
        term, self._term = self._term, 0
        if term:
            try:
                await self._store.release(self.holder, term)
            except MetricsStoreUnavailable as fault:
                log.info("lease not released; it runs out by itself", reason=str(fault))
