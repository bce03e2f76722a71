"""What is remembered of what a receiver was told. Kept in the store as JSON."""

from dataclasses import dataclass, field

import msgspec

from services.wire.alerting import Receiver, Window
from services.wire.records import AlertLogEntry
from services.wire.rpc import Silence


def identity(entry: AlertLogEntry) -> str:
    """Return what a receiver is told about: an alert at one severity."""
    return f"{entry.id}|{entry.type}"


class SentNotification(msgspec.Struct, frozen=True, rename="camel"):
    """The last message about a group that a receiver took (or, as an intent, may have taken).

    `at` in ms; `key` is the message's; `firing` are the alerts it said to fire.
    """

    receiver: str
    group_key: str
    group_labels: dict[str, str]
    at: int
    key: str
    firing: list[AlertLogEntry]


class AckRecord(msgspec.Struct, frozen=True, rename="camel"):
    """Somebody has seen an episode of an alert. `started_at` in ms, as text: Lua's numbers lose digits."""

    started_at: str
    by: str = ""
    comment: str = ""


@dataclass(slots=True)
class NotifyState:
    """All that deciding needs, read in one step. Log and intents go by receiver and group (`log_key`)."""

    notices: dict[str, AlertLogEntry] = field(default_factory=dict)
    log: dict[str, SentNotification] = field(default_factory=dict)
    intents: dict[str, SentNotification] = field(default_factory=dict)
    receivers: dict[str, Receiver] = field(default_factory=dict)
    acks: dict[str, AckRecord] = field(default_factory=dict)
    silences: list[Silence] = field(default_factory=list)
    windows: list[Window] = field(default_factory=list)


@dataclass(slots=True)
class NotifyChange:
    """What one attempt changes; None forgets. `done` are ended alerts of which everybody has been told."""

    log: dict[str, SentNotification | None] = field(default_factory=dict)
    intents: dict[str, SentNotification | None] = field(default_factory=dict)
    receivers: dict[str, Receiver | None] = field(default_factory=dict)
    done: list[AlertLogEntry] = field(default_factory=list)


def log_key(receiver: str, group_key: str) -> str:
    """Return where in the log a receiver's group stands."""
    return f"{receiver}\n{group_key}"
