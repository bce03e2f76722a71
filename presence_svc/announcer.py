"""Publishing what steps of the store changed, and confirming it once the bus has it.

A step's changes wait in the store until they are confirmed. A replica that dies between its step and the bus, or
whose answer from Redis was lost, leaves them to whoever sweeps next: everything is published at least once.
"""

import asyncio

import structlog

from presence_svc import announcements
from presence_svc.changes import Changes
from presence_svc.policy import PresenceStore, StoreUnavailable
from services.bus.client import Bus
from services.bus.errors import BusError, PayloadTooLarge, Unavailable
from services.settings import Settings
from services.telemetry import MetricName, counter

log = structlog.get_logger(__name__)

# A diff goes to every follower; smaller ones let other messages pass between them.
MAX_DIFF_BYTES = 256 * 1024
# Confirmations gather for so long: at any rate of steps they cost a flush and a script twenty times a second.
GATHER_S = 0.05
MAX_CONFIRMED_AT_ONCE = 1000


class Announcer:
    """Publishes changes in the order in which it is given them."""

    def __init__(self, bus: Bus, settings: Settings, store: PresenceStore) -> None:
        self._bus = bus
        self._subjects = settings.subjects
        self._namespace_of = settings.namespace_of
        self._store = store
        self._published: list[int] = []
        self._wake = asyncio.Event()

    @property
    def bus_healthy(self) -> bool:
        """Whether gateways can be heard, and hear us."""
        return self._bus.healthy and self._bus.connected

    def announce(self, changes: Changes) -> None:
        """Publish to everyone whom the changes concern. Does not wait, and does not raise: what the bus does not take
        is not confirmed, and so is published again."""
        if changes.step == 0:
            return
        counter(MetricName.PRESENCE_CHANGES).inc(len(changes.users))
        limit = min(MAX_DIFF_BYTES, self._bus.max_payload)
        for subject, payload in announcements.messages(changes, self._subjects, self._namespace_of, limit):
            try:
                self._bus.publish(subject, payload)
            except Unavailable as fault:
                counter(MetricName.PRESENCE_UNPUBLISHED).inc()
                log.warning("presence changes not published yet", step=changes.step, reason=str(fault))
                return
            except (
                PayloadTooLarge
            ) as fault:  # again it would be too large again; followers of that scope fetch it anew
                counter(MetricName.PRESENCE_UNPUBLISHED).inc()
                log.error("presence change is larger than the bus takes", subject=subject, reason=str(fault))
        self._published.append(changes.step)
        self._wake.set()

    async def run(self) -> None:
        """Confirm what was published, until cancelled."""
        while True:
            await self._wake.wait()
            await asyncio.sleep(GATHER_S)
            self._wake.clear()
            await self.confirm()

    async def confirm(self) -> None:
        """Confirm what was published so far, if the bus and the store can say so; else it is published again."""
        steps, self._published = self._published, []
        try:
            await self._bus.flush()
            for first in range(0, len(steps), MAX_CONFIRMED_AT_ONCE):
                await self._store.confirm(steps[first : first + MAX_CONFIRMED_AT_ONCE])
        except (BusError, StoreUnavailable) as fault:
            log.info("published presence changes not confirmed", steps=len(steps), reason=str(fault))
