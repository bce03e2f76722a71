"""Which alerts keep others from being notified: the cause is known, its consequences need no message.

As in Alertmanager: an inhibition holds while an alert that matches its source side fires, for alerts that match its
target side and agree with the former in all `equal` fields (absent in both is agreement). An alert that matches both
sides is not inhibited by one that does, so that nothing inhibits itself.
https://prometheus.io/docs/alerting/latest/configuration/#inhibition-related-settings
"""

from collections.abc import Iterable, Mapping

import msgspec

from metrics_svc.alerts.matching import Fields, matches
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


# Of one alert, so many of those that inhibit it are named: the first by id.
MAX_NAMED = 10


class InhibitionIndex:
    """The alerts that inhibit others, by the fields in which both must agree. `firing` are fields by alert id."""

    def __init__(self, inhibitions: Iterable[Inhibition], firing: Mapping[str, Fields]) -> None:
        self._indexes = [(inhibition, _SourceAlerts(inhibition, firing)) for inhibition in inhibitions]

    def of(self, fields: Fields) -> list[str]:
        """Return the ids of the alerts that inhibit the one with these fields, `MAX_NAMED` at most, in order."""
        found: set[str] = set()
        for inhibition, index in self._indexes:
            if not matches(inhibition.target, fields):
                continue
            agreeing = _agreement(inhibition, fields)
            found.update(index.sources.get(agreeing, ()))
            if not matches(inhibition.source, fields):
                found.update(index.both.get(agreeing, ()))
        return sorted(found)[:MAX_NAMED]


class _SourceAlerts:
    """Ids of the alerts on the source side of an inhibition; apart, those that are on its target side too."""

    def __init__(self, inhibition: Inhibition, firing: Mapping[str, Fields]) -> None:
        self.sources: dict[tuple[str, ...], list[str]] = {}
        self.both: dict[tuple[str, ...], list[str]] = {}
        for id in sorted(firing):
            fields = firing[id]
            if matches(inhibition.source, fields):
                side = self.both if matches(inhibition.target, fields) else self.sources
                named = side.setdefault(_agreement(inhibition, fields), [])
                if len(named) < MAX_NAMED:
                    named.append(id)


def _agreement(inhibition: Inhibition, fields: Fields) -> tuple[str, ...]:
    return tuple(fields.get(name, "") for name in inhibition.equal)
