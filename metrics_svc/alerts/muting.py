"""All that keeps an alert from being notified: silences, maintenance windows, inhibition.

Thousands of alerts may fire while there are hundreds of silences, and it is asked twice a second: so each alert is
looked at with each silence once, when either is new, and alerts that inhibit are found by the fields they must agree in.
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property

import msgspec

from metrics_svc.alerts.inhibition import Inhibition, InhibitionIndex
from metrics_svc.alerts.matching import Fields, fields_of, matches
from metrics_svc.alerts.windows import in_force
from services.wire.alerting import Window
from services.wire.records import UNSET, Alert, AlertLogEntry
from services.wire.rpc import Silence

_MINUTE_MS = 60_000


@dataclass(frozen=True)
class Muted:
    """What mutes alerts at one time, by alert id: ids of silences and of windows in force, and of inhibiting alerts."""

    silences: Mapping[str, Collection[str]]
    windows: Mapping[str, Collection[str]]
    inhibitors: Mapping[str, Sequence[str]]

    @cached_property
    def ids(self) -> frozenset[str]:
        """The ids of the alerts that anything mutes."""
        return frozenset((*self.silences, *self.windows, *self.inhibitors))

    def shown(self, alert: Alert) -> Alert:
        """Return the alert with what mutes it, as the API answers it."""
        return msgspec.structs.replace(
            alert,
            silenced_by=sorted(self.silences.get(alert.id, ())) or UNSET,
            muted_by=sorted(self.windows.get(alert.id, ())) or UNSET,
            inhibited_by=list(self.inhibitors.get(alert.id, ())) or UNSET,
        )


@dataclass(slots=True)
class _MatchCache:
    """Which silences, or windows, match which alerts."""

    items: dict[str, Silence | Window] = field(default_factory=dict)
    fields: dict[str, Fields] = field(default_factory=dict)
    matched: dict[str, set[str]] = field(default_factory=dict)

    def look(self, items: Iterable[Silence | Window], fields: Mapping[str, Fields]) -> None:
        current = {item.id: item for item in items}
        new = [item for id, item in current.items() if self.items.get(id) != item]
        if gone := {id for id, item in self.items.items() if current.get(id) != item}:
            for matching in self.matched.values():
                matching -= gone  # noqa: PLW2901  # the set itself
        known = self.fields
        matched: dict[str, set[str]] = {}
        for id, its in fields.items():
            same = known.get(id) == its
            found = self.matched.get(id, set()) if same else set()
            found |= {item.id for item in (new if same else current.values()) if matches(item.matchers, its)}
            if found:
                matched[id] = found
        self.items, self.fields, self.matched = current, dict(fields), matched

    def among(self, in_force: Collection[str]) -> dict[str, set[str]]:
        """Return what matches and is in force, by alert."""
        if not in_force:
            return {}
        return {id: both for id, found in self.matched.items() if (both := found.intersection(in_force))}


class Muter:
    """Says what mutes alerts. It remembers: only what has changed since the last look is worked out again."""

    def __init__(self) -> None:
        self._alerts: dict[str, Alert] = {}
        self._fields: dict[str, Fields] = {}
        self._silences = _MatchCache()
        self._windows = _MatchCache()
        self._open: tuple[int, Sequence[Window], frozenset[str]] = (0, (), frozenset())
        self._inhibited_as: tuple[Mapping[str, Fields], frozenset[str], Sequence[Inhibition]] | None = None
        self._inhibited: Mapping[str, Sequence[str]] = {}

    def look(
        self,
        alerts: Iterable[Alert],
        silences: Sequence[Silence],
        windows: Sequence[Window],
        inhibitions: Sequence[Inhibition],
        now: int,
    ) -> Muted:
        """Return what mutes these alerts at `now` (ms). Those among them that fire may inhibit others."""
        listed = {alert.id: alert for alert in alerts}
        fields = {
            id: self._fields[id] if self._alerts.get(id) is alert else fields_of(alert)
            for id, alert in listed.items()
        }
        self._alerts, self._fields = listed, fields
        self._silences.look(silences, fields)
        self._windows.look(windows, fields)
        active = [silence.id for silence in silences if silence.starts_at <= now < silence.ends_at]
        return Muted(
            self._silences.among(frozenset(active)),
            self._windows.among(self._open_windows(windows, now)),
            self._inhibiting(fields, frozenset(filter(lambda id: _fires(listed[id]), listed)), inhibitions),
        )

    def _open_windows(self, windows: Sequence[Window], now: int) -> frozenset[str]:
        minute = now // _MINUTE_MS  # windows begin and end with one
        if self._open[:2] != (minute, windows):
            found = frozenset(window.id for window in windows if in_force(window, now))
            self._open = minute, list(windows), found
        return self._open[2]

    def _inhibiting(
        self, fields: Mapping[str, Fields], firing: frozenset[str], inhibitions: Sequence[Inhibition]
    ) -> Mapping[str, Sequence[str]]:
        asked = fields, firing, inhibitions
        if asked != self._inhibited_as:
            inhibitors = InhibitionIndex(inhibitions, {id: fields[id] for id in firing})
            self._inhibited = {id: found for id, its in fields.items() if (found := inhibitors.of(its))}
            self._inhibited_as = asked
        return self._inhibited


def _fires(alert: Alert) -> bool:
    return not isinstance(alert, AlertLogEntry) or alert.state == "firing"
