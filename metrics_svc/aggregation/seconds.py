"""Per-second buckets of all sources. Closing a second gives the fleet's row and each source's.

A report counts in the second in which it arrives, by our clock: one that is late counts in a later second,
and nothing waits for it. Counts belong to their second alone; a gauge holds until the next report, or until
it is stale. Of the fleet, cpu, memory and disk are means over agents, network is their sum; requests and
errors are sums over all sources, and so is every other metric of gateways and applications; latencies and
histograms are merged.

The reports of an application with labels make a series of their own per label set, and count in the
application's too; there a gauge is the sum over its label sets.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field
from math import fsum

from metrics_svc.aggregation.admission import Sample, SourceKind
from metrics_svc.aggregation.rows import Row
from services.sketch import LatencySketch

FLEET = ""
FRESH_S = 3
# In the fleet's row, beside the record's own: the first so many names, in alphabetical order.
MAX_FLEET_METRICS = 64
MAX_FLEET_HISTOGRAMS = 8
# 1 in every second in which a source is known to live: what rules about its silence watch.
UP = "up"
_MEANS = ("cpu", "memory", "disk")
_SUMS = ("network_in", "network_out")
_OWN = frozenset((*_MEANS, *_SUMS, "requests", "errors", UP))


@dataclass(slots=True)
class ClosedSecond:
    """The rows of one second, by series; the fleet's is always there, under `FLEET`.

    `parts` names those that are one label set of a source, and which source that is.
    """

    second: int
    rows: dict[str, Row]
    labels: dict[str, dict[str, str]]
    parts: dict[str, str] = field(default_factory=dict)


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
    gauges: dict[str, tuple[int, float]] = field(default_factory=dict)
    labels: dict[str, str] = field(default_factory=dict)

    def take(self, second: int, counts: _Counts) -> None:
        self.kind = counts.kind
        self.second = second
        self.gauges.update({name: (second, value) for name, value in counts.gauges.items()})
        self.labels = counts.labels or self.labels

    def drop_stale(self, oldest: int) -> None:
        """Forget the gauges last set before second `oldest`."""
        for name in [name for name, (set_in, _) in self.gauges.items() if set_in < oldest]:
            del self.gauges[name]

    def values(self) -> dict[str, float]:
        return {name: value for name, (_, value) in self.gauges.items()}


class Seconds:
    """Collects samples, closes seconds. `fresh_s`: how many seconds a gauge holds."""

    def __init__(self, *, fresh_s: int = FRESH_S) -> None:
        self._fresh_s = fresh_s
        self._buckets: dict[int, dict[str, _Counts]] = {}
        self._log_errors: dict[int, int] = {}
        self._held: dict[str, _Held] = {}
        self._closed = 0

    def add(self, sample: Sample, now: float) -> None:
        """Count a sample that arrived at `now` (seconds since 1970)."""
        bucket = self._buckets.setdefault(self._open_second(now), {})
        counts = bucket.get(sample.source)
        if counts is None or counts.kind is not sample.kind:
            self._forget_others(sample, bucket)
            counts = bucket[sample.source] = _Counts(sample.kind)
        counts.add(sample)
        if not sample.part:
            counts.gauges.update(sample.gauges)
            counts.labels = sample.labels or counts.labels
            return
        part = bucket.get(sample.part)
        if part is None:
            part = bucket[sample.part] = _Counts(sample.kind, sample.source, labels=sample.labels)
        part.add(sample)
        part.gauges.update(sample.gauges)

    def _forget_others(self, sample: Sample, bucket: dict[str, _Counts]) -> None:
        """Forget what an application said under this name, now that an agent or a gateway has it."""
        held = self._held.get(sample.source)
        if held is not None and held.kind is not sample.kind:
            for series in [name for name, part in self._held.items() if part.whole == sample.source]:
                del self._held[series]
            del self._held[sample.source]
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

    def close(self, second: int) -> ClosedSecond:
        """Return the rows of `second`. Seconds close in rising order; what came in a skipped one is lost."""
        self._closed = second
        counted = self._buckets.pop(second, {})
        log_errors = self._log_errors.pop(second, 0)
        for stale in [early for early in self._buckets if early < second]:
            del self._buckets[stale]
        for stale in [early for early in self._log_errors if early < second]:
            del self._log_errors[stale]
        for series, counts in counted.items():
            self._held.setdefault(series, _Held(counts.kind, counts.whole)).take(second, counts)
        oldest = second - self._fresh_s + 1
        for series in [name for name, held in self._held.items() if held.second < oldest]:
            del self._held[series]
        for held in self._held.values():
            held.drop_stale(oldest)
        gauges = self._gauges()
        rows = {
            series: _series_row(second, held, gauges[series], counted.get(series))
            for series, held in self._held.items()
        }
        sources = {series: held.kind for series, held in self._held.items() if not held.whole}
        of_sources = [counts for counts in counted.values() if not counts.whole]
        rows[FLEET] = _fleet_row(second, sources, gauges, of_sources, log_errors)
        return ClosedSecond(
            second,
            rows,
            {series: held.labels for series, held in self._held.items()},
            {series: held.whole for series, held in self._held.items() if held.whole},
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
