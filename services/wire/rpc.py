"""Requests between processes: one `RpcEndpoint` each, with its types.

Requests travel on `Subjects.service(service, name)` as JSON and are answered by NATS micro services (ADR-32), so any
replica may answer. A refusal comes back as the micro error headers and is raised as `bus.errors.RequestRefused`.
"""

from dataclasses import dataclass
from typing import Any, Generic, Literal, TypeVar

import msgspec

from services.wire.records import (
    UNSET,
    Alert,
    AlertLogEntry,
    GatewayStats,
    LogEntry,
    MetricPoint,
    MetricsRecord,
    RoomSummary,
    Status,
    UnsetType,
    User,
)

RequestT = TypeVar("RequestT")
ReplyT = TypeVar("ReplyT")


@dataclass(frozen=True, slots=True)
class RpcEndpoint(Generic[RequestT, ReplyT]):
    """One kind of request that a service answers: its types, and how long a caller should wait.

    `tries` above 1 is for requests that may be repeated: a caller without an answer after a part of the time sends
    it again, because the replica that got it may be frozen, and takes the answer that comes first.
    """

    service: str
    name: str
    request: type[RequestT]
    reply: type[ReplyT]
    timeout_s: float = 2.0
    tries: int = 1


class Message(msgspec.Struct, rename="camel", frozen=True, kw_only=True, omit_defaults=True):
    """Base of requests and replies."""


class Empty(Message, frozen=True, kw_only=True):
    """A message without fields."""


class ById(Message, frozen=True, kw_only=True):
    """Names a rule, a maintenance window or a silence."""

    id: str


# --- presence -------------------------------------------------------------------------------------------------


class PresenceOp(
    msgspec.Struct, rename="camel", tag_field="op", frozen=True, kw_only=True, omit_defaults=True
):
    """One change on a connection of the sending gateway."""

    connection_id: str


class Connected(PresenceOp, frozen=True, kw_only=True, tag="connected"):
    """A connection exists. Said again for one already known, it changes nothing.

    `idle_ms`: how long its user has done nothing, where it is announced some time after it came.
    """

    user_id: str
    username: str
    idle_ms: int = 0


class Disconnected(PresenceOp, frozen=True, kw_only=True, tag="disconnected"):
    """A connection is gone. `clean` (close code 1000) means the user left: no grace."""

    clean: bool = False


class Joined(PresenceOp, frozen=True, kw_only=True, tag="joined"):
    """A connection became a member of a room.

    `data` is what its user shows there, set `age_ms` ago: what was set later holds. Said again, it may differ.
    """

    room: str
    data: Any | UnsetType = UNSET
    age_ms: int = 0


class Left(PresenceOp, frozen=True, kw_only=True, tag="left"):
    """A connection left a room because its client asked for it: no grace."""

    room: str


class StatusSet(PresenceOp, frozen=True, kw_only=True, tag="status"):
    """A connection's user chose a status."""

    status: Status


class DataSet(PresenceOp, frozen=True, kw_only=True, tag="data"):
    """A connection's user replaced their custom data, `age_ms` ago: what was set later holds."""

    custom_data: Any
    age_ms: int = 0


AnyPresenceOp = Connected | Disconnected | Joined | Left | StatusSet | DataSet


class PresenceBatch(Message, frozen=True, kw_only=True):
    """Everything that changed on one gateway since its last batch; also renews the gateway's lease.

    A gateway has one batch in flight and repeats it until it is answered: `batch` rises by one within one `boot`,
    and a repeat changes nothing. `fresh` opens the lease: everything known of earlier boots of this gateway, and
    of this boot before, is forgotten first (with grace), because this batch and those after it announce all there is.
    `active` names users who sent something since the last batch.
    """

    gateway: str
    boot: str
    batch: int
    fresh: bool = False
    ops: list[AnyPresenceOp] = msgspec.field(default_factory=list)
    active: list[str] = msgspec.field(default_factory=list)


class PresenceApplied(Message, frozen=True, kw_only=True):
    """`known` is false when the lease does not exist (expired, or Redis lost its data): announce everything again.

    (epoch, version) is the position of the `presence` channel, so that a gateway notices a lost diff.
    """

    known: bool
    epoch: str
    version: int


class PresenceQuery(Message, frozen=True, kw_only=True):
    """Who is online. `room`: its members only. `users`: these only. `cursor` continues a page of `limit`.

    `for_follower` where the caller follows the scope from here: no users where only counts are announced, and the
    version of an empty room is kept.
    """

    room: str | UnsetType = UNSET
    users: list[str] | UnsetType = UNSET
    limit: int = 1000
    cursor: str = ""
    for_follower: bool = msgspec.field(default=False, name="unlessLarge")


class PresencePage(Message, frozen=True, kw_only=True):
    """Users sorted by id. (epoch, version) belongs to the scope asked for. An empty `cursor` ends the pages.

    `count` is the size of the scope; `counts_only` where it is over its limit, and only counts are announced.
    """

    epoch: str
    version: int
    users: list[User]
    cursor: str = ""
    count: int = 0
    counts_only: bool = msgspec.field(default=False, name="large")


class PresenceStats(Message, frozen=True, kw_only=True):
    """Counts only."""

    users: int
    connections: int
    rooms: int
    gateways: int


class RoomsPage(Message, frozen=True, kw_only=True):
    """Rooms with members, most users first."""

    rooms: list[RoomSummary]


