"""What the store takes and returns. `store_redis` is the store; a store in memory in the tests is its reference."""

from collections import Counter
from dataclasses import dataclass, field
from enum import StrEnum

from metrics_svc.aggregation.rollups import SeriesRow
from metrics_svc.alerts.instance import AlertInstance, Evaluation
from services.wire.events import AlertEvent
from services.wire.records import AlertLogEntry, AlertTransition

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
    """Kinds of documents that operators write through the API, stored as JSON by id."""

    RULES = "rules"
    WINDOWS = "windows"


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
    def ended(self) -> list[str]:
        """Ids of the alerts that ended with this second; their acknowledgements are removed."""
        return [entry.id for entry in self.entries if entry.state == "resolved"]
