"""Aggregation of all sources by second. Closing a second gives the fleet's row and one row per series.

A report counts in the second in which it arrives, by our clock; nothing waits for a late one. A gauge is valid until
the next report, and at most for two and a half intervals of its source. The fleet's cpu, memory and disk are means over
agents, its network is their sum; other metrics are summed over all sources, latencies and histograms merged.

Counts that cover more than a second are spread over as many following ones, because those they cover are written
already: the rates are right, one interval late, and no count is lost.

A label set of an application makes a labelled series, and counts in its parent source too, where a gauge is the sum
over the label sets.
"""

from dataclasses import dataclass, field
from math import floor, fsum

from metrics_svc.aggregation.rows import FLEET, LATENCY, Row
from metrics_svc.aggregation.sources import SourceKind
from metrics_svc.aggregation.validation import Counts, Sample
from services.latency_sketch import LatencySketch

FRESH_S = 3
# Two and a half intervals: one report may be missing, or late.
FRESH_INTERVALS = 2.5
# OTLP's default: assumed for an application until two reports show its interval.
UNKNOWN_INTERVAL_S = 60.0
# After a start, a source without reports may just not have been due.
WARM_UP_S = 1.25 * UNKNOWN_INTERVAL_S
# In the fleet's row, beside the record's own: the first names in alphabetical order.
MAX_FLEET_METRICS = 64
MAX_FLEET_HISTOGRAMS = 8
# Counts of a shorter span belong to the second of arrival: reports of each second are not exactly a second apart.
SPREAD_FROM_S = 2.0
# Beyond this number of samples at a time, counts are not spread.
MAX_SPREADS = 4096
# The fractional parts of its multiples are evenly distributed.
_GOLDEN = 0.6180339887
# 1 in every second in which a source is alive; rules about silence watch it.
UP = "up"
_MEANS = ("cpu", "memory", "disk")
_SUMS = ("network_in", "network_out")
_OWN = frozenset((*_MEANS, *_SUMS, "requests", "errors", UP))


@dataclass(slots=True)
class SecondSnapshot:
    """The rows of one second, by series, always with the fleet's (`FLEET`).

    `parents` maps a labelled series to its parent source. `warming_up`: the process has not run for long enough to
    tell a silent source from one that is not due.
    """

    second: int
    rows: dict[str, Row]
    labels: dict[str, dict[str, str]]
    parents: dict[str, str] = field(default_factory=dict)
    warming_up: bool = False


@dataclass(slots=True)
class SpreadCounts:
    """Counts of one sample, spread over `seconds` seconds from second `first` on."""

    sample: Sample
    first: int
    seconds: int

    def share(self, second: int) -> Counts:
        """Share of one second: an equal part of the counts, and complete values of the histograms."""
        counts, index = self.sample.counts, second - self.first
        return Counts(
            {name: count / self.seconds for name, count in counts.counters.items()},
            {name: self._values(sketch, index) for name, sketch in counts.histograms.items()},
        )

    def _values(self, sketch: LatencySketch, index: int) -> LatencySketch:
        """Values of the second at `index`: each bin's in turn, with a phase so that rare bins differ in time."""
        share = LatencySketch()
        for at, (value, count) in enumerate(sketch.weighted()):
            phase = at * _GOLDEN % 1.0
            before = floor(count * index / self.seconds + phase)
            if number := floor(count * (index + 1) / self.seconds + phase) - before:
                share.add_many(value, number)
        if share.count:
            share.min, share.max = max(share.min, sketch.min), min(share.max, sketch.max)
        return share


@dataclass(slots=True)
class _SeriesSecond:
    """Counts of one series within one second, and its newest gauges."""

    kind: SourceKind
    parent: str = ""
    counts: Counts = field(default_factory=Counts)
    gauges: dict[str, float] = field(default_factory=dict)
    labels: dict[str, str] = field(default_factory=dict)
    fresh_s: int = 0


