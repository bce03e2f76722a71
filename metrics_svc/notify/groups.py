"""Which alerts share a message: those that agree in the fields grouped by."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from metrics_svc.alerts.matching import fields_of
from services.wire.records import AlertLogEntry

# As in Alertmanager: every alert is a group of its own.
EACH = "..."
# Under these names Alertmanager's receivers know our fields.
_ALIASES = {"alertname": "metric", "severity": "type", "alert_id": "id"}
SHOWN_AS = {"metric": "alertname", "type": "severity", "id": "alert_id"}


@dataclass(slots=True)
class Group:
    """Alerts that share a message. `labels` are the fields they agree in, named as receivers know them."""

    key: str
    labels: dict[str, str]
    notices: list[AlertLogEntry] = field(default_factory=list)


def group_key(labels: dict[str, str]) -> str:
    """Return the key of a group in Alertmanager's notation: `{}:{alertname="cpu"}`."""
    quoted = (
        f'{name}="{value.replace(chr(92), chr(92) * 2).replace(chr(34), chr(92) + chr(34))}"'
        for name, value in sorted(labels.items())
    )
    return f"{{}}:{{{', '.join(quoted)}}}"


def grouped(notices: Iterable[AlertLogEntry], group_by: Sequence[str]) -> dict[str, Group]:
    """Return the groups by key. Grouped by nothing, all alerts share one."""
    names = ("id",) if EACH in group_by else tuple(_ALIASES.get(name, name) for name in group_by)
    agreeing: dict[tuple[str, ...], list[AlertLogEntry]] = {}
    for notice in notices:
        fields = fields_of(notice)
        agreeing.setdefault(tuple([fields.get(name, "") for name in names]), []).append(notice)
    groups: dict[str, Group] = {}
    for values, inside in agreeing.items():
        labels = {SHOWN_AS.get(name, name): value for name, value in zip(names, values, strict=True) if value}
        key = group_key(labels)
        groups[key] = Group(key, labels, inside)
    return groups
