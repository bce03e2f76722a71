"""Objects that appear in several messages, on the client's wire and on the bus alike.

Times are integer milliseconds since 1970; percentages run from 0 to 100; latencies are milliseconds.
"""

from collections.abc import Collection
from enum import StrEnum
from typing import Annotated, Any, Literal

import msgspec

UNSET = msgspec.UNSET
UnsetType = msgspec.UnsetType


class Record(msgspec.Struct, rename="camel", frozen=True, kw_only=True):
    """Base of wire objects: camelCase names outside, snake_case inside, unset fields absent."""


class ErrorBody(Record, frozen=True, kw_only=True):
    """What a failed HTTP request is answered with."""

    code: str
    message: str
    retryable: bool
    retry_after_ms: int | UnsetType = UNSET


class Status(StrEnum):
    """What a user says of themselves; the most available of several connections wins."""

    ONLINE = "online"
    AWAY = "away"
    BUSY = "busy"


class User(Record, frozen=True, kw_only=True):
    """One online user. `custom_data` is whatever the user's client last sent, never interpreted.

    `member_data` is what the user shows in the room, where users are those of a room.
    """

    user_id: str
    username: str
    status: Status
    last_seen: int
    custom_data: Any | UnsetType = UNSET
    member_data: Any | UnsetType = UNSET


# What no stream reaches; a larger one is a mistake of the client's, and NATS could not read it.
MAX_SEQ = 2**63 - 1
Sequence = Annotated[int, msgspec.Meta(ge=0, le=MAX_SEQ)]


class Position(msgspec.Struct, frozen=True):
    """A place in a durable log: sequence numbers compare only within one epoch."""

    epoch: str
    seq: Sequence


class Network(Record, frozen=True, kw_only=True, gc=False):
    """Bytes per second, in and out of this machine."""

    in_: float = msgspec.field(name="in", default=0.0)
    out: float = 0.0


# `gc=False`: they hold no cycles, and a day of them would set the collector to work again and again.
class MetricsRecord(Record, frozen=True, kw_only=True, gc=False):
    """One second of the fleet (or, with `step`, the mean of several).

    cpu, memory, disk in percent; network in bytes/s; requests and errors per second; latencies in ms.
    `min`, `max` and `count` are set only on rollup rows: extremes by metric name, and the seconds merged.
    """

    cpu: float
    memory: float
    disk: float
    network: Network
    requests: float
    errors: float
    latency_p50: float = msgspec.field(name="latencyP50")
    latency_p95: float = msgspec.field(name="latencyP95")
    latency_p99: float = msgspec.field(name="latencyP99")
    timestamp: int
    min: dict[str, float] | UnsetType = UNSET
    max: dict[str, float] | UnsetType = UNSET
    count: int | UnsetType = UNSET


class SourceRecord(Record, frozen=True, kw_only=True, gc=False):
    """One second of one source or label set (or, with `step`, the mean of several): what a `MetricsRecord` is of the fleet.

    What the source does not measure is absent.
    """

    cpu: float | UnsetType = UNSET
    memory: float | UnsetType = UNSET
    disk: float | UnsetType = UNSET
    network: Network | UnsetType = UNSET
    requests: float | UnsetType = UNSET
    errors: float | UnsetType = UNSET
    latency_p50: float | UnsetType = msgspec.field(name="latencyP50", default=UNSET)
    latency_p95: float | UnsetType = msgspec.field(name="latencyP95", default=UNSET)
    latency_p99: float | UnsetType = msgspec.field(name="latencyP99", default=UNSET)
    timestamp: int
    min: dict[str, float] | UnsetType = UNSET
    max: dict[str, float] | UnsetType = UNSET
    count: int | UnsetType = UNSET

    @classmethod
    def of(cls, record: MetricsRecord, unmeasured: Collection[str]) -> "SourceRecord":
        """Return a record without the fields that were not measured, by their names on the wire."""
        names = zip(record.__struct_fields__, record.__struct_encode_fields__, strict=True)
        return cls(**{field: getattr(record, field) for field, name in names if name not in unmeasured})


Severity = Literal["warning", "critical"]


class MetricPoint(Record, frozen=True, kw_only=True, gc=False):
    """One metric over one stretch of time. `value` is its mean, or a percentile of all that was measured.

    `min`, `max` and `count` (of seconds) are set on rollup rows. `timestamp` is the end of the stretch, in ms.
    """

    timestamp: int
    value: float
    min: float | UnsetType = UNSET
    max: float | UnsetType = UNSET
    count: int | UnsetType = UNSET


class Alert(Record, frozen=True, kw_only=True):
    """An alert as clients see it. `id` is `METRIC-alert` for the fleet, `METRIC@SOURCE-alert` for one source or label set.

    `source` and `labels` are absent where there are none. Answers of the API also say what keeps the alert from
    being notified: ids of silences, of maintenance windows, and of alerts that inhibit it.
    """

    id: str
    type: Severity
    metric: str
    value: float
    threshold: float
    message: str
    timestamp: int
    acknowledged: bool | UnsetType = UNSET
    source: str | UnsetType = UNSET
    labels: dict[str, str] | UnsetType = UNSET
    silenced_by: list[str] | UnsetType = UNSET
    muted_by: list[str] | UnsetType = UNSET
    inhibited_by: list[str] | UnsetType = UNSET


class AlertLogEntry(Alert, frozen=True, kw_only=True):
    """One line of the alert history: the alert, its state, when it ran, and why it last changed."""

    state: Literal["firing", "resolved"]
    started_at: int
    ended_at: int | UnsetType = UNSET
    reason: str | UnsetType = UNSET


class AlertTransition(Record, frozen=True, kw_only=True):
    """One step of an alert's state, announced or not, and why it was taken."""

    id: str
    timestamp: int
    before: str
    after: str
    reason: str
    type: Severity | UnsetType = UNSET
    value: float | UnsetType = UNSET


class LogEntry(Record, frozen=True, kw_only=True):
    """One structured log line. `level` is debug, info, warning, error or critical."""

    timestamp: int
    level: str
    source: str
    event: str
    fields: dict[str, Any] | UnsetType = UNSET


class RoomSummary(Record, frozen=True, kw_only=True):
    """A room that has members now: how many users, over how many connections."""

    room: str
    users: int
    connections: int


class GatewayStats(Record, frozen=True, kw_only=True):
    """What one gateway says of itself. Rates are per second over the last report interval; memory in bytes."""

    gateway: str
    boot: str
    started_at: int
    connections: int
    sse_streams: int
    rooms: int
    users: int
    memory: int
    cpu: float
    messages_in: float
    messages_out: float
    bytes_out: float
    errors: float
    slow_clients: int
    draining: bool