@dataclass(slots=True)
class _SeriesState:
    """State of a series between its reports; each gauge with the second in which it was last set."""

    kind: SourceKind
    parent: str = ""
    second: int = 0
    fresh_s: int = FRESH_S
    gauges: dict[str, tuple[int, float]] = field(default_factory=dict)
    labels: dict[str, str] = field(default_factory=dict)

    def update(self, second: int, reported: _SeriesSecond) -> None:
        self.kind = reported.kind
        self.second = second
        self.fresh_s = reported.fresh_s
        self.gauges.update({name: (second, value) for name, value in reported.gauges.items()})
        self.labels = reported.labels or self.labels

    def is_stale(self, second: int) -> bool:
        return self.second <= second - self.fresh_s

    def drop_stale_gauges(self, second: int) -> None:
        oldest = second - self.fresh_s + 1
        self.gauges = {name: gauge for name, gauge in self.gauges.items() if gauge[0] >= oldest}


class Aggregator:
    """Adds up samples by second. `agent_interval_s` is the interval of agents that do not report it."""

    def __init__(self, *, agent_interval_s: float = 1.0) -> None:
        self._default_interval_s = {
            SourceKind.AGENT: agent_interval_s,
            SourceKind.GATEWAY: 1.0,
            SourceKind.APP: UNKNOWN_INTERVAL_S,
        }
        self._warm_up_s = max(WARM_UP_S, 1.25 * agent_interval_s)
        self._first = 0
        self._closed = 0
        self._spreads: list[SpreadCounts] = []
        self._open: dict[int, dict[str, _SeriesSecond]] = {}
        self._log_errors: dict[int, int] = {}
        self._states: dict[str, _SeriesState] = {}

    def add(self, sample: Sample, now: float) -> None:
        """Count a sample that arrived at `now` (seconds since 1970)."""
        second = self._open_second(now)
        reported = self._open.setdefault(second, {})
        source = reported.get(sample.source)
        if source is None or source.kind is not sample.kind:
            self._remove_other_kind(sample, reported)
            source = reported[sample.source] = _SeriesSecond(sample.kind)
        interval_s = sample.interval_s or self._default_interval_s[sample.kind]
        fresh_s = max(FRESH_S, round(FRESH_INTERVALS * interval_s))
        source.fresh_s = max(source.fresh_s, fresh_s)
        if sample.series:
            labelled = _labelled(reported, sample)
            labelled.fresh_s = fresh_s
            labelled.gauges.update(sample.gauges)
        else:
            source.labels = sample.labels or source.labels
            source.gauges.update(sample.gauges)
        seconds = round(sample.span_s) if sample.span_s >= SPREAD_FROM_S else 1
        if seconds > 1 and sample.counts and len(self._spreads) < MAX_SPREADS:
            self._spreads.append(SpreadCounts(sample, second, seconds))
        else:
            _add(reported, sample, sample.counts)

    def add_log_errors(self, count: int, now: float) -> None:
        """Count log lines of level error or worse as errors of the fleet."""
        second = self._open_second(now)
        self._log_errors[second] = self._log_errors.get(second, 0) + count

    def _open_second(self, now: float) -> int:
        # After the clock was set back, a report must not count in a second that is closed already.
        return max(int(now), self._closed + 1)

    def _remove_other_kind(self, sample: Sample, reported: dict[str, _SeriesSecond]) -> None:
        """Remove what an application reported under a name that an agent or a gateway has now."""
        state = self._states.get(sample.source)
        if state is not None and state.kind is not sample.kind:
            for series in [name for name, other in self._states.items() if other.parent == sample.source]:
                del self._states[series]
            del self._states[sample.source]
        self._spreads = [spread for spread in self._spreads if spread.sample.source != sample.source]
        if sample.source in reported:
            for series in [name for name, other in reported.items() if other.parent == sample.source]:
                del reported[series]

    def close(self, second: int) -> SecondSnapshot:
        """Return the rows of `second`. Seconds are closed in rising order; samples of a skipped one are lost."""
        self._closed = second
        self._first = self._first or second
        reported = self._open.pop(second, {})
        log_errors = self._log_errors.pop(second, 0)
        self._open = {later: its for later, its in self._open.items() if later > second}
        self._log_errors = {later: errors for later, errors in self._log_errors.items() if later > second}
        for series, its in reported.items():
            self._states.setdefault(series, _SeriesState(its.kind, its.parent)).update(second, its)
        states = {series: state for series, state in self._states.items() if not state.is_stale(second)}
        self._states = states
        for state in states.values():
            state.drop_stale_gauges(second)
        self._spreads = [spread for spread in self._spreads if second < spread.first + spread.seconds]
        for spread in self._spreads:
            if spread.first <= second:
                _add(reported, spread.sample, spread.share(second))
        gauges = _gauges(states)
        rows = {
            series: _series_row(second, state, gauges[series], reported.get(series))
            for series, state in states.items()
        }
        sources = {series: state.kind for series, state in states.items() if not state.parent}
        of_sources = [its.counts for its in reported.values() if not its.parent]
        rows[FLEET] = _fleet_row(second, sources, gauges, of_sources, log_errors)
        return SecondSnapshot(
            second,
            rows,
            {series: state.labels for series, state in states.items()},
            {series: state.parent for series, state in states.items() if state.parent},
            warming_up=second - self._first < self._warm_up_s,
        )


