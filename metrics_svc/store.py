"""The interface to what must outlive a process, named by intent. `store_redis` implements it, and a
store in memory in the tests.

Every operation is one atomic step. Whatever the replica that ticks writes names its fencing term and is
refused once another term has begun: a replica that was asleep cannot write over its successor. An operation
may be repeated when its answer was lost: a second is written once, and writing it again says so.
"""

from dataclasses import dataclass, field
from enum import StrEnum
from typing import Protocol

from metrics_svc.aggregation.rollups import SeriesRow, Tier
from metrics_svc.aggregation.rows import Row
from metrics_svc.alerts.instance import AlertInstance
from metrics_svc.notify.nflog import NotifyChange, NotifyState
from services.wire.events import AlertEvent
from services.wire.records import Alert, AlertLogEntry, AlertTransition, LogEntry
from services.wire.rpc import AlertAck, Silence

MAX_EPISODES = 1000
MAX_UNANNOUNCED = 1000
MAX_SILENCES = 1000
MAX_LOG_LINES = 2000
MAX_TRANSITIONS = 2000
MAX_DOCUMENTS = 500


class MetricsStoreUnavailable(Exception):
    """The store did not answer in time, or refuses to. Whether the operation happened is unknown."""


class TooManySilences(Exception):
    """`MAX_SILENCES` have not ended yet."""


class TooManyDocuments(Exception):
    """The collection has `MAX_DOCUMENTS` already."""


class DocumentKind(StrEnum):
    """What operators write through the API and the store keeps as JSON, by id."""

    RULES = "rules"
    WINDOWS = "windows"


class CommitStatus(StrEnum):
    """What became of a second."""

    DONE = "done"
    AGAIN = "again"  # it is stored, by this very term: an earlier attempt did arrive
    STALE = "stale"  # that second or a later one was written by an earlier term
    FENCED = "fenced"  # the lease is no longer this term's; nothing was written


@dataclass(frozen=True, slots=True)
class Grant:
    """The answer to a candidate. `term` 0: another holds the lease, for `left_ms` more unless renewed.

    `clock_s` is the store's time: the one clock that all replicas go by. `newest` is the last term given, to anyone.
    """

    term: int
    left_ms: int
    clock_s: float
    newest: int


@dataclass(frozen=True, slots=True)
class SecondCommit:
    """All that one second changes: written whole or not at all.

    `current` are alerts that go on firing, with the value they have now: for what is yet to be notified of them.
    """

    second: int
    rows: list[SeriesRow]
    watches: dict[str, AlertInstance | None] = field(default_factory=dict)
    entries: list[AlertLogEntry] = field(default_factory=list)
    events: list[AlertEvent] = field(default_factory=list)
    transitions: list[AlertTransition] = field(default_factory=list)
    current: list[AlertLogEntry] = field(default_factory=list)

    @property
    def ended(self) -> list[str]:
        """Ids of the alerts that ended with this second: their acknowledgements go."""
        return [entry.id for entry in self.entries if entry.state == "resolved"]


class MetricsStore(Protocol):
    """Series, alerts, silences and log lines. All operations raise StoreUnavailable."""

    # --- who ticks ---

    async def acquire(self, holder: str, ttl_ms: int, seen: int = 0) -> Grant:
        """Take the free lease under a new term, or renew the one `holder` has.

        A new term is above `seen`, the highest that `holder` knows of: the store may have lost it.
        """

    async def release(self, holder: str, term: int) -> None:
        """Give the lease up, if it is still this one."""

    # --- what the one who ticks writes ---

    async def write(self, holder: str, term: int, tick: SecondCommit) -> CommitStatus:
        """Store one second."""

    async def last_second(self) -> int:
        """Return the last second written, 0 when there is none."""

    async def watches(self) -> dict[str, AlertInstance]:
        """Return what is remembered of alerts, by id."""

    async def unannounced(self) -> list[AlertEvent]:
        """Return the alert events written and not yet marked as announced, oldest first."""

    async def announced(self, holder: str, term: int, through: int) -> None:
        """Forget the events of second `through` and before, unless fenced."""

    async def notify_state(self, now: int) -> NotifyState:
        """Return all that deciding about notifications needs, at `now` (ms).

        Its notices are the alerts that fire and those that ended and are not `done`, as `write` left them.
        """

    async def notify_write(self, holder: str, term: int, change: NotifyChange) -> bool:
        """Store what an attempt to notify changed; False when fenced. A notice that changed is not `done`."""

    # --- what any replica reads and writes ---

    async def rows(self, series: str, tier: Tier, start: int, end: int, *, sketches: bool) -> list[Row]:
        """Return rows that begin in [start, end), in order; percentiles are there without `sketches`, too."""

    async def packed(self, series: str, tier: Tier, start: int, end: int) -> list[bytes]:
        """Return the packed rows that begin in [start, end), in order, and perhaps some around them."""

    async def newest(self, series: str, count: int) -> list[Row]:
        """Return up to `count` of the last rows of one second, in order, without sketches."""

    async def series(self, since: int) -> dict[str, int]:
        """Return the series written in second `since` or later, each with its last second."""

    async def active(self) -> list[Alert]:
        """Return the alerts that fire now, oldest first, each with `acknowledged`."""

    async def episodes(self, limit: int) -> list[AlertLogEntry]:
        """Return the newest lines of the alert log, newest first."""

    async def acknowledge(self, ack: AlertAck, now: int) -> bool:
        """Acknowledge a firing alert until it ends; False when it does not fire. `now` in ms."""

    async def silences(self, now: int) -> list[Silence]:
        """Return the silences that have not ended at `now` (ms), by start."""

    async def put_silence(self, silence: Silence, now: int) -> None:
        """Add or replace a silence. Raises TooManySilences."""

    async def end_silence(self, id: str) -> bool:
        """Forget a silence; False when there is none of that id."""

    async def transitions(self, limit: int) -> list[AlertTransition]:
        """Return the newest transitions of alerts, newest first."""

    async def documents(self, collection: DocumentKind) -> dict[str, bytes]:
        """Return a collection, by id."""

    async def put_document(self, collection: DocumentKind, id: str, data: bytes) -> None:
        """Add or replace a document. Raises TooManyDocuments."""

    async def end_document(self, collection: DocumentKind, id: str) -> bool:
        """Forget a document; False when there is none of that id."""

    async def append_logs(self, entries: list[LogEntry]) -> None:
        """Keep log lines, at the cost of the oldest over `MAX_LOG_LINES`."""

    async def recent_logs(self, limit: int) -> list[LogEntry]:
        """Return the newest log lines, oldest first."""

    async def close(self) -> None:
        """Let go of connections."""
