"""Which alerts keep others from being notified: the cause is known, its consequences need no message.

As in Alertmanager: an inhibition holds while an alert that matches its source side fires, for alerts that match its
target side and agree with the former in all `equal` fields (absent in both is agreement). An alert that matches both
sides is not inhibited by one that does, so that nothing inhibits itself.
https://prometheus.io/docs/alerting/latest/configuration/#inhibition-related-settings
"""

from collections.abc import Iterable, Sequence

import msgspec

from metrics_svc.alerts.matching import fields_of, matches
from services.wire.records import Alert
from services.wire.rpc import Matcher


class Inhibition(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Alerts that match `source` keep quiet those that match `target` and agree in `equal`."""

    source: list[Matcher]
    target: list[Matcher]
    equal: list[str] = msgspec.field(default_factory=list)


def _is(name: str, value: str) -> Matcher:
    return Matcher(name=name, value=value)


def _is_not(name: str, value: str) -> Matcher:
    return Matcher(name=name, value=value, op="!=")


DEFAULT_INHIBITIONS = (
    # A critical alert mutes warnings about the same metric: of the same source (its label sets), and, where it is
    # about the fleet, of every source.
    Inhibition(source=[_is("type", "critical")], target=[_is("type", "warning")], equal=["metric", "source"]),
    Inhibition(
        source=[_is("type", "critical"), _is("source", "")],
        target=[_is("type", "warning"), _is_not("source", "")],
        equal=["metric"],
    ),
    # A host that is down mutes everything else about it.
    Inhibition(
        source=[_is("metric", "up"), _is_not("source", "")],
        target=[_is_not("metric", "up")],
        equal=["source"],
    ),
)


def inhibiting(inhibitions: Iterable[Inhibition], alert: Alert, firing: Sequence[Alert]) -> list[str]:
    """Return the ids of the alerts that inhibit this one, among those that fire now."""
    fields = fields_of(alert)
    found: set[str] = set()
    for inhibition in inhibitions:
        if not matches(inhibition.target, fields):
            continue
        both = matches(inhibition.source, fields)
        for other in firing:
            if other.id == alert.id:
                continue
            others = fields_of(other)
            if not matches(inhibition.source, others):
                continue
            if both and matches(inhibition.target, others):
                continue
            if all(fields.get(name, "") == others.get(name, "") for name in inhibition.equal):
                found.add(other.id)
    return sorted(found)
