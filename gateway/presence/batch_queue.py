"""Queue of reports to presence_svc: their order, and their batches. No I/O, no clock.

Batch numbers rise by exactly one within a boot: presence_svc takes a missing number as lost data of its store. So a
number belongs to a batch until that batch was answered.
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
MAX_BYTES = 256 * 1024  # of encoded operations: a quarter of the default limit of NATS
MAX_ACTIVE = 2000
MAX_ACTIVE_BYTES = 128 * 1024
# While presence_svc is away.
MAX_WAITING = 20_000
MAX_ACTIVE_WAITING = 20_000

_encode = msgspec.json.Encoder().encode


class Announced(Protocol):
    """A connection, as far as presence is concerned."""

    connection_id: str

    def presence_ops(self) -> Iterable[AnyPresenceOp]:
        """Return the operations that announce this connection; none if it is not present."""


class Chosen:
    """The status and custom data of a connection's user, kept to be announced again. Times are monotonic seconds."""

    __slots__ = ("custom_data", "custom_data_at", "status")

    def __init__(self) -> None:
        self.status: Status | None = None
        self.custom_data: object = UNSET
        self.custom_data_at = 0.0

    def ops(self, connection_id: str, now: float) -> Iterator[AnyPresenceOp]:
        if self.status is not None:
            yield StatusSet(connection_id=connection_id, status=self.status)
        if self.custom_data is not UNSET:
            age_ms = round((now - self.custom_data_at) * 1000)
            yield DataSet(connection_id=connection_id, custom_data=self.custom_data, age_ms=age_ms)


class _Batch:
    """The operations of a batch, within its limits."""

    def __init__(self, max_bytes: int) -> None:
        self.ops: list[AnyPresenceOp] = []
        self._bytes_left = max_bytes

    def add(self, *ops: AnyPresenceOp) -> bool:
        """Add all of these, or none if they do not fit; return whether they were added."""
        size = sum(len(_encode(op)) + 1 for op in ops)
        if len(self.ops) + len(ops) > MAX_OPS or size > self._bytes_left:
            return False
        self.ops += ops
        self._bytes_left -= size
        return True


def _ops_of(connection: Announced) -> list[AnyPresenceOp]:
    """Return the operations that announce a connection; none if that fails, so that the others are announced."""
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
        self._opening = False  # the batch that opens the lease could not be sent
        # Ordered, as `_waiting`: the first of a plain dict takes longer to find with each one removed before it.
        self._unannounced: OrderedDict[str, Announced] = OrderedDict()
        self._partial: deque[AnyPresenceOp] = deque()  # the rest of a connection too large for one batch
        # By connection and kind if only the last one counts, else by a number of its own.
        self._waiting: OrderedDict[object, AnyPresenceOp] = OrderedDict()
        self._added = 0
        self._active: dict[str, None] = {}

    @property
    def waiting(self) -> int:
        """The number of waiting operations, without those of an announcement."""
        return len(self._waiting)

    @property
    def announces(self) -> bool:
        """Whether an announcement is due or under way."""
        return self._fresh or bool(self._unannounced) or bool(self._partial)

    @property
    def has_work(self) -> bool:
        """Whether there is something to report before the lease must be renewed."""
        return self.announces or bool(self._waiting) or len(self._active) >= MAX_ACTIVE

    def add(self, op: AnyPresenceOp) -> None:
        """Report an operation, after those that wait already.

        A connection that is not announced yet needs none: its announcement will show it as it is then. Only the last
        status and custom data of a connection are kept.
        """
        if op.connection_id in self._unannounced:
            if isinstance(op, Disconnected):
                del self._unannounced[op.connection_id]
            return
        self._added += 1
        replaces = isinstance(op, DataSet | StatusSet)
        self._waiting[(type(op), op.connection_id) if replaces else self._added] = op

    def active(self, user_id: str) -> None:
        """Report that a user is active; dropped if too many wait (`is_full`)."""
        if len(self._active) < MAX_ACTIVE_WAITING:
            self._active[user_id] = None

    @property
    def is_full(self) -> bool:
        """Whether so much waits that announcing all connections again is cheaper. That reports activity too."""
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

        Another process holds the lease of our name: a later boot of this gateway while we were frozen, or a gateway
        of the same name. Each reports its own connections; a fight over one lease would lose both.
        """
        self._boot = secrets.token_hex(8)
        self._gateway = f"{self._instance}~{self._boot[:6]}"
        self._number = 0
        self.reannounce()

    def next(self, connections: Iterable[Announced]) -> PresenceBatch:
        """Return the next batch. `connections` are all open ones, read only to announce them."""
        announces_all, self._fresh = self._fresh, False
        fresh, self._opening = announces_all or self._opening, False
        if announces_all:
            # The announcement includes what waits: it shows the connections as they are then.
            self._waiting.clear()
            self._unannounced = OrderedDict(
                (connection.connection_id, connection) for connection in connections
            )
        batch = _Batch(self._max_bytes)
        self._announce(batch)
        if not self._partial:
            while self._waiting and batch.add(next(iter(self._waiting.values()))):
                self._waiting.popitem(last=False)
            if self._waiting and not batch.ops:  # larger than any batch: the bus may still accept it
                batch.ops.append(self._waiting.popitem(last=False)[1])
        self._number += 1
        return PresenceBatch(
            gateway=self._gateway,
            boot=self._boot,
            batch=self._number,
            fresh=fresh,
            ops=batch.ops,
            active=self._pop_active(),
        )

    def requeue(self, batch: PresenceBatch) -> None:
        """Return a batch, with its number, that is too large for the bus; later ones are half as large.

        A single operation that is too large is dropped: custom data, if the settings allow more than the bus.
        """
        self._number = batch.batch - 1
        self._opening = batch.fresh
        for user_id in batch.active:
            self.active(user_id)
        if len(batch.ops) > 1:
            self._partial.extendleft(reversed(batch.ops))
            self._max_bytes //= 2

    def _announce(self, batch: _Batch) -> None:
        """Fill the batch with connections not yet announced, each complete."""
        while True:
            while self._partial and batch.add(self._partial[0]):
                self._partial.popleft()
            if self._partial:
                if not batch.ops:
                    batch.ops.append(self._partial.popleft())
                return
            if not self._unannounced or len(batch.ops) >= MAX_OPS:
                return
            connection_id, connection = next(iter(self._unannounced.items()))
            ops = _ops_of(connection)
            if not batch.add(*ops):
                if batch.ops:
                    return
                self._partial.extend(ops)
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
