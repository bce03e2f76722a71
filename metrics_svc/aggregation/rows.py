"""Rows: the metrics of one series over one span of time.

Each metric is kept as sum, count, min, max and last, which merge without loss. Latencies and histograms are kept as
sketches, because percentiles cannot be merged.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from types import MappingProxyType

import msgspec

from services.latency_sketch import LatencySketch
from services.wire.records import UNSET, MetricPoint, MetricsRecord, Network

# The series of the fleet; every other series has the name of a source or a label set.
FLEET = ""
PERCENTILES = (0.50, 0.95, 0.99)
# The histogram of the latencies of requests, in ms. Its percentiles have names of their own.
LATENCY = "latency"
LATENCY_NAMES = ("latencyP50", "latencyP95", "latencyP99")
QUANTILE_SUFFIXES = ("p50", "p95", "p99")
# Metrics of a record; a row may have more.
RECORD_NAMES = (
    "cpu", "memory", "disk", "network_in", "network_out", "requests", "errors", *LATENCY_NAMES,
)  # fmt: skip

Percentiles = tuple[float, float, float]


class Stat(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """One metric over one span of time."""

    sum: float
    count: int
    min: float
    max: float
    last: float

    @classmethod
    def of(cls, value: float) -> "Stat":
        return cls(value, 1, value, value, value)

    def combine(self, later: "Stat") -> "Stat":
        return Stat(
            self.sum + later.sum,
            self.count + later.count,
            min(self.min, later.min),
            max(self.max, later.max),
            later.last,
        )


@dataclass(slots=True)
class Row:
    """Metrics of a series from second `start` on; `seconds` counts the seconds with reports.

    `histograms` and their `quantiles` are keyed by name; without sketches a row has `quantiles` alone.
    """

    start: int
    seconds: int = 1
    stats: dict[str, Stat] = field(default_factory=dict)
    histograms: dict[str, LatencySketch] = field(default_factory=dict)
    quantiles: dict[str, Percentiles] = field(default_factory=dict)

    @classmethod
    def of_second(
        cls,
        start: int,
        values: Mapping[str, float],
        histograms: Mapping[str, LatencySketch] = MappingProxyType({}),
    ) -> "Row":
        """Row of one second, from the values measured or counted in it."""
        row = cls(start, 1, {name: Stat.of(value) for name, value in values.items()})
        for name, sketch in histograms.items():
            if not sketch.count:
                continue
            row.histograms[name] = sketch
            row.quantiles[name] = percentiles_of(sketch)
            if name == LATENCY:
                row.stats.update(zip(LATENCY_NAMES, map(Stat.of, row.quantiles[name]), strict=True))
            else:
                mean = sketch.sum / sketch.count
                row.stats[name] = Stat(sketch.sum, max(1, round(sketch.count)), sketch.min, sketch.max, mean)
        return row

    def value(self, name: str) -> float | None:
        """Mean of a metric, or a percentile of all measured values; None if absent.

        `NAME.p50`, `NAME.p95` and `NAME.p99` are percentiles of the histogram NAME; NAME alone is its mean.
        """
        if self.is_percentile(name):
            histogram, rank = _percentile(name)
            return self.quantiles[histogram][rank]
        stat = self.stats.get(name)
        return stat.sum / stat.count if stat is not None else None

    def is_percentile(self, name: str) -> bool:
        histogram, _ = _percentile(name)
        return histogram in self.quantiles and (histogram == LATENCY or name not in self.stats)

    def measured(self, name: str) -> float:
        """Number of values behind a percentile or histogram of this row."""
        sketch = self.histograms.get(name) or self.histograms.get(_percentile(name)[0])
        return sketch.count if sketch is not None else 0.0


@lru_cache(maxsize=1024)
def _percentile(name: str) -> tuple[str, int]:
    """Histogram of a percentile's name, and its index in `PERCENTILES`; an empty name for other metrics."""
    if name in LATENCY_NAMES:
        return LATENCY, LATENCY_NAMES.index(name)
    histogram, _, suffix = name.rpartition(".")
    if suffix not in QUANTILE_SUFFIXES or histogram == LATENCY:
        return "", 0
    return histogram, QUANTILE_SUFFIXES.index(suffix)


