"""Notification log: what receivers were sent. Kept in the store as JSON."""

from dataclasses import dataclass, field

import msgspec

from services.wire.alerting import Receiver, Window
from services.wire.records import AlertLogEntry
from services.wire.rpc import Silence


def alert_key(entry: AlertLogEntry) -> str:
    """Key of what a receiver is notified about: an alert at one severity."""
    return f"{entry.id}|{entry.type}"


def group_log_key(receiver: str, group_key: str) -> str:
    """Key of a receiver's group in the log."""
    return f"{receiver}\n{group_key}"


class SentNotification(msgspec.Struct, frozen=True, rename="camel"):
    """The last message about a group that a receiver took (or, while pending, may have taken).

    `at` in ms; `key` is the message's; `firing` are its firing alerts.
    """

    receiver: str
    group_key: str
    group_labels: dict[str, str]
    at: int
    key: str
    firing: list[AlertLogEntry]


class AckRecord(msgspec.Struct, frozen=True, rename="camel"):
    """Acknowledgement of one episode of an alert. `started_at` in ms, as text: Lua's numbers lose digits."""

    started_at: str
    by: str = ""
    comment: str = ""


@dataclass(slots=True)
class NotifyState:
    """All inputs of notifying, read in one step. `nflog` and `pending_sends` are keyed by `group_log_key`.

    `pending_alerts` are the alerts that fire, and those that ended and not every receiver was notified of.
    """

    pending_alerts: dict[str, AlertLogEntry] = field(default_factory=dict)
    nflog: dict[str, SentNotification] = field(default_factory=dict)
    pending_sends: dict[str, SentNotification] = field(default_factory=dict)
    receivers: dict[str, Receiver] = field(default_factory=dict)
    acks: dict[str, AckRecord] = field(default_factory=dict)
    silences: list[Silence] = field(default_factory=list)
    windows: list[Window] = field(default_factory=list)


@dataclass(slots=True)
class NotifyChange:
    """Changes to the state; None removes. `done` are ended alerts that every receiver was notified of."""

    nflog: dict[str, SentNotification | None] = field(default_factory=dict)
    pending_sends: dict[str, SentNotification | None] = field(default_factory=dict)
    receivers: dict[str, Receiver | None] = field(default_factory=dict)
    done: list[AlertLogEntry] = field(default_factory=list)
