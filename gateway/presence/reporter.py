"""Reports the connections of this gateway to presence_svc.

One batch is in flight at a time, and repeated until it is answered; later changes go into the next one. A batch is
sent at least each `presence_renew_s`, so it renews the lease too: the cost follows changes and the number of gateways,
not the number of connections. If presence_svc does not know the lease, all connections are announced again (ADR 0005).
"""

import asyncio
import random
from collections.abc import Callable, Iterable

import structlog

from gateway.presence.batch_queue import Announced, BatchQueue
from gateway.service_client import ServiceClient
from services.backoff import Backoff
from services.bus.errors import BusError, PayloadTooLarge, RequestRefused
from services.settings import Settings
from services.wire.codes import ErrorCode
from services.wire.rpc import PRESENCE_APPLY, AnyPresenceOp, PresenceApplied, PresenceBatch

log = structlog.get_logger(__name__)

_RETRY_S = 0.25
_RETRY_MAX_S = 1.0
# If one gateway is unknown, all may be: Redis lost its data. This spreads their announcements.
ANNOUNCE_WITHIN_S = 1.0


class PresenceReporter:
    """Sends the batches of this gateway, and so renews its lease."""

    def __init__(
        self,
        service_client: ServiceClient,
        settings: Settings,
        gateway: str,
        boot: str,
        connections: Callable[[], Iterable[Announced]],
    ) -> None:
        self._service_client = service_client
        self._settings = settings
        self._connections = connections
        self._queue = BatchQueue(gateway, boot)
        self.active = self._queue.active  # reports that a user is active
        self._in_flight: PresenceBatch | None = None
        self._pause_s = 0.0
        self._changed = asyncio.Event()
        self.reachable = False
        self.on_applied: Callable[[PresenceApplied], None] | None = None

    def report(self, op: AnyPresenceOp) -> None:
        """Report a change of a connection. Cheap, and in order."""
        self._queue.add(op)
        self._changed.set()

    async def run(self) -> None:
        """Send batches until cancelled."""
        backoff = Backoff(_RETRY_S, _RETRY_MAX_S, jitter=0.9)
        while True:
            pause_s, self._pause_s = self._pause_s, 0.0
            await asyncio.sleep(pause_s)
            await self._wait_for_work()
            self._in_flight = self._queue.next(self._connections())
            while not await self._send(self._in_flight):
                if self._queue.is_full:
                    self._queue.reannounce()
                await backoff.wait()
            self._in_flight = None
            backoff.reset()

    async def close(self) -> None:
        """Send what still waits, such as the connections that just ended, without retries."""
        unanswered, self._in_flight = self._in_flight, None
        if unanswered is not None and not await self._send(unanswered):
            return
        while self._queue.waiting and not self._queue.announces:
            if not await self._send(self._queue.next(())):
                return

    async def _wait_for_work(self) -> None:
        if self._queue.has_work:
            return
        self._changed.clear()
        try:
            async with asyncio.timeout(self._settings.presence_renew_s):
                await self._changed.wait()
        except TimeoutError:
            return  # time to renew

    async def _send(self, batch: PresenceBatch) -> bool:
        """Send a batch; return whether it is done, or must be repeated."""
        try:
            # Past the breaker: it is one request at a time, and detects when presence is back.
            applied = await self._service_client.call(PRESENCE_APPLY, batch, bypass_breaker=True)
        except PayloadTooLarge as fault:
            log.error(
                "presence batch is larger than the bus takes",
                size=fault.size,
                limit=fault.limit,
                operations=len(batch.ops),
            )
            self._queue.requeue(batch)
            return True
        except BusError as fault:
            if isinstance(fault, RequestRefused) and fault.code != ErrorCode.UNAVAILABLE.code:
                await self._on_refused(fault)
                return True
            self._note_reachable(False, str(fault))
            return False
        self._note_reachable(True, "")
        if not applied.known:
            log.info("presence does not know this gateway; announcing all connections")
            self._queue.reannounce()
            self._pause_s = random.uniform(0, ANNOUNCE_WITHIN_S)
        if self.on_applied is not None:
            self.on_applied(applied)
        return True

    async def _on_refused(self, refusal: RequestRefused) -> None:
        """The service answers and refuses the batch: repeating it would not help."""
        log.error("presence refused a batch", code=refusal.code, reason=refusal.message)
        if refusal.code == ErrorCode.CONFLICT.code:
            self._queue.use_own_lease()
        else:
            self._queue.reannounce()
        await asyncio.sleep(self._settings.presence_renew_s * random.uniform(0.5, 1))

    def _note_reachable(self, reachable: bool, reason: str) -> None:
        if reachable != self.reachable:
            self.reachable = reachable
            if reachable:
                log.info("presence is reachable")
            else:
                log.warning("presence is out of reach; will keep trying", reason=reason)
