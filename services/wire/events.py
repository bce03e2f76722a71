"""What processes publish to each other. JSON on the bus, so that `nats sub` shows something readable.

Where an event is just what clients receive (a diff of presence, an alert), the client's type is the event.
"""

import msgspec

from services.wire.records import UNSET, LogEntry, MetricsRecord, Status, UnsetType
from services.wire.server import (
    AlertRaised,
    AlertResolved,
    PresenceUpdated,
    StatusChanged,
    UserJoined,
    UserLeft,
    UserOffline,
    UserOnline,
)


class Event(msgspec.Struct, rename="camel", tag_field="type", frozen=True, kw_only=True, omit_defaults=True):
    """Base of bus events."""


class RoomPublished(Event, frozen=True, kw_only=True, tag="room_message"):
    """A message for a room. `origin` is the publishing connection, which gets no copy unless `echo`.

    `exclude` is a connection of any user that gets none: only the server API names one.
    `content` stays JSON text from publisher to member: nothing on the way looks inside.
    """

    user_id: str
    username: str
    room: str
    content: msgspec.Raw
    timestamp: int
    origin: str = ""
    echo: bool = False
    exclude: str = ""


class DirectPublished(Event, frozen=True, kw_only=True, tag="direct_message"):
    """A message for one user's inbox."""

    from_user_id: str
    username: str
    content: msgspec.Raw
    timestamp: int
    exclude: str = ""


class BroadcastPublished(Event, frozen=True, kw_only=True, tag="broadcast"):
    """A message for everyone."""

    user_id: str
    username: str
    content: msgspec.Raw
    timestamp: int
    origin: str = ""
    echo: bool = False
    exclude: str = ""


# What a gateway hears on the subject of a room's members. On the room's own there are messages alone.
MembersEvent = UserJoined | UserLeft

PresenceChange = UserOnline | UserOffline | StatusChanged | PresenceUpdated


class PresenceDiff(Event, frozen=True, kw_only=True, tag="presence_diff"):
    """Changes of presence, in order; each raises the version by one, and `version` is that of the last.

    A follower at (epoch, version - len(changes)) applies them; at any other place it asks for a snapshot.
    `room` is set on the subject of one room, whose versions are its own. Of a large scope only `count` is sent, the
    number of its users at that version; `changes` is empty then.
    """

    epoch: str
    version: int
    changes: list[PresenceChange]
    room: str | UnsetType = UNSET
    count: int | UnsetType = UNSET


class Sketch(msgspec.Struct, rename="camel", frozen=True, kw_only=True, omit_defaults=True):
    """A mergeable latency sketch (DDSketch, relative accuracy 1 %): counts by logarithmic bin, in ms.

    Merging adds the bins. `bins` maps a bin's index to its count; values below 1e-9 are in `zero`.
    """

    bins: dict[int, float] = msgspec.field(default_factory=dict)
    zero: float = 0.0
    count: float = 0.0
    sum: float = 0.0
    min: float | UnsetType = UNSET
    max: float | UnsetType = UNSET


class Total(msgspec.Struct, rename="camel", frozen=True, kw_only=True, omit_defaults=True):
    """A count since `start` (ms, 0: not known), of a source that reports totals and not what was new."""

    value: float
    start: int = 0


class SketchTotal(msgspec.Struct, rename="camel", frozen=True, kw_only=True, omit_defaults=True):
    """A histogram of everything since `start` (ms, 0: not known)."""

    sketch: Sketch
    start: int = 0


# Limits of a report, where one is made and where it is received. Of labels, name and value together.
MAX_LABELS_PER_SOURCE = 16
MAX_LABEL_BYTES = 128
# Series of their own, beside the sources': each is a row a second.
MAX_LABEL_SETS_PER_SOURCE = 32
MAX_HISTOGRAMS_PER_SOURCE = 8
MAX_LATENCIES = 10_000
# Clocks differ and batches wait; a timestamp outside these is a mistake (such as seconds for milliseconds). Reports count
# at the time of the receiver's clock: an older one would look like a burst now.
MAX_AGE_S = 3600
MAX_FUTURE_S = 60