def _gauges(states: dict[str, _SeriesState]) -> dict[str, dict[str, float]]:
    """Valid gauges by series; a source has the sums over its label sets where it has no gauge of its own."""
    gauges = {
        series: {name: value for name, (_, value) in state.gauges.items()} for series, state in states.items()
    }
    for series, state in states.items():
        if state.parent and (of_parent := gauges.get(state.parent)) is not None:
            own = states[state.parent].gauges
            for name, value in gauges[series].items():
                if name not in own:
                    of_parent[name] = of_parent.get(name, 0.0) + value
    return gauges


def _labelled(reported: dict[str, _SeriesSecond], sample: Sample) -> _SeriesSecond:
    if sample.series not in reported:
        reported[sample.series] = _SeriesSecond(sample.kind, sample.source, labels=sample.labels)
    return reported[sample.series]


def _add(reported: dict[str, _SeriesSecond], sample: Sample, counts: Counts) -> None:
    """Count in the source of a sample and in its labelled series."""
    if sample.source not in reported:
        reported[sample.source] = _SeriesSecond(sample.kind)
    reported[sample.source].counts.add(counts)
    if sample.series:
        _labelled(reported, sample).counts.add(counts)


def _series_row(
    second: int, state: _SeriesState, gauges: dict[str, float], reported: _SeriesSecond | None
) -> Row:
    counts = reported.counts if reported is not None else Counts()
    values = gauges | {UP: 1.0}
    if state.kind is not SourceKind.AGENT:  # an agent serves no requests: absent, not 0
        values |= {"requests": 0.0, "errors": 0.0}
    return Row.of_second(second, values | counts.counters, counts.histograms)


def _fleet_row(
    second: int,
    sources: dict[str, SourceKind],
    gauges: dict[str, dict[str, float]],
    all_counts: list[Counts],
    log_errors: int,
) -> Row:
    agents = [gauges[source] for source, kind in sources.items() if kind is SourceKind.AGENT]
    others = [gauges[source] for source, kind in sources.items() if kind is not SourceKind.AGENT]
    values: dict[str, float] = {}
    for name in (*_MEANS, *_SUMS):
        if of_agents := [agent[name] for agent in agents if name in agent]:
            values[name] = fsum(of_agents) / (len(of_agents) if name in _MEANS else 1)
    if log_errors or others:
        for name in ("requests", "errors"):
            values[name] = fsum(counts.counters.get(name, 0.0) for counts in all_counts)
        values["errors"] += log_errors
    values |= _sums([*others, *(counts.counters for counts in all_counts)])
    names = sorted({name for counts in all_counts for name in counts.histograms if name != LATENCY})
    histograms = {name: LatencySketch() for name in (LATENCY, *names[:MAX_FLEET_HISTOGRAMS])}
    for counts in all_counts:
        for name, sketch in counts.histograms.items():
            if name in histograms:
                histograms[name].merge(sketch)
    return Row.of_second(second, values, histograms)


def _sums(values: list[dict[str, float]]) -> dict[str, float]:
    """Sums of the metrics that are not the record's own, at most `MAX_FLEET_METRICS`."""
    sums: dict[str, float] = {}
    for of_source in values:
        for name, value in of_source.items():
            if name not in _OWN:
                sums[name] = sums.get(name, 0.0) + value
    return {name: sums[name] for name in sorted(sums)[:MAX_FLEET_METRICS]}
