"""One message about a group of alerts, and the key that makes a repeat of it recognisable."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from metrics_svc.alerts.matching import fields_of
from metrics_svc.notify.groups import SHOWN_AS
from services.wire.records import UNSET, AlertLogEntry

# How Alertmanager writes the end of what has not ended.
NEVER = "0001-01-01T00:00:00Z"


@dataclass(frozen=True, slots=True)
class Notification:
    """What one receiver is told about one group. `replaced` are told alerts that fire at another severity now."""

    receiver: str
    group_key: str
    group_labels: dict[str, str]
    firing: Sequence[AlertLogEntry]
    ended: Sequence[AlertLogEntry]
    key: str
    replaced: Sequence[AlertLogEntry] = ()
    external_url: str = ""

    @property
    def status(self) -> str:
        """`firing` as long as anything does."""
        return "firing" if self.firing else "resolved"


def key_of(
    before: str,
    receiver: str,
    group_key: str,
    firing: Sequence[AlertLogEntry],
    ended: Sequence[AlertLogEntry],
) -> str:
    """Return a message's key. Sent again by another replica it has the same key; repeated later, another one.

    `before` is the key of the message before it: that tells a repetition from a repeat after an accident.
    """
    alerts = sorted(
        f"{entry.id}|{entry.type}|{entry.started_at}|{entry.state}" for entry in (*firing, *ended)
    )
    return hashlib.sha256("\n".join((before, receiver, group_key, *alerts)).encode()).hexdigest()[:32]


def labels_of(entry: AlertLogEntry) -> dict[str, str]:
    """Return an alert's labels as Alertmanager's receivers know them."""
    return {SHOWN_AS.get(name, name): value for name, value in fields_of(entry).items() if value}


def annotations_of(entry: AlertLogEntry) -> dict[str, str]:
    """Return an alert in words and numbers."""
    return {"summary": entry.message, "value": f"{entry.value:g}", "threshold": f"{entry.threshold:g}"}


def fingerprint(entry: AlertLogEntry) -> str:
    """Return what stays the same while an alert's severity changes."""
    return hashlib.sha256(entry.id.encode()).hexdigest()[:16]


def rfc3339(ms: int) -> str:
    """Return a time in ms as RFC 3339 has it, in UTC."""
    return datetime.fromtimestamp(ms / 1000, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def ended_at(entry: AlertLogEntry) -> str:
    """Return when an alert ended, as Alertmanager writes it."""
    return NEVER if entry.ended_at is UNSET else rfc3339(entry.ended_at)


def title(notification: Notification) -> str:
    """Return one line that says what it is about."""
    names = sorted({entry.id.removesuffix("-alert") for entry in (*notification.firing, *notification.ended)})
    shown = ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
    if not notification.firing:
        return f"[resolved] {shown}"
    severity = "critical" if any(entry.type == "critical" for entry in notification.firing) else "warning"
    return f"[{severity}] {shown}"


def text(notification: Notification) -> str:
    """Return the message as plain text, one alert a line."""
    lines = [
        f"{entry.type}: {entry.message} (since {rfc3339(entry.started_at)})" for entry in notification.firing
    ]
    lines += [f"resolved: {entry.message} (ended {ended_at(entry)})" for entry in notification.ended]
    if notification.external_url:
        lines.append(notification.external_url)
    return "\n".join(lines)
