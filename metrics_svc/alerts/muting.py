"""Muting: silences, maintenance windows and inhibition, which keep alerts from being notified.

As in Alertmanager, an inhibition applies while an alert that matches its source side fires, to alerts that match its
target side and agree with it in all `equal` fields (absent in both is agreement). An alert that matches both sides is
not inhibited by another one that does, so that nothing inhibits itself.
https://prometheus.io/docs/alerting/latest/configuration/#inhibition-related-settings

Thousands of alerts may fire with hundreds of silences, twice a second. Each alert is therefore matched with each
silence once, when either is new, and inhibiting alerts are indexed by the fields in which they must agree.
"""

import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, time, timedelta
from fnmatch import translate
from functools import cached_property, lru_cache
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

import msgspec

from services.wire.alerting import Window
from services.wire.records import UNSET, Alert, AlertLogEntry
from services.wire.rpc import Matcher, Silence

# At most so many inhibiting alerts are named for one alert: the first by id.
MAX_NAMED = 10
_MINUTE_MS = 60_000
_DAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")

# The fields of an alert that matchers see, by name.
Fields = Mapping[str, str]


def fields_of(alert: Alert) -> dict[str, str]:
    """Fields and labels of an alert. The alert's own fields take precedence over labels of the same name."""
    labels = alert.labels if alert.labels is not UNSET else {}
    source = alert.source if alert.source is not UNSET else ""
    return labels | {"id": alert.id, "metric": alert.metric, "type": alert.type, "source": source}


@lru_cache(maxsize=1024)
def _pattern(text: str) -> "re.Pattern[str]":
    # `translate` makes each `*` atomic, so that matching takes linear time in the text for each of them.
    return re.compile(translate(text))


def matches(matchers: Iterable[Matcher], fields: Fields) -> bool:
    """Report whether all matchers match; an absent field is the empty text."""
    for matcher in matchers:  # noqa: SIM110  # `all` takes twice the time, for thousands of pairs in a row
        if not _agrees(matcher, fields.get(matcher.name, "")):
            return False
    return True


def _agrees(matcher: Matcher, value: str) -> bool:
    if matcher.op in ("=", "!="):
        return (value == matcher.value) is (matcher.op == "=")
    return (_pattern(matcher.value).match(value) is not None) is (matcher.op == "~")


class BadWindow(ValueError):
    """An invalid maintenance window; the message says why."""


def check_window(window: Window) -> None:
    """Validate a window. Raises BadWindow for invalid times or an unknown time zone."""
    for name, text in (("start", window.start), ("end", window.end)):
        _time(name, text)
    _zone(window.timezone)


def is_open(window: Window, now_ms: int) -> bool:
    """Report whether a window is open at `now_ms`.

    A window belongs to the day on which it opens: one from 22:00 to 02:00 on `fri` ends on Saturday morning. Times are
    local in its time zone, so a window is an hour shorter or longer on the days when clocks change.
    """
    local = datetime.fromtimestamp(now_ms / 1000, UTC).astimezone(_zone(window.timezone))
    start, end, now = _time("start", window.start), _time("end", window.end), local.time()
    today, yesterday = _opens_on(window, local), _opens_on(window, local - timedelta(days=1))
    if start < end:
        return today and start <= now < end
    return (today and now >= start) or (yesterday and now < end)


def _opens_on(window: Window, day: datetime) -> bool:
    return not window.days or _DAYS[day.weekday()] in window.days


@lru_cache(maxsize=64)
def _time(name: str, text: str) -> time:
    try:
        return datetime.strptime(text, "%H:%M").time()  # noqa: DTZ007  # a time of day has no zone of its own
    except ValueError:
        raise BadWindow(f"`{name}` must be a time as HH:MM") from None


@lru_cache(maxsize=64)
def _zone(name: str) -> ZoneInfo:
    try:
        return ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        raise BadWindow(f"unknown time zone {name!r}") from None


