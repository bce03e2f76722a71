"""Telling presence_svc which connections exist here.

One batch is in flight at a time and repeated until it is answered; what changes meanwhile goes into the next one.
A batch goes out at least each `presence_renew_s`, so it renews the lease too: cost follows change and the number of
gateways, not the number of connections. When presence_svc does not know the lease (any more), everything is announced
afresh (ADR 0005).
"""

import asyncio
import random
from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from typing import Protocol

import msgspec
import structlog

from gateway.asking import Asking
from services.bus.errors import BusError, Refused, TooLarge
from services.settings import Settings
from services.wire.codes import ErrorCode
from services.wire.records import Status
from services.wire.rpc import (
    PRESENCE_APPLY,
    AnyPresenceOp,
    Connected,
    DataSet,
    Disconnected,
    Joined,
    Left,
    PresenceApplied,
    PresenceBatch,
    StatusSet,
)

log = structlog.get_logger(__name__)

_BATCH_OPS = 500
_BATCH_BYTES = 262_144  # a quarter of what NATS takes in one message unless configured otherwise
_BATCH_ACTIVE = 2000
_MAX_WAITING_OPS = 20_000  # more than that, and announcing everything afresh is cheaper and bounded
_RETRY_S = 0.25
_RETRY_MAX_S = 2.0


class Announced(Protocol):
    """A connection, as far as presence is concerned."""

    def presence_ops(self) -> Iterable[AnyPresenceOp]:
        """Return what to say of this connection to somebody who knows nothing."""


