"""Expires what is due, every half second. Every replica sweeps; none needs to lead (ADR 0006).

A replica sweeps only while it is on the bus: one that cannot hear gateways would take them for dead.
"""

import asyncio
import itertools
import random
import time
from collections.abc import Callable
from dataclasses import dataclass

import structlog

from presence_svc.announcer import Announcer
from presence_svc.changes import PresenceStoreUnavailable
from presence_svc.store import PresenceStore
from services.telemetry import MetricName, counter, gauge

log = structlog.get_logger(__name__)

INTERVAL_S = 0.5
STALE_S = 3.0  # a sweep may take two time-outs of Redis before the store counts as out of reach
COUNT_EVERY = 10


@dataclass(eq=False)
class Sweeper:
    """Sweeps the store, publishes what that changed, and judges by it whether the store is reachable."""

    _store: PresenceStore
    _announcer: Announcer
    _clock: Callable[[], float] = time.monotonic
    _succeeded_at: float = float("-inf")
    _reachable: bool | None = None

    @property
    def store_healthy(self) -> bool:
        """Whether the store answered the last sweep, within `STALE_S`."""
        return bool(self._reachable) and self._clock() - self._succeeded_at < STALE_S

    async def run(self) -> None:
        """Sweep until cancelled. Jitter spreads replicas out, so that together they sweep more often."""
        for round_number in itertools.count():
            try:
                if not self._announcer.bus_healthy:
                    await self._count()
                else:
                    await self.sweep()
                    if round_number % COUNT_EVERY == 0:
                        # Counts are never wrong, unless by a fault of ours.
                        if wrong := await self._store.audit():
                            counter(MetricName.PRESENCE_CORRECTED).inc(wrong)
                            log.error("wrong presence counts corrected", counts=wrong)
                        await self._count()
            except PresenceStoreUnavailable as fault:
                self._failed(fault)
            await asyncio.sleep(INTERVAL_S * random.uniform(0.8, 1.2))

    async def sweep(self) -> None:
        """Expire everything that is due now. Raises PresenceStoreUnavailable."""
        more = True
        while more:
            swept = await self._store.sweep()
            self._announcer.announce(swept.changes)
            for changes in swept.unacked:
                counter(MetricName.PRESENCE_REPUBLISHED).inc()
                self._announcer.announce(changes)
            self._succeeded()
            more = swept.more

    async def _count(self) -> None:
        stats = await self._store.stats()
        self._succeeded()
        gauge(MetricName.PRESENCE_USERS).set(stats.users)
        gauge(MetricName.PRESENCE_CONNECTIONS).set(stats.connections)
        gauge(MetricName.PRESENCE_ROOMS).set(stats.rooms)
        gauge(MetricName.PRESENCE_GATEWAYS).set(stats.gateways)

    def _succeeded(self) -> None:
        self._succeeded_at = self._clock()
        if not self._reachable:
            log.info("store reachable")
        self._reachable = True

    def _failed(self, fault: PresenceStoreUnavailable) -> None:
        counter(MetricName.PRESENCE_STORE_FAULTS).inc()
        if self._reachable is not False:
            log.warning("store unreachable", reason=str(fault))
        self._reachable = False