class RoomsQuery(Message, frozen=True, kw_only=True):
    """Which rooms have members; at most `limit`."""

    limit: int = 1000


PRESENCE_APPLY = RpcEndpoint("presence", "apply", PresenceBatch, PresenceApplied, tries=3)
PRESENCE_LIST = RpcEndpoint("presence", "list", PresenceQuery, PresencePage, tries=3)
PRESENCE_STATS = RpcEndpoint("presence", "stats", Empty, PresenceStats, tries=3)
PRESENCE_ROOMS = RpcEndpoint("presence", "rooms", RoomsQuery, RoomsPage, tries=3)


# --- metrics --------------------------------------------------------------------------------------------------


class MetricsState(Message, frozen=True, kw_only=True):
    """The last 100 records, oldest first, and the active alerts."""

    history: list[MetricsRecord]
    alerts: list[Alert]


class HistoryQuery(Message, frozen=True, kw_only=True):
    """A piece of history. `start` and `end` in ms (0: open), `step` in seconds (0: raw seconds).

    Without `start` and `end`: the last `limit` rows. `source` empty: the fleet. With `metric` the answer is that one
    metric's `points`, which may be any the source has.
    """

    limit: int = 100
    start: int = 0
    end: int = 0
    step: int = 0
    source: str = ""
    metric: str = ""


class MetricsHistory(Message, frozen=True, kw_only=True):
    """Rows, oldest first; with a `metric` asked for, `points` instead.

    `unmeasured` names, for each row of a source, the fields of the record that it does not measure; they are 0 there.
    """

    rows: list[MetricsRecord]
    points: list[MetricPoint] = msgspec.field(default_factory=list)
    unmeasured: list[list[str]] = msgspec.field(default_factory=list)


class SourceInfo(Message, frozen=True, kw_only=True):
    """A series that has history: its name, and when it was last heard of (ms)."""

    source: str
    last_seen: int


class SourceList(Message, frozen=True, kw_only=True):
    """Sources heard of lately, by name."""

    sources: list[SourceInfo]


class AlertList(Message, frozen=True, kw_only=True):
    """Alerts active now."""

    alerts: list[Alert]


class AlertLogQuery(Message, frozen=True, kw_only=True):
    """The newest `limit` entries of the alert history."""

    limit: int = 100


class AlertLog(Message, frozen=True, kw_only=True):
    """Entries, newest first."""

    entries: list[AlertLogEntry]


class AlertAck(Message, frozen=True, kw_only=True):
    """Acknowledge an active alert."""

    id: str
    by: str = ""
    comment: str = ""


class Matcher(Message, frozen=True, kw_only=True):
    """What a field of an alert (`id`, `metric`, `type`, `source`, or a label) must be.

    `op`: `=` and `!=` compare, `~` and `!~` take the value for a pattern with `*`, `?` and `[…]`. A field the
    alert does not have is the empty text. No regular expressions: one that never ends would stop all alerts.
    """

    name: str
    value: str
    op: Literal["=", "!=", "~", "!~"] = "="


class Silence(Message, frozen=True, kw_only=True):
    """Alerts that match all matchers are not announced between `starts_at` and `ends_at` (ms)."""

    id: str = ""
    matchers: list[Matcher]
    starts_at: int
    ends_at: int
    comment: str = ""
    created_by: str = ""


class SilenceList(Message, frozen=True, kw_only=True):
    """Silences that have not ended."""

    silences: list[Silence]


class LogQuery(Message, frozen=True, kw_only=True):
    """The newest `limit` log entries: of one source, of one level and those above, as far as given."""

    limit: int = 100
    source: str = ""
    level: str = ""


class LogPage(Message, frozen=True, kw_only=True):
    """Log entries, oldest first."""

    entries: list[LogEntry]


METRICS_STATE = RpcEndpoint("metrics", "state", Empty, MetricsState)
METRICS_HISTORY = RpcEndpoint("metrics", "history", HistoryQuery, MetricsHistory)
METRICS_SOURCES = RpcEndpoint("metrics", "sources", Empty, SourceList)
ALERTS_ACTIVE = RpcEndpoint("metrics", "alerts", Empty, AlertList)
ALERTS_LOG = RpcEndpoint("metrics", "alert_log", AlertLogQuery, AlertLog)
ALERTS_ACK = RpcEndpoint("metrics", "ack", AlertAck, Alert)
SILENCES_LIST = RpcEndpoint("metrics", "silences", Empty, SilenceList)
SILENCES_SET = RpcEndpoint("metrics", "silence", Silence, Silence)
SILENCES_END = RpcEndpoint("metrics", "unsilence", ById, Empty)
LOGS_RECENT = RpcEndpoint("metrics", "logs", LogQuery, LogPage)

# --- calls of clients, answered by services of the application -------------------------------------------------


class ServiceCall(Message, frozen=True, kw_only=True):
    """A call of a user, on `Subjects.rpc(method)`; the answer is one of the `rpc` hook (`gateway.hooks.messages`).

    `connection_id` is empty where it came over HTTP and names no connection of this user.
    """

    user_id: str
    username: str
    connection_id: str
    method: str
    data: msgspec.Raw


# --- gateways (asked all at once: every gateway answers for itself) ------------------------------------------

GATEWAY_STATS = RpcEndpoint("gateway", "stats", Empty, GatewayStats, timeout_s=0.5)
