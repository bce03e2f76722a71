"""Queue of reports to presence_svc: their order, and their batches. No I/O, no clock.

Batch numbers rise by exactly one within a boot: a number that is missing means to presence_svc that its store lost
data. So a number belongs to a batch until that batch has been answered.
"""

import secrets
from collections import OrderedDict, deque
from collections.abc import Iterable, Iterator
from typing import Protocol

import msgspec
import structlog

from services.telemetry import MetricName, counter
from services.wire.records import UNSET, Status
from services.wire.rpc import AnyPresenceOp, DataSet, Disconnected, PresenceBatch, StatusSet

log = structlog.get_logger(__name__)

MAX_OPS = 500
MAX_BYTES = 256 * 1024  # of operations, encoded: a quarter of what NATS takes unless configured otherwise
MAX_ACTIVE = 2000
MAX_ACTIVE_BYTES = 128 * 1024
# What waits while presence_svc is away.
MAX_WAITING = 20_000
MAX_ACTIVE_WAITING = 20_000

_encode = msgspec.json.Encoder().encode


class Announced(Protocol):
    """A connection, as far as presence is concerned."""

    connection_id: str

    def presence_ops(self) -> Iterable[AnyPresenceOp]:
        """Return the operations that announce this connection; none if it is not present."""


class Chosen:
    """What a connection's user chose to show, kept to be announced again. Times are monotonic, in seconds."""

    __slots__ = ("custom_data", "custom_data_at", "status")

    def __init__(self) -> None:
        self.status: Status | None = None
        self.custom_data: object = UNSET
        self.custom_data_at = 0.0

    def ops(self, connection_id: str, now: float) -> Iterator[AnyPresenceOp]:
        """Return the operations that announce it."""
        if self.status is not None:
            yield StatusSet(connection_id=connection_id, status=self.status)
        if self.custom_data is not UNSET:
            age_ms = round((now - self.custom_data_at) * 1000)
            yield DataSet(connection_id=connection_id, custom_data=self.custom_data, age_ms=age_ms)


class _Budget:
    """What still fits into a batch."""

    __slots__ = ("bytes", "ops")

    def __init__(self, max_bytes: int) -> None:
        self.ops = MAX_OPS
        self.bytes = max_bytes

    def reserve(self, ops: list[AnyPresenceOp]) -> bool:
        """Whether these fit, all of them; then they take their place."""
        size = sum(len(_encode(op)) + 1 for op in ops)
        if len(ops) > self.ops or size > self.bytes:
            return False
        self.ops -= len(ops)
        self.bytes -= size
        return True


def _ops_of(connection: Announced) -> list[AnyPresenceOp]:
    """Return the operations that announce a connection; none where it fails: the others are announced."""
    try:
        return list(connection.presence_ops())
    except Exception:
        log.exception("a connection cannot be announced", connection=connection.connection_id)
        counter(MetricName.CONNECTION_FAULTS).labels("presence").inc()
        return []


