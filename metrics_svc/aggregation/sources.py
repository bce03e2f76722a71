"""Sources of reports: their limits, the names they use, their label sets, and the intervals of their reports.

Sources of all kinds share one namespace. Agents and gateways have priority: an application cannot take their names
or, when the limit is reached, their slots.
"""

import re
from collections import OrderedDict
from dataclasses import dataclass, field
from enum import StrEnum

from metrics_svc.aggregation.totals import Budget, CumulativeTotals
from services.wire.events import MAX_HISTOGRAMS_PER_SOURCE, MAX_LABEL_SETS_PER_SOURCE

MAX_SOURCES = 256
MAX_METRICS_PER_SOURCE = 64
# Labelled series are stored beside those of the sources: each is a row a second.
MAX_LABEL_SETS = 512
# Of a silent application; also of an unused metric name, label set, or total.
EXPIRE_S = 300
# Names of agents and gateways are reserved for so long, if there is room: no application may take one meanwhile.
RESERVE_S = 86_400
# Gateways push for applications, each with its own boot, so one source may have several boots at once.
MAX_BOOTS = 64
# A longer time between two reports is no interval: the source was away.
MAX_INTERVAL_S = 120.0
# Reports of one label set within this time are parts of one push.
_SAME_PUSH_S = 0.05
# Tracked intervals of one source: instances times label sets.
_MAX_INTERVALS = 1024

_SOURCE_NAME = re.compile(r"[^\x00-\x1f\x7f]{1,128}")
# A source with such a name would be ambiguous with a labelled series of another one (`series_name`).
_LIKE_A_SERIES = re.compile(r".*\{.*\}", re.DOTALL)


class SourceKind(StrEnum):
    """Only the gauges of agents count as the state of a machine."""

    GATEWAY = "gateway"
    AGENT = "agent"
    APP = "app"


class RejectReason(StrEnum):
    """Why a report, or a part of one, is rejected. The values are metric labels."""

    MALFORMED = "malformed"
    BAD_SOURCE = "bad_source"
    BAD_KIND = "bad_kind"
    FUTURE = "future"
    TOO_OLD = "too_old"
    DUPLICATE = "duplicate"
    NAME_TAKEN = "name_taken"
    TOO_MANY_SOURCES = "too_many_sources"
    TOO_MANY_METRICS = "too_many_metrics"
    TOO_MANY_HISTOGRAMS = "too_many_histograms"
    TOO_MANY_LABELS = "too_many_labels"
    TOO_MANY_LABEL_SETS = "too_many_label_sets"
    TOO_MANY_LATENCIES = "too_many_latencies"
    TOO_MANY_TOTALS = "too_many_totals"
    BAD_METRIC_NAME = "bad_metric_name"
    BAD_NUMBER = "bad_number"
    BAD_LATENCY = "bad_latency"
    BAD_SKETCH = "bad_sketch"


def quoted_labels(labels: dict[str, str], separator: str = ",") -> str:
    r"""Labels in Alertmanager's notation: `{region="eu",route="/cart"}`. Injective: `\` and `"` are escaped in values."""
    pairs = (
        '{}="{}"'.format(name, value.replace("\\", "\\\\").replace('"', '\\"'))
        for name, value in sorted(labels.items())
    )
    return f"{{{separator.join(pairs)}}}"


def series_name(source: str, labels: dict[str, str]) -> str:
    """Name of the series of one label set: `shop{region="eu",route="/cart"}`."""
    return source + quoted_labels(labels)


class NamesInUse:
    """At most `limit` names used by one source; unused ones expire when there is no room for another."""

    __slots__ = ("_limit", "_used")

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._used: dict[str, float] = {}

    def __contains__(self, name: str) -> bool:
        return name in self._used

    def admit(self, name: str, now: float) -> bool:
        """Note the use of a name at `now`; False if the limit is reached."""
        if name not in self._used and len(self._used) >= self._limit:
            self._used = {other: at for other, at in self._used.items() if now - at <= EXPIRE_S}
            if len(self._used) >= self._limit:
                return False
        self._used[name] = now
        return True


