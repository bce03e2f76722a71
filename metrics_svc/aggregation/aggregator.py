"""Per-second buckets of all sources. Closing a second gives the fleet's row and each source's.

A report counts in the second in which it arrives, by our clock: one that is late counts in a later second,
and nothing waits for it. Counts belong to their second, or, where a source reports less often than each second,
to as many seconds as they were counted in (`spread`). A gauge holds until the next report, or until it is stale:
after two and a half intervals of its source. Of the fleet, cpu, memory and disk are means over agents, network is their sum; requests and
errors are sums over all sources, and so is every other metric of gateways and applications; latencies and
histograms are merged.

The reports of an application with labels make a series of their own per label set, and count in the
application's too; there a gauge is the sum over its label sets.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field
from math import fsum

from metrics_svc.aggregation.rows import Row
from metrics_svc.aggregation.spread import MAX_SPREADING, SpreadCounts, seconds_of
from metrics_svc.aggregation.validation import Sample, SourceKind
from services.latency_sketch import LatencySketch

FLEET = ""
FRESH_S = 3
# Of a source's interval: one report may be missing, or late.
FRESH_INTERVALS = 2.5
# OTLP's default: so often an application is taken to report until two reports show it.
UNKNOWN_INTERVAL_S = 60.0
# After a start, a source that has not been heard of yet may just not have been due.
WARM_UP_S = 1.25 * UNKNOWN_INTERVAL_S
# In the fleet's row, beside the record's own: the first so many names, in alphabetical order.
MAX_FLEET_METRICS = 64
MAX_FLEET_HISTOGRAMS = 8
# 1 in every second in which a source is known to live: what rules about its silence watch.
UP = "up"
_MEANS = ("cpu", "memory", "disk")
_SUMS = ("network_in", "network_out")
_OWN = frozenset((*_MEANS, *_SUMS, "requests", "errors", UP))


@dataclass(slots=True)
class SecondSnapshot:
    """The rows of one second, by series; the fleet's is always there, under `FLEET`.

    `parts` names those that are one label set of a source, and which source that is. `warming_up`: the process has not
    listened for long enough that what it has not heard of is silent.
    """

    second: int
    rows: dict[str, Row]
    labels: dict[str, dict[str, str]]
    parts: dict[str, str] = field(default_factory=dict)
    warming_up: bool = False


@dataclass(slots=True)
class _Counts:
    """What one series counted within one second, and its newest gauges in it."""

    kind: SourceKind
    whole: str = ""
    requests: float = 0.0
    errors: float = 0.0
    latency: LatencySketch | None = None
    counters: dict[str, float] = field(default_factory=dict)
    gauges: dict[str, float] = field(default_factory=dict)
    labels: dict[str, str] = field(default_factory=dict)
    histograms: dict[str, LatencySketch] = field(default_factory=dict)
    fresh_s: int = 0

    def add(self, sample: Sample) -> None:
        self.requests += sample.requests
        self.errors += sample.errors
        if sample.latency is not None:
            if self.latency is None:
                self.latency = LatencySketch()
            self.latency.merge(sample.latency)
        counters = self.counters
        for name, value in sample.counters.items():
            counters[name] = counters.get(name, 0.0) + value
        for name, sketch in sample.histograms.items():
            self.histograms.setdefault(name, LatencySketch()).merge(sketch)


@dataclass(slots=True)
class _Held:
    """What holds of a series between its reports; of each gauge also the second it was last set in."""

    kind: SourceKind
    whole: str = ""
    second: int = 0
    fresh_s: int = FRESH_S
    gauges: dict[str, tuple[int, float]] = field(default_factory=dict)
    labels: dict[str, str] = field(default_factory=dict)

    def take(self, second: int, counts: _Counts) -> None:
        self.kind = counts.kind
        self.second = second
        self.fresh_s = counts.fresh_s
        self.gauges.update({name: (second, value) for name, value in counts.gauges.items()})
        self.labels = counts.labels or self.labels

    def is_stale(self, second: int) -> bool:
        return self.second <= second - self.fresh_s

    def drop_stale(self, second: int) -> None:
        """Forget the gauges that do not hold in a second any more."""
        oldest = second - self.fresh_s + 1
        for name in [name for name, (set_in, _) in self.gauges.items() if set_in < oldest]:
            del self.gauges[name]

    def values(self) -> dict[str, float]:
        return {name: value for name, (_, value) in self.gauges.items()}


class Aggregator:
    """Collects samples, closes seconds.

    Args:
        agent_interval_s: how often agents report that do not say it.
        warm_up_s: for how long after the first second sources may be silent that report less often.
    """

    def __init__(self, *, agent_interval_s: float = 1.0, warm_up_s: float = WARM_UP_S) -> None:
        self._unknown_s = {
            SourceKind.AGENT: agent_interval_s,
            SourceKind.GATEWAY: 1.0,
            SourceKind.APP: UNKNOWN_INTERVAL_S,
        }
        self._warm_up_s = max(warm_up_s, 1.25 * agent_interval_s) if warm_up_s else 0.0
        self._first = 0
        self._spreading: list[SpreadCounts] = []
        self._buckets: dict[int, dict[str, _Counts]] = {}
        self._log_errors: dict[int, int] = {}
        self._held: dict[str, _Held] = {}
        self._closed = 0

    def add(self, sample: Sample, now: float) -> None:
        """Count a sample that arrived at `now` (seconds since 1970)."""
        second = self._open_second(now)
        bucket = self._buckets.setdefault(second, {})
        counts = bucket.get(sample.source)
        if counts is None or counts.kind is not sample.kind:
            self._forget_others(sample, bucket)
            counts = bucket[sample.source] = _Counts(sample.kind)
        counts.fresh_s = max(counts.fresh_s, self._fresh_s(sample))
        part = counts
        if sample.part:
            part = bucket.get(sample.part) or _Counts(sample.kind, sample.source, labels=sample.labels)
            bucket[sample.part] = part
            part.fresh_s = self._fresh_s(sample)
        else:
            counts.labels = sample.labels or counts.labels
        part.gauges.update(sample.gauges)
        seconds = seconds_of(sample.span_s)
        if seconds > 1 and _counts(sample) and len(self._spreading) < MAX_SPREADING:
            self._spreading.append(SpreadCounts(sample, second, seconds))
        else:
            _add(bucket, sample)

    def _fresh_s(self, sample: Sample) -> int:
        interval_s = sample.interval_s or self._unknown_s[sample.kind]
        return max(FRESH_S, round(FRESH_INTERVALS * interval_s))

    def _forget_others(self, sample: Sample, bucket: dict[str, _Counts]) -> None:
        """Forget what an application said under this name, now that an agent or a gateway has it."""
        held = self._held.get(sample.source)
        if held is not None and held.kind is not sample.kind:
            for series in [name for name, part in self._held.items() if part.whole == sample.source]:
                del self._held[series]
            del self._held[sample.source]
        self._spreading = [one for one in self._spreading if one.sample.source != sample.source]
        if sample.source in bucket:
            for series in [name for name, part in bucket.items() if part.whole == sample.source]:
                del bucket[series]

    def add_log_errors(self, count: int, now: float) -> None:
        """Count log lines of level error or worse: they are errors of the fleet."""
        second = self._open_second(now)
        self._log_errors[second] = self._log_errors.get(second, 0) + count

    def _open_second(self, now: float) -> int:
        # A clock that was set back must not put a report where nobody looks again.
        return max(int(now), self._closed + 1)

    def close(self, second: int) -> SecondSnapshot:
        """Return the rows of `second`. Seconds close in rising order; what came in a skipped one is lost."""
        self._closed = second
        self._first = self._first or second
        counted = self._buckets.pop(second, {})
        log_errors = self._log_errors.pop(second, 0)
        for stale in [early for early in self._buckets if early < second]:
            del self._buckets[stale]
        for stale in [early for early in self._log_errors if early < second]:
            del self._log_errors[stale]
        for series, counts in counted.items():
            self._held.setdefault(series, _Held(counts.kind, counts.whole)).take(second, counts)
        for series in [name for name, held in self._held.items() if held.is_stale(second)]:
            del self._held[series]
        for held in self._held.values():
            held.drop_stale(second)
        self._spreading = [one for one in self._spreading if second < one.first + one.seconds]
        for spreading in self._spreading:
            if spreading.first <= second:
                _add(counted, spreading.share(second))
        gauges = self._gauges()
        rows = {
            series: _series_row(second, held, gauges[series], counted.get(series))
            for series, held in self._held.items()
        }
        sources = {series: held.kind for series, held in self._held.items() if not held.whole}
        of_sources = [counts for counts in counted.values() if not counts.whole]
        rows[FLEET] = _fleet_row(second, sources, gauges, of_sources, log_errors)
        return SecondSnapshot(
            second,
            rows,
            {series: held.labels for series, held in self._held.items()},
            {series: held.whole for series, held in self._held.items() if held.whole},
            warming_up=second - self._first < self._warm_up_s,
        )

    def _gauges(self) -> dict[str, dict[str, float]]:
        """Return the gauges that hold, by series; a source has the sums of those of its label sets."""
        gauges = {series: held.values() for series, held in self._held.items()}
        for series, held in self._held.items():
            if (whole := gauges.get(held.whole)) is not None and held.whole:
                own = self._held[held.whole].gauges
                for name, value in gauges[series].items():
                    if name not in own:
                        whole[name] = whole.get(name, 0.0) + value
        return gauges


def _counts(sample: Sample) -> bool:
    """Say whether anything was counted or measured."""
    return bool(
        sample.requests
        or sample.errors
        or sample.latency
        or sample.histograms
        or any(sample.counters.values())
    )


def _add(bucket: dict[str, _Counts], sample: Sample) -> None:
    """Count a sample in its source, and in its label set."""
    if sample.source not in bucket:
        bucket[sample.source] = _Counts(sample.kind)
    bucket[sample.source].add(sample)
    if sample.part:
        if sample.part not in bucket:
            bucket[sample.part] = _Counts(sample.kind, sample.source, labels=sample.labels)
        bucket[sample.part].add(sample)


def _series_row(second: int, held: _Held, gauges: dict[str, float], counts: _Counts | None) -> Row:
    if counts is None:
        counts = _Counts(held.kind)
    values = gauges | {UP: 1.0}
    if held.kind is not SourceKind.AGENT:  # an agent serves no requests: none is not the same as nought
        values |= {"requests": counts.requests, "errors": counts.errors}
    return Row.of_second(second, values | counts.counters, counts.latency, counts.histograms)


def _fleet_row(
    second: int,
    sources: dict[str, SourceKind],
    gauges: dict[str, dict[str, float]],
    counted: Iterable[_Counts],
    log_errors: int,
) -> Row:
    counted = list(counted)
    agents = [gauges[source] for source, kind in sources.items() if kind is SourceKind.AGENT]
    values: dict[str, float] = {}
    for name in _MEANS:
        if of_agents := [agent[name] for agent in agents if name in agent]:
            values[name] = fsum(of_agents) / len(of_agents)
    for name in _SUMS:
        if of_agents := [agent[name] for agent in agents if name in agent]:
            values[name] = fsum(of_agents)
    if log_errors or any(kind is not SourceKind.AGENT for kind in sources.values()):
        values["requests"] = fsum(counts.requests for counts in counted)
        values["errors"] = fsum(counts.errors for counts in counted) + log_errors
    others = [gauges[source] for source, kind in sources.items() if kind is not SourceKind.AGENT]
    values |= _sums([*others, *(counts.counters for counts in counted)])
    latency = LatencySketch()
    named = sorted({name for counts in counted for name in counts.histograms})[:MAX_FLEET_HISTOGRAMS]
    histograms = {name: LatencySketch() for name in named}
    for counts in counted:
        if counts.latency is not None:
            latency.merge(counts.latency)
        for name, sketch in counts.histograms.items():
            if name in histograms:
                histograms[name].merge(sketch)
    return Row.of_second(second, values, latency, histograms)


def _sums(parts: list[dict[str, float]]) -> dict[str, float]:
    """Return the sum of every metric that is not the record's own; bounded in number."""
    sums: dict[str, float] = {}
    for part in parts:
        for name, value in part.items():
            if name not in _OWN:
                sums[name] = sums.get(name, 0.0) + value
    if len(sums) > MAX_FLEET_METRICS:
        return {name: sums[name] for name in sorted(sums)[:MAX_FLEET_METRICS]}
    return sums
