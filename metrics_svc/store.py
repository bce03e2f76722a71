"""The interface of the store. `store_redis` implements it; a store in memory in the tests is its reference."""

from collections import Counter
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Protocol

from metrics_svc.aggregation.rollups import SeriesRow, Tier
from metrics_svc.aggregation.rows import Row
from metrics_svc.alerts.instance import AlertInstance, Evaluation
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
    """The store did not answer in time, or rejects operations. Whether the operation happened is unknown."""


class StoreLimitReached(Exception):
    """There are `MAX_SILENCES` silences that have not ended, or `MAX_DOCUMENTS` documents of a kind."""


class DocumentKind(StrEnum):
    """Kinds of documents that operators write through the API, stored as JSON by id; silences by `put_silence`."""

    RULES = "rules"
    WINDOWS = "windows"
    SILENCES = "silences"


class CommitStatus(StrEnum):
    """Result of writing a second. The values are metric labels."""

    DONE = "done"
    AGAIN = "again"  # it is stored already, by this term: an earlier attempt arrived
    STALE = "stale"  # that second or a later one was written by an earlier term
    FENCED = "fenced"  # the lease belongs to another term; nothing was written


@dataclass(frozen=True, slots=True)
class Grant:
    """Answer to a candidate. `term` 0: another replica holds the lease, for `left_ms` more unless renewed.

    `clock_s` is the store's time, the clock of all replicas. `newest` is the last term given to any holder.
    """

    term: int
    left_ms: int
    clock_s: float
    newest: int


@dataclass(slots=True)
class SecondCommit:
    """All changes of one second, written completely or not at all.

    `instances` maps changed alerts to their state (None: remove). `current` are log entries of alerts that continue to
    fire with a new value, which is not announced. Not stored are `announced`, the evaluations behind `events`, and
    `limited`, the number of alerts by rule beyond its limit, which are not kept.
    """

    second: int
    rows: list[SeriesRow] = field(default_factory=list)
    instances: dict[str, AlertInstance | None] = field(default_factory=dict)
    entries: list[AlertLogEntry] = field(default_factory=list)
    events: list[AlertEvent] = field(default_factory=list)
    transitions: list[AlertTransition] = field(default_factory=list)
    current: list[AlertLogEntry] = field(default_factory=list)
    announced: list[Evaluation] = field(default_factory=list)
    limited: Counter[str] = field(default_factory=Counter)

    @property
    def ended_at(self) -> int:
        """End of the second, in ms."""
        return (self.second + 1) * 1000

    @property
    def ended(self) -> list[str]:
        """Ids of the alerts that ended with this second; their acknowledgements are removed."""
        return [entry.id for entry in self.entries if entry.state == "resolved"]


class MetricsStore(Protocol):
    """Series, alerts, silences and log lines. All operations raise MetricsStoreUnavailable.

    Every operation is one atomic step. The leader's writes name its fencing term and are rejected once another term has
    begun, so that a suspended replica cannot overwrite its successor. An operation may be repeated after a lost answer:
    a second is written once, and a repeated write reports it.
    """

    async def acquire(self, holder: str, ttl_ms: int, seen: int = 0) -> Grant:
        """Acquire a free lease under a new term, or renew the one of `holder`.

        A new term is above `seen`, the highest that `holder` knows: the store may have lost it.
        """

    async def release(self, holder: str, term: int) -> None:
        """Release the lease if it is still this one."""

    async def write(self, holder: str, term: int, commit: SecondCommit) -> CommitStatus:
        """Store one second."""

    async def last_second(self) -> int:
        """Return the last second written, 0 if there is none."""

    async def instances(self) -> dict[str, AlertInstance]:
        """Return the alert instances, by id."""

    async def unannounced(self) -> list[AlertEvent]:
        """Return the alert events in the outbox, oldest first."""

    async def remove_announced(self, holder: str, term: int, through: int) -> None:
        """Remove the events up to second `through` from the outbox, unless fenced."""

    async def notify_state(self, now: int) -> NotifyState:
        """Return the inputs of notifying at `now` (ms).

        The pending alerts are those that fire and those that ended and are not `done`, as `write` left them.
        """

    async def notify_write(self, holder: str, term: int, change: NotifyChange) -> bool:
        """Store the changes of an attempt to notify; False if fenced. A pending alert that changed is not `done`."""

    async def packed(self, series: str, tier: Tier, start: int, end: int) -> list[bytes]:
        """Return the packed rows that begin in [start, end), in order, and perhaps some around them."""

    async def newest(self, series: str, count: int) -> list[Row]:
        """Return up to `count` of the last rows of one second, in order, without sketches."""

    async def series(self, since: int) -> dict[str, int]:
        """Return the series written in second `since` or later, with their last seconds."""

    async def active(self) -> list[Alert]:
        """Return the firing alerts, oldest first, each with `acknowledged`."""

    async def episodes(self, limit: int) -> list[AlertLogEntry]:
        """Return the newest entries of the alert log, newest first."""

    async def acknowledge(self, ack: AlertAck, now: int) -> bool:
        """Acknowledge a firing alert until it ends; False if it does not fire. `now` in ms."""

    async def silences(self, now: int) -> list[Silence]:
        """Return the silences that have not ended at `now` (ms), by start."""

    async def put_silence(self, silence: Silence, now: int) -> None:
        """Add or replace a silence. Raises StoreLimitReached."""

    async def transitions(self, limit: int) -> list[AlertTransition]:
        """Return the newest transitions of alerts, newest first."""

    async def documents(self, kind: DocumentKind) -> dict[str, bytes]:
        """Return the documents of a kind, by id."""

    async def put_document(self, kind: DocumentKind, document_id: str, data: bytes) -> None:
        """Add or replace a document. Raises StoreLimitReached."""

    async def delete_document(self, kind: DocumentKind, document_id: str) -> bool:
        """Delete a document; False if there is none of that id."""

    async def append_logs(self, entries: list[LogEntry]) -> None:
        """Append log lines; the oldest beyond `MAX_LOG_LINES` are dropped."""

    async def recent_logs(self, limit: int) -> list[LogEntry]:
        """Return the newest log lines, oldest first."""

    async def close(self) -> None:
        """Close the connections."""