def is_timely(timestamp: int, now_ms: int) -> bool:
    """Return True for a timestamp (ms) that a sample or a log line may have at `now_ms`."""
    return now_ms - MAX_AGE_S * 1000 <= timestamp <= now_ms + MAX_FUTURE_S * 1000


class MetricsReport(Event, frozen=True, kw_only=True, tag="metrics_report"):
    """Samples of one source since its last report.

    `kind` is gateway, agent or app. `requests`, `errors` and `counters` are counts since the last report; `gauges`
    are values now. `seq` rises by one a report within one `boot`, so that a repeat is recognised.
    The agent's gauges are cpu, memory, disk (percent), network_in and network_out (bytes/s).

    `histograms` are distributions by name, in any unit. `totals` and `histogram_totals` count since the source's
    start; the aggregator keeps the last ones, by `instance`, and takes the difference. The names `requests`,
    `errors` and, among histograms, `latency` (ms) mean the fields above. Labels of an application tell apart parts
    of it (each becomes a series of its own), those of others describe them.

    `interval_ms` is how often the source reports, `counts_since` (ms) when the counts began; 0: unknown.
    """

    source: str
    kind: str
    boot: str
    seq: int
    timestamp: int
    requests: float = 0.0
    errors: float = 0.0
    latency: Sketch | UnsetType = UNSET
    latencies: list[float] = msgspec.field(default_factory=list)
    gauges: dict[str, float] = msgspec.field(default_factory=dict)
    counters: dict[str, float] = msgspec.field(default_factory=dict)
    labels: dict[str, str] = msgspec.field(default_factory=dict)
    histograms: dict[str, Sketch] = msgspec.field(default_factory=dict)
    totals: dict[str, Total] = msgspec.field(default_factory=dict)
    histogram_totals: dict[str, SketchTotal] = msgspec.field(default_factory=dict)
    instance: str = ""
    interval_ms: int = 0
    counts_since: int = 0


class MetricsTick(Event, frozen=True, kw_only=True, tag="metrics_tick"):
    """The fleet's record of one second. `term` is the fencing term of the replica that ticks."""

    term: int
    record: MetricsRecord


AlertEvent = AlertRaised | AlertResolved


class LogReport(Event, frozen=True, kw_only=True, tag="log_report"):
    """Log lines of one process, oldest first; `dropped` lines did not fit its buffer."""

    source: str
    entries: list[LogEntry]
    dropped: int = 0


class DisconnectUser(Event, frozen=True, kw_only=True, tag="disconnect_user"):
    """An order to all gateways: end every connection of this user."""

    user_id: str
    reason: str = ""


class CloseConnections(Event, frozen=True, kw_only=True, tag="close_connections"):
    """An order to all gateways: end these connections, because their user has newer ones than allowed."""

    connection_ids: list[str]


class SetPresence(Event, frozen=True, kw_only=True, tag="set_presence"):
    """An order to all gateways: a user chose this over HTTP, for one connection or for all they have.

    Each gateway that has such a connection answers with an empty message.
    """

    user_id: str
    connection_id: str = ""
    status: Status | UnsetType = UNSET
    custom_data: msgspec.Raw | UnsetType = UNSET


ControlEvent = DisconnectUser | CloseConnections | SetPresence


class RosterQuery(Event, frozen=True, kw_only=True, tag="roster_query"):
    """Who has connections of this user? Each gateway that has some answers with a `UserConnections`."""

    user_id: str


class UserConnections(Event, frozen=True, kw_only=True, tag="roster"):
    """One gateway's connections of a user: ids, and since when (ms)."""

    gateway: str
    connections: dict[str, int]


class Revoked(Event, frozen=True, kw_only=True, tag="revoked"):
    """Tokens that count no more: the one of `token_id`, or those of `user_id` issued at `issued_before` or earlier.

    Seconds since 1970. Forgotten at `until`; a revocation whose `until` has passed lifts an earlier one.
    """

    until: float
    user_id: str = ""
    token_id: str = ""
    issued_before: float = 0.0