@dataclass(slots=True)
class ReportInterval:
    """Time of the last report of one instance and label set, and the last gaps between reports."""

    at: float
    gaps: tuple[float, ...] = ()

    def observe(self, now: float) -> None:
        if now - self.at >= _SAME_PUSH_S:
            self.gaps = (*self.gaps[-2:], now - self.at)
            self.at = now

    @property
    def seconds(self) -> float:
        """Median gap, so that one late report after an outage does not count; 0: unknown."""
        return sorted(self.gaps)[(len(self.gaps) - 1) // 2] if self.gaps else 0.0


@dataclass(slots=True)
class Source:
    """State of a source: names count against its limits, sequence numbers show repeated reports."""

    kind: SourceKind
    seen_at: float
    totals: CumulativeTotals
    names: NamesInUse = field(default_factory=lambda: NamesInUse(MAX_METRICS_PER_SOURCE))
    histograms: NamesInUse = field(default_factory=lambda: NamesInUse(MAX_HISTOGRAMS_PER_SOURCE))
    label_sets: dict[str, float] = field(default_factory=dict)
    _last_seq: OrderedDict[str, int] = field(default_factory=OrderedDict)
    _intervals: OrderedDict[tuple[str, str], ReportInterval] = field(default_factory=OrderedDict)

    def accept_seq(self, boot: str, seq: int) -> int | None:
        """Return how many reports before this one are missing, or None for a repeated report."""
        last = self._last_seq.get(boot)
        if last is not None and seq <= last:
            return None
        self._last_seq[boot] = seq
        self._last_seq.move_to_end(boot)
        if len(self._last_seq) > MAX_BOOTS:
            self._last_seq.popitem(last=False)
        return seq - last - 1 if last is not None else 0

    def interval_of(self, instance: str, labels: dict[str, str], now: float) -> ReportInterval:
        """Note a report at `now` and return the interval of its instance and label set."""
        key = instance, series_name("", labels) if labels else ""
        interval = self._intervals.get(key)
        if interval is None:
            interval = self._intervals[key] = ReportInterval(now)
            if len(self._intervals) > _MAX_INTERVALS:
                self._intervals.popitem(last=False)
        else:
            interval.observe(now)
            self._intervals.move_to_end(key)
        return interval


class SourceRegistry:
    """All known sources. Memory is bounded by the limits above and by those of `totals`."""

    def __init__(self) -> None:
        self._label_sets = 0
        self._sources: dict[str, Source] = {}
        self._budget = Budget()

    def __len__(self) -> int:
        return len(self._sources)

    def is_valid_name(self, name: str) -> bool:
        return name in self._sources or bool(
            _SOURCE_NAME.fullmatch(name) and not _LIKE_A_SERIES.fullmatch(name)
        )

    def admit(self, name: str, kind: SourceKind, now: float) -> Source | RejectReason:
        """Return the source of a report, known or new, or the reason to reject the report."""
        source = self._sources.get(name)
        if source is not None and source.kind is not kind:
            displaced = source.kind is SourceKind.APP or (
                kind is not SourceKind.APP and now - source.seen_at > EXPIRE_S
            )
            if not displaced:
                return RejectReason.NAME_TAKEN
            self._drop(name)
            source = None
        if source is None:
            self._expire(now)
            if not self._make_room(kind, now):
                return RejectReason.TOO_MANY_SOURCES
            source = self._sources[name] = Source(kind, now, CumulativeTotals(self._budget))
        return source

    def admit_label_set(self, source: Source, series: str, now: float) -> bool:
        """Note the use of a label set by its series; False if a limit is reached."""
        if series not in source.label_sets:
            for unused in [name for name, at in source.label_sets.items() if now - at > EXPIRE_S]:
                del source.label_sets[unused]
                self._label_sets -= 1
            if len(source.label_sets) >= MAX_LABEL_SETS_PER_SOURCE or self._label_sets >= MAX_LABEL_SETS:
                return False
            self._label_sets += 1
        source.label_sets[series] = now
        return True

    def _expire(self, now: float) -> None:
        keep_s = {kind: EXPIRE_S if kind is SourceKind.APP else RESERVE_S for kind in SourceKind}
        for name, source in list(self._sources.items()):
            if now - source.seen_at > keep_s[source.kind]:
                self._drop(name)

    def _make_room(self, kind: SourceKind, now: float) -> bool:
        """Make room for one more source, at the cost of a silent one or, for an agent or gateway, an application."""
        if len(self._sources) < MAX_SOURCES:
            return True
        priority = kind is not SourceKind.APP
        removable = [
            (source.seen_at, name)
            for name, source in self._sources.items()
            if now - source.seen_at > EXPIRE_S or (priority and source.kind is SourceKind.APP)
        ]
        if not removable:
            return False
        self._drop(min(removable)[1])
        return True

    def _drop(self, name: str) -> None:
        source = self._sources.pop(name)
        source.totals.clear()
        self._label_sets -= len(source.label_sets)