class BatchQueue:
    """The batches of one gateway. The one that `next` returned is in flight until it is answered, or `requeue`."""

    def __init__(self, gateway: str, boot: str) -> None:
        self._instance = gateway
        self._gateway = gateway
        self._boot = boot
        self._number = 0
        self._max_bytes = MAX_BYTES
        self._fresh = True
        self._opening = False  # the batch that was to open the lease could not be sent
        self._unannounced: dict[str, Announced] = {}
        self._partial: deque[AnyPresenceOp] = deque()  # the rest of a connection too large for one batch
        # By connection and kind where only the last one counts, by a number of their own elsewhere.
        self._waiting: OrderedDict[object, AnyPresenceOp] = OrderedDict()
        self._added = 0
        self._active: dict[str, None] = {}

    @property
    def waiting(self) -> int:
        """How many operations wait, those of an announcement not counted."""
        return len(self._waiting)

    @property
    def announces(self) -> bool:
        """Whether an announcement is due or under way."""
        return self._fresh or bool(self._unannounced) or bool(self._partial)

    @property
    def has_work(self) -> bool:
        """Whether there is something to say before the lease must be renewed."""
        return self.announces or bool(self._waiting) or len(self._active) >= MAX_ACTIVE

    def add(self, op: AnyPresenceOp) -> None:
        """Say this after what waits already.

        Of a connection whose announcement is still to come nothing needs to be said: it will be announced as it is
        then, and one that ended meanwhile never was. Of a connection's statuses and custom data that wait, only the
        last are kept.
        """
        if op.connection_id in self._unannounced:
            if isinstance(op, Disconnected):
                del self._unannounced[op.connection_id]
            return
        self._added += 1
        replaces = isinstance(op, DataSet | StatusSet)
        self._waiting[(type(op), op.connection_id) if replaces else self._added] = op

    def active(self, user_id: str) -> None:
        """Say that a user did something; not, where too many wait for that to be said (`is_full`)."""
        if len(self._active) < MAX_ACTIVE_WAITING:
            self._active[user_id] = None

    @property
    def is_full(self) -> bool:
        """Whether so much waits that announcing all connections again is cheaper: that also says when each was active."""
        return len(self._waiting) > MAX_WAITING or len(self._active) >= MAX_ACTIVE_WAITING

    def reannounce(self) -> None:
        """Announce all connections again, from the next batch on, in a new lease."""
        self._fresh = True
        self._active.clear()
        self._unannounced.clear()
        self._partial.clear()
        self._waiting.clear()

    def use_own_lease(self) -> None:
        """Announce all connections under a lease of another name.

        Another process holds the one of our name: a later boot of this gateway while we were frozen, or a gateway of
        the same name. Each of us speaks for its own connections; fighting over one lease would lose both.
        """
        self._boot = secrets.token_hex(8)
        self._gateway = f"{self._instance}~{self._boot[:6]}"
        self._number = 0
        self.reannounce()

    def next(self, connections: Iterable[Announced]) -> PresenceBatch:
        """Return the next batch; `connections` are all there are now, looked at when everything is announced."""
        announces_all, self._fresh = self._fresh, False
        fresh, self._opening = announces_all or self._opening, False
        if announces_all:
            # What waits is part of the announcement: the connections as they will be then.
            self._waiting.clear()
            self._unannounced = {connection.connection_id: connection for connection in connections}
        budget, ops = _Budget(self._max_bytes), list[AnyPresenceOp]()
        self._announce(budget, ops)
        if not self._partial:
            while self._waiting and budget.reserve([next(iter(self._waiting.values()))]):
                ops.append(self._waiting.popitem(last=False)[1])
            if self._waiting and not ops:  # larger than any batch: the bus will say what it thinks of it
                ops.append(self._waiting.popitem(last=False)[1])
        self._number += 1
        return PresenceBatch(
            gateway=self._gateway,
            boot=self._boot,
            batch=self._number,
            fresh=fresh,
            ops=ops,
            active=self._pop_active(),
        )

    def requeue(self, batch: PresenceBatch) -> None:
        """Take back a batch that is larger than the bus takes, with its number; later ones are half as large.

        One operation alone that is too large is given up: custom data, where the settings allow more than the bus.
        """
        self._number = batch.batch - 1
        self._opening = batch.fresh
        for user_id in batch.active:
            self.active(user_id)
        if len(batch.ops) > 1:
            self._partial.extendleft(reversed(batch.ops))
            self._max_bytes //= 2

    def _announce(self, budget: _Budget, ops: list[AnyPresenceOp]) -> None:
        """Fill the batch with connections not yet announced, each complete."""
        while True:
            while self._partial and budget.reserve([self._partial[0]]):
                ops.append(self._partial.popleft())
            if self._partial:
                if not ops:
                    ops.append(self._partial.popleft())
                return
            if not self._unannounced or not budget.ops:
                return
            connection_id = next(iter(self._unannounced))
            whole = _ops_of(self._unannounced[connection_id])
            if budget.reserve(whole):
                ops += whole
            elif ops:
                return
            else:
                self._partial.extend(whole)
            del self._unannounced[connection_id]

    def _pop_active(self) -> list[str]:
        taken: list[str] = []
        size = 0
        for user_id in self._active:
            size += len(user_id.encode()) + 8
            if len(taken) == MAX_ACTIVE or size > MAX_ACTIVE_BYTES:
                break
            taken.append(user_id)
        for user_id in taken:
            del self._active[user_id]
        return taken