class Inhibition(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Alerts that match `source` inhibit those that match `target` and agree in `equal`."""

    source: list[Matcher]
    target: list[Matcher]
    equal: list[str] = msgspec.field(default_factory=list)


def _is(name: str, value: str) -> Matcher:
    return Matcher(name=name, value=value)


def _is_not(name: str, value: str) -> Matcher:
    return Matcher(name=name, value=value, op="!=")


DEFAULT_INHIBITIONS = (
    # A critical alert mutes warnings about the same metric and source (its label sets). About the fleet, it mutes those
    # of every source.
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


class _InhibitionIndex:
    """Ids of the firing alerts on the source side of one inhibition, by the values of its `equal` fields.

    Those that match its target side too are in `both`. `firing` are fields by alert id.
    """

    def __init__(self, inhibition: Inhibition, firing: Mapping[str, Fields]) -> None:
        self._inhibition = inhibition
        self._sources: dict[tuple[str, ...], list[str]] = {}
        self._both: dict[tuple[str, ...], list[str]] = {}
        for alert_id, fields in sorted(firing.items(), key=lambda item: item[0]):
            if matches(inhibition.source, fields):
                side = self._both if matches(inhibition.target, fields) else self._sources
                named = side.setdefault(self._key(fields), [])
                if len(named) < MAX_NAMED:
                    named.append(alert_id)

    def of(self, fields: Fields) -> list[str]:
        """Ids of the alerts that inhibit the one with these fields."""
        if not matches(self._inhibition.target, fields):
            return []
        key = self._key(fields)
        found = self._sources.get(key, [])
        return found if matches(self._inhibition.source, fields) else [*found, *self._both.get(key, ())]

    def _key(self, fields: Fields) -> tuple[str, ...]:
        return tuple(fields.get(name, "") for name in self._inhibition.equal)


@dataclass(frozen=True)
class Muted:
    """What mutes alerts at one time, by alert id: ids of active silences, open windows, and inhibiting alerts."""

    silences: Mapping[str, Collection[str]]
    windows: Mapping[str, Collection[str]]
    inhibitors: Mapping[str, Sequence[str]]

    @cached_property
    def ids(self) -> frozenset[str]:
        return frozenset((*self.silences, *self.windows, *self.inhibitors))

    def annotated(self, alert: Alert) -> Alert:
        """The alert with what mutes it, for the API."""
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

    def update(self, items: Iterable[Silence | Window], fields: Mapping[str, Fields]) -> None:
        """Match what is new since the last update."""
        current = {item.id: item for item in items}
        new = [item for item in current.values() if self.items.get(item.id) != item]
        if gone := {item.id for item in self.items.values() if current.get(item.id) != item}:
            for matching in self.matched.values():
                matching -= gone  # noqa: PLW2901  # the set itself
        matched: dict[str, set[str]] = {}
        for alert_id, its in fields.items():
            same = self.fields.get(alert_id) == its
            found = self.matched.get(alert_id, set()) if same else set()
            found |= {item.id for item in (new if same else current.values()) if matches(item.matchers, its)}
            if found:
                matched[alert_id] = found
        self.items, self.fields, self.matched = current, dict(fields), matched

    def among(self, active: Collection[str]) -> dict[str, set[str]]:
        """Matching items that are active, by alert."""
        if not active:
            return {}
        return {
            alert_id: both for alert_id, found in self.matched.items() if (both := found.intersection(active))
        }


class Muter:
    """Finds what mutes alerts. Caches: only what changed since the last call is evaluated."""

    def __init__(self) -> None:
        self._alerts: dict[str, Alert] = {}
        self._fields: dict[str, Fields] = {}
        self._silences = _MatchCache()
        self._windows = _MatchCache()
        self._open: tuple[int, Sequence[Window], frozenset[str]] = (0, (), frozenset())
        self._inhibited_by: tuple[Mapping[str, Fields], frozenset[str], Sequence[Inhibition]] | None = None
        self._inhibited: Mapping[str, Sequence[str]] = {}

    def muted(
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
            alert_id: self._fields[alert_id] if self._alerts.get(alert_id) is alert else fields_of(alert)
            for alert_id, alert in listed.items()
        }
        self._alerts, self._fields = listed, fields
        self._silences.update(silences, fields)
        self._windows.update(windows, fields)
        active = {silence.id for silence in silences if silence.starts_at <= now < silence.ends_at}
        firing = frozenset(
            alert.id
            for alert in listed.values()
            if not isinstance(alert, AlertLogEntry) or alert.state == "firing"
        )
        return Muted(
            self._silences.among(active),
            self._windows.among(self._open_windows(windows, now)),
            self._inhibitors(fields, firing, inhibitions),
        )

    def _open_windows(self, windows: Sequence[Window], now: int) -> frozenset[str]:
        minute = now // _MINUTE_MS  # windows open and close on full minutes
        if self._open[:2] != (minute, windows):
            found = frozenset(window.id for window in windows if is_open(window, now))
            self._open = minute, list(windows), found
        return self._open[2]

    def _inhibitors(
        self, fields: Mapping[str, Fields], firing: frozenset[str], inhibitions: Sequence[Inhibition]
    ) -> Mapping[str, Sequence[str]]:
        inputs = fields, firing, inhibitions
        if inputs != self._inhibited_by:
            of_firing = {alert_id: fields[alert_id] for alert_id in firing}
            indexes = [_InhibitionIndex(inhibition, of_firing) for inhibition in inhibitions]
            named = {
                alert_id: {other for index in indexes for other in index.of(its)}
                for alert_id, its in fields.items()
            }
            self._inhibited = {
                alert_id: sorted(others)[:MAX_NAMED] for alert_id, others in named.items() if others
            }
            self._inhibited_by = inputs
        return self._inhibited