class RowAccumulator:
    """Merges rows, added in order of time, into one. Percentiles are computed once, at the end."""

    __slots__ = ("_seconds", "_stats", "histograms", "start")

    def __init__(self, start: int, rows: Iterable[Row] = ()) -> None:
        self.start = start
        self._seconds = 0
        self._stats: dict[str, Stat] = {}
        self.histograms: dict[str, LatencySketch] = {}
        for row in rows:
            self.add(row)

    def add(self, row: Row) -> None:
        """Add one row without changing it."""
        self._seconds += row.seconds
        stats = self._stats
        for name, stat in row.stats.items():
            before = stats.get(name)
            stats[name] = before.combine(stat) if before else stat
        for name, histogram in row.histograms.items():
            self.histograms.setdefault(name, LatencySketch()).merge(histogram)

    def row(self) -> Row:
        """Return the merged row. Nothing may be added afterwards."""
        quantiles = {name: percentiles_of(sketch) for name, sketch in self.histograms.items()}
        return Row(self.start, self._seconds, self._stats, self.histograms, quantiles)


def percentiles_of(sketch: LatencySketch) -> Percentiles:
    p50, p95, p99 = sketch.quantiles(PERCENTILES) or (0.0, 0.0, 0.0)
    return p50, p95, p99


def round3(value: float) -> float:
    """Round to three decimals, in half the time of `round(value, 3)`: a day of minutes is 47,000 numbers."""
    return round(value * 1000) / 1000


def to_record(row: Row, step: int, *, rollup: bool) -> MetricsRecord:
    """Record for clients; its timestamp is the end of the `step` seconds, in ms.

    A metric without reports is 0 in the record, whose fields are not optional. Alert rules use the row, where it
    is absent. `rollup` adds `min`, `max` and `count`.
    """
    stats = {name: row.stats[name] for name in RECORD_NAMES if name in row.stats}
    means = dict.fromkeys(RECORD_NAMES, 0.0)
    means.update({name: round3(stat.sum / stat.count) for name, stat in stats.items()})
    if LATENCY in row.quantiles:
        means.update(zip(LATENCY_NAMES, map(round3, row.quantiles[LATENCY]), strict=True))
    return MetricsRecord(
        cpu=means["cpu"],
        memory=means["memory"],
        disk=means["disk"],
        network=Network(in_=means["network_in"], out=means["network_out"]),
        requests=means["requests"],
        errors=means["errors"],
        latency_p50=means["latencyP50"],
        latency_p95=means["latencyP95"],
        latency_p99=means["latencyP99"],
        timestamp=(row.start + step) * 1000,
        min={name: round3(stat.min) for name, stat in stats.items()} if rollup else UNSET,
        max={name: round3(stat.max) for name, stat in stats.items()} if rollup else UNSET,
        count=row.seconds if rollup else UNSET,
    )


def unmeasured(row: Row) -> list[str]:
    """Fields of the row's record without a measurement."""
    absent = [name for name in RECORD_NAMES if name not in row.stats and not name.startswith("network")]
    return absent if "network_in" in row.stats or "network_out" in row.stats else [*absent, "network"]


def to_point(row: Row, metric: str, step: int, *, rollup: bool) -> MetricPoint | None:
    """Point of one metric for clients; None if the row lacks the metric."""
    value = row.value(metric)
    if value is None:
        return None
    stat = row.stats.get(metric) if rollup else None
    return MetricPoint(
        timestamp=(row.start + step) * 1000,
        value=round3(value),
        min=round3(stat.min) if stat is not None else UNSET,
        max=round3(stat.max) if stat is not None else UNSET,
        count=row.seconds if rollup else UNSET,
    )