class PresenceLink:
    """Owns the lease of this gateway."""

    def __init__(
        self,
        asking: Asking,
        settings: Settings,
        gateway: str,
        boot: str,
        connections: Callable[[], Iterable[Announced]],
    ) -> None:
        self._asking = asking
        self._settings = settings
        self._gateway = gateway
        self._boot = boot
        self._connections = connections
        self._number = 0
        self._waiting: list[AnyPresenceOp] = []
        self._active: dict[str, None] = {}
        self._announcement: Iterator[AnyPresenceOp] | None = None
        self._in_flight: PresenceBatch | None = None
        self._fresh = True
        self._changed = asyncio.Event()
        self._closing = False
        self.reachable = False
        self.on_applied: Callable[[PresenceApplied], None] | None = None

    # --- what connections report; cheap, and in order ---

    def connected(self, connection_id: str, user_id: str, username: str) -> None:
        """A connection exists."""
        self._add(Connected(connection_id=connection_id, user_id=user_id, username=username))

    def disconnected(self, connection_id: str, *, clean: bool) -> None:
        """A connection is gone; `clean` if its client said so."""
        self._add(Disconnected(connection_id=connection_id, clean=clean))

    def joined(self, connection_id: str, room: str) -> None:
        """A connection is a member of a room."""
        self._add(Joined(connection_id=connection_id, room=room))

    def left(self, connection_id: str, room: str) -> None:
        """A connection left a room."""
        self._add(Left(connection_id=connection_id, room=room))

    def status(self, connection_id: str, status: Status) -> None:
        """A user chose a status."""
        self._add(StatusSet(connection_id=connection_id, status=status))

    def custom_data(self, connection_id: str, data: object) -> None:
        """A user replaced their custom data."""
        self._add(DataSet(connection_id=connection_id, custom_data=data))

    def active(self, user_id: str) -> None:
        """A user did something."""
        self._active[user_id] = None

    # --- the lease ---

    async def run(self) -> None:
        """Send batches until cancelled."""
        delay_s = _RETRY_S
        while True:
            await self._wait_for_work()
            self._in_flight = self._next_batch()
            while not await self._send(self._in_flight):
                self._bound_waiting()
                # Full jitter: gateways that lost the same service must not come back in step.
                await asyncio.sleep(random.uniform(0.05, delay_s))  # noqa: S311  # no secret
                delay_s = min(2 * delay_s, _RETRY_MAX_S)
            self._in_flight = None
            delay_s = _RETRY_S

    async def close(self) -> None:
        """Say, once and briefly, what is still unsaid: the connections that just ended."""
        unanswered, self._in_flight = self._in_flight, None
        if unanswered is not None and not await self._send(unanswered):
            return
        while self._waiting:
            if not await self._send(self._next_batch()):
                return

    def _bound_waiting(self) -> None:
        """Forget what waits when it is too much: the announcement that replaces it costs what is here now."""
        if len(self._waiting) > _MAX_WAITING_OPS:
            self._waiting.clear()
            self._announce_all()

    def _add(self, op: AnyPresenceOp) -> None:
        self._waiting.append(op)
        self._changed.set()

    @property
    def _more_active(self) -> bool:
        return len(self._active) >= _BATCH_ACTIVE

    async def _wait_for_work(self) -> None:
        if self._waiting or self._announcement is not None or self._fresh or self._more_active:
            return
        self._changed.clear()
        try:
            async with asyncio.timeout(self._settings.presence_renew_s):
                await self._changed.wait()
        except TimeoutError:
            return  # time to renew

    def _next_batch(self) -> PresenceBatch:
        fresh, self._fresh = self._fresh, False
        if fresh:
            # Everything not yet said is part of the announcement: the connections as they are now.
            self._waiting.clear()
            self._announcement = iter([op for c in self._connections() for op in c.presence_ops()])
        ops: list[AnyPresenceOp] = []
        room = _BATCH_BYTES
        if self._announcement is not None:
            for op in self._announcement:
                ops.append(op)
                room -= _cost(op)
                if len(ops) == _BATCH_OPS or room <= 0:
                    break
            else:
                self._announcement = None
        if self._announcement is None:
            # What was said after the announcement began comes after it.
            taken = 0
            for op in islice(self._waiting, _BATCH_OPS - len(ops)):
                if room <= 0:
                    break
                room -= _cost(op)
                taken += 1
            ops += self._waiting[:taken]
            del self._waiting[:taken]
        active = list(islice(self._active, _BATCH_ACTIVE))
        for user_id in active:
            del self._active[user_id]
        self._number += 1
        return PresenceBatch(
            gateway=self._gateway, boot=self._boot, batch=self._number, fresh=fresh, ops=ops, active=active
        )

    async def _send(self, batch: PresenceBatch) -> bool:
        """Return whether the batch was answered."""
        try:
            applied = await self._asking.ask(PRESENCE_APPLY, batch, insist=True)
        except Refused as refusal:
            if refusal.code == ErrorCode.UNAVAILABLE.code:
                self._note_reachable(False, str(refusal))
                return False
            # Not for want of Redis: the service does not take what we say. Saying it again will not help.
            log.error("presence refused a batch", code=refusal.code, reason=refusal.message)
            self._announce_all()
            await asyncio.sleep(self._settings.presence_renew_s)
            return True
        except TooLarge as fault:
            # Sent again it would be too large again; what it said is lost to presence, and only that.
            log.error("presence batch is larger than the bus takes", size=fault.size, limit=fault.limit)
            return True
        except BusError as fault:
            self._note_reachable(False, str(fault))
            return False
        self._note_reachable(True, "")
        if not applied.known:
            log.info("presence does not know this gateway; announcing all connections")
            self._announce_all()
        if self.on_applied is not None:
            self.on_applied(applied)
        return True

    def _announce_all(self) -> None:
        self._fresh = True
        self._announcement = None
        self._changed.set()

    def _note_reachable(self, reachable: bool, reason: str) -> None:
        if reachable != self.reachable:
            self.reachable = reachable
            if reachable:
                log.info("presence is reachable")
            else:
                log.warning("presence is out of reach; will keep trying", reason=reason)


def _cost(op: AnyPresenceOp) -> int:
    """Return about how many bytes an op takes on the bus. All but custom data are short."""
    if isinstance(op, DataSet) and isinstance(op.custom_data, msgspec.Raw):
        return 256 + len(bytes(op.custom_data))
    return 256
