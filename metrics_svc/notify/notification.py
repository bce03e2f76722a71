"""Groups of alerts that share a message, and the message with its idempotency key."""

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime

from metrics_svc.aggregation.sources import quoted_labels
from metrics_svc.alerts.muting import fields_of
from services.wire.records import UNSET, AlertLogEntry

# As in Alertmanager: each alert is its own group.
EACH = "..."
# Alertmanager's names of our fields, and back.
_ALIASES = {"alertname": "metric", "severity": "type", "alert_id": "id"}
_SHOWN_AS = {"metric": "alertname", "type": "severity", "id": "alert_id"}
# Alertmanager's end of an alert that has not ended.
NEVER = "0001-01-01T00:00:00Z"


@dataclass(slots=True)
class Group:
    """Alerts that share a message. `labels` are the fields in which they agree, under Alertmanager's names."""

    key: str
    labels: dict[str, str]
    alerts: list[AlertLogEntry] = field(default_factory=list)


def grouped(alerts: Iterable[AlertLogEntry], group_by: Sequence[str]) -> dict[str, Group]:
    """Group alerts by the fields in `group_by` (none: all in one group); keys are as Alertmanager's: `{}:{alertname="cpu"}`."""
    names = ("id",) if EACH in group_by else tuple(_ALIASES.get(name, name) for name in group_by)
    by_values: dict[tuple[str, ...], list[AlertLogEntry]] = {}
    for alert in alerts:
        fields = fields_of(alert)
        by_values.setdefault(tuple([fields.get(name, "") for name in names]), []).append(alert)
    groups: dict[str, Group] = {}
    for values, members in by_values.items():
        labels = {
            _SHOWN_AS.get(name, name): value for name, value in zip(names, values, strict=True) if value
        }
        key = f"{{}}:{quoted_labels(labels, ', ')}"
        groups[key] = Group(key, labels, members)
    return groups


@dataclass(frozen=True, slots=True)
class Notification:
    """One message about one group. `replaced` are known alerts that now fire at another severity."""

    receiver: str
    group_key: str
    group_labels: dict[str, str]
    firing: Sequence[AlertLogEntry]
    ended: Sequence[AlertLogEntry]
    key: str
    replaced: Sequence[AlertLogEntry] = ()
    external_url: str = ""


def message_key(
    before: str,
    receiver: str,
    group_key: str,
    firing: Sequence[AlertLogEntry],
    ended: Sequence[AlertLogEntry],
) -> str:
    """Idempotency key of a message: the same when another replica sends it again, another one when it is repeated.

    `before` is the key of the previous message, which tells a repetition from a retry.
    """
    alerts = sorted(
        f"{entry.id}|{entry.type}|{entry.started_at}|{entry.state}" for entry in (*firing, *ended)
    )
    return hashlib.sha256("\n".join((before, receiver, group_key, *alerts)).encode()).hexdigest()[:32]


def labels_of(entry: AlertLogEntry) -> dict[str, str]:
    """Labels of an alert under Alertmanager's names."""
    return {_SHOWN_AS.get(name, name): value for name, value in fields_of(entry).items() if value}


def annotations_of(entry: AlertLogEntry) -> dict[str, str]:
    """Annotations of an alert: its message and numbers."""
    return {"summary": entry.message, "value": f"{entry.value:g}", "threshold": f"{entry.threshold:g}"}


def fingerprint(entry: AlertLogEntry) -> str:
    """Fingerprint of an alert, independent of its severity."""
    return hashlib.sha256(entry.id.encode()).hexdigest()[:16]


def rfc3339(ms: int) -> str:
    return datetime.fromtimestamp(ms / 1000, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def ended_at(entry: AlertLogEntry) -> str:
    """End of an alert in Alertmanager's form."""
    return NEVER if entry.ended_at is UNSET else rfc3339(entry.ended_at)


def title(notification: Notification) -> str:
    """Subject line: status or severity, and the first alerts."""
    names = sorted({entry.id.removesuffix("-alert") for entry in (*notification.firing, *notification.ended)})
    shown = ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
    if not notification.firing:
        return f"[resolved] {shown}"
    severity = "critical" if any(entry.type == "critical" for entry in notification.firing) else "warning"
    return f"[{severity}] {shown}"


def text(notification: Notification) -> str:
    """Plain text, one alert a line."""
    lines = [
        f"{entry.type}: {entry.message} (since {rfc3339(entry.started_at)})" for entry in notification.firing
    ]
    lines += [f"resolved: {entry.message} (ended {ended_at(entry)})" for entry in notification.ended]
    if notification.external_url:
        lines.append(notification.external_url)
    return "\n".join(lines)
