"""Per-second buckets of all sources. Closing a second gives the fleet's row and each source's.

A report counts in the second in which it arrives, by our clock: one that is late counts in a later second,
and nothing waits for it. Counts belong to their second alone; a gauge holds until the next report, or until
it is stale. Of the fleet, cpu, memory and disk are means over agents, network is their sum; requests and
errors are sums over all sources; latencies are merged.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field
from math import fsum

from metrics_svc.aggregation.admission import Sample, SourceKind
from metrics_svc.aggregation.rows import Row
from services.sketch import LatencySketch

FLEET = ""
FRESH_S = 3
_MEANS = ("cpu", "memory", "disk")
_SUMS = ("network_in", "network_out")


@dataclass(slots=True)
class ClosedSecond:
    """The rows of one second, by series; the fleet's is always there, under `FLEET`."""

    second: int
    rows: dict[str, Row]
    labels: dict[str, dict[str, str]]


@dataclass(slots=True)
class _Counts:
    """What one source counted within one second, and its newest gauges in it."""

    kind: SourceKind
    requests: float = 0.0
    errors: float = 0.0
    latency: LatencySketch | None = None
    counters: dict[str, float] = field(default_factory=dict)
    gauges: dict[str, float] = field(default_factory=dict)
    labels: dict[str, str] = field(default_factory=dict)

    def add(self, sample: Sample) -> None:
        self.requests += sample.requests
        self.errors += sample.errors
        if sample.latency is not None:
            if self.latency is None:
                self.latency = LatencySketch()
            self.latency.merge(sample.latency)
        for name, value in sample.counters.items():
            self.counters[name] = self.counters.get(name, 0.0) + value
        self.gauges.update(sample.gauges)
        self.labels = sample.labels or self.labels


@dataclass(slots=True)
class _Held:
    """What holds of a source between its reports; of each gauge also the second it was last set in."""

    kind: SourceKind
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
        if counts is None:
            counts = bucket[sample.source] = _Counts(sample.kind)
        counts.add(sample)

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
        for source, counts in counted.items():
            self._held.setdefault(source, _Held(counts.kind)).take(second, counts)
        oldest = second - self._fresh_s + 1
        for source in [name for name, held in self._held.items() if held.second < oldest]:
            del self._held[source]
        for held in self._held.values():
            held.drop_stale(oldest)
        rows = {source: _source_row(second, held, counted.get(source)) for source, held in self._held.items()}
        rows[FLEET] = _fleet_row(second, self._held.values(), counted.values(), log_errors)
        return ClosedSecond(second, rows, {name: held.labels for name, held in self._held.items()})


def _source_row(second: int, held: _Held, counts: _Counts | None) -> Row:
    values = held.values()
    if counts is None:
        counts = _Counts(held.kind)
    if held.kind is not SourceKind.AGENT:  # an agent serves no requests: none is not the same as nought
        values |= {"requests": counts.requests, "errors": counts.errors}
    return Row.of_second(second, values | counts.counters, counts.latency)


def _fleet_row(second: int, held: Iterable[_Held], counted: Iterable[_Counts], log_errors: int) -> Row:
    held, counted = list(held), list(counted)
    agents = [source.values() for source in held if source.kind is SourceKind.AGENT]
    values: dict[str, float] = {}
    for name in _MEANS:
        if gauges := [agent[name] for agent in agents if name in agent]:
            values[name] = fsum(gauges) / len(gauges)
    for name in _SUMS:
        if gauges := [agent[name] for agent in agents if name in agent]:
            values[name] = fsum(gauges)
    if log_errors or any(source.kind is not SourceKind.AGENT for source in held):
        values["requests"] = fsum(counts.requests for counts in counted)
        values["errors"] = fsum(counts.errors for counts in counted) + log_errors
    latency = LatencySketch()
    for counts in counted:
        if counts.latency is not None:
            latency.merge(counts.latency)
    return Row.of_second(second, values, latency)
