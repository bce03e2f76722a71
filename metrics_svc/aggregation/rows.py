"""A row: what one series did during one stretch of time.

Every metric is kept as sum, count, min, max and last, which merge without loss; latencies are kept as a
sketch, because percentiles do not merge at all.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

import msgspec

from services.latency_sketch import LatencySketch
from services.wire.records import UNSET, MetricPoint, MetricsRecord, Network

PERCENTILES = (0.50, 0.95, 0.99)
LATENCY_NAMES = ("latencyP50", "latencyP95", "latencyP99")
QUANTILE_SUFFIXES = ("p50", "p95", "p99")
# What a record shows; a row may have more.
RECORD_NAMES = (
    "cpu", "memory", "disk", "network_in", "network_out", "requests", "errors", *LATENCY_NAMES,
)  # fmt: skip

Percentiles = tuple[float, float, float]


class Stat(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """One metric over one stretch of time."""

    sum: float
    count: int
    min: float
    max: float
    last: float

    @classmethod
    def of(cls, value: float) -> "Stat":
        """Return the stat of a single value."""
        return cls(value, 1, value, value, value)

    def then(self, later: "Stat") -> "Stat":
        """Return the stat of this stretch followed by a later one."""
        return Stat(
            self.sum + later.sum,
            self.count + later.count,
            min(self.min, later.min),
            max(self.max, later.max),
            later.last,
        )

    @property
    def mean(self) -> float:
        """The mean of the values."""
        return self.sum / self.count


@dataclass(slots=True)
class Row:
    """What a series did from second `start` on; `seconds` counts the seconds in which it was heard of.

    `latency` is None when nothing was timed, and then `percentiles` is too. Other `histograms` go by name, and so
    do their percentiles (`quantiles`).
    """

    start: int
    seconds: int = 1
    stats: dict[str, Stat] = field(default_factory=dict)
    latency: LatencySketch | None = None
    percentiles: Percentiles | None = None
    histograms: dict[str, LatencySketch] = field(default_factory=dict)
    quantiles: dict[str, Percentiles] = field(default_factory=dict)

    @classmethod
    def of_second(
        cls,
        start: int,
        values: dict[str, float],
        latency: LatencySketch | None,
        histograms: Mapping[str, LatencySketch] = MappingProxyType({}),
    ) -> "Row":
        """Return the row of one second from values measured or counted in it."""
        row = cls(start, 1, {name: Stat.of(value) for name, value in values.items()})
        if latency is not None and latency.count:
            row.latency = latency
            row.percentiles = percentiles_of(latency)
            row.stats.update(zip(LATENCY_NAMES, map(Stat.of, row.percentiles), strict=True))
        for name, sketch in histograms.items():
            if sketch.count:
                row.histograms[name] = sketch
                row.quantiles[name] = percentiles_of(sketch)
                mean = sketch.sum / sketch.count
                row.stats[name] = Stat(sketch.sum, max(1, round(sketch.count)), sketch.min, sketch.max, mean)
        return row

    def value(self, name: str) -> float | None:
        """Return a metric's mean over the stretch, or a percentile of all that was measured; None if absent.

        Percentiles of the histogram NAME are `NAME.p50`, `NAME.p95` and `NAME.p99`; NAME alone is its mean.
        """
        if self.percentiles is not None and name in LATENCY_NAMES:
            return self.percentiles[LATENCY_NAMES.index(name)]
        stat = self.stats.get(name)
        if stat is not None:
            return stat.mean
        base, _, suffix = name.rpartition(".")
        if base in self.quantiles and suffix in QUANTILE_SUFFIXES:
            return self.quantiles[base][QUANTILE_SUFFIXES.index(suffix)]
        return None

    def is_percentile(self, name: str) -> bool:
        """Say whether `value` of this name is a percentile."""
        if name in LATENCY_NAMES:
            return self.percentiles is not None
        base, _, suffix = name.rpartition(".")
        return name not in self.stats and suffix in QUANTILE_SUFFIXES and base in self.quantiles

    def measured(self, name: str) -> float:
        """Return how many values a percentile or histogram is made of in this row."""
        if name in LATENCY_NAMES:
            return self.latency.count if self.latency is not None else 0.0
        sketch = self.histograms.get(name) or self.histograms.get(name.rpartition(".")[0])
        return sketch.count if sketch is not None else 0.0


class RowAccumulator:
    """One row in the making that covers several, given in order of time. Adding is cheap; percentiles come last."""

    __slots__ = ("_seconds", "_stats", "histograms", "latency", "start")

    def __init__(self, start: int) -> None:
        self.start = start
        self._seconds = 0
        self._stats: dict[str, Stat] = {}
        self.latency: LatencySketch | None = None
        self.histograms: dict[str, LatencySketch] = {}

    def add(self, row: Row) -> None:
        """Take one row in; it is not changed."""
        self._seconds += row.seconds
        stats = self._stats
        for name, stat in row.stats.items():
            before = stats.get(name)
            stats[name] = before.then(stat) if before else stat
        if row.latency is not None:
            if self.latency is None:
                self.latency = LatencySketch()
            self.latency.merge(row.latency)
        for name, histogram in row.histograms.items():
            self.histograms.setdefault(name, LatencySketch()).merge(histogram)

    def row(self) -> Row:
        """Return the row. Nothing may be added afterwards."""
        merged = Row(self.start, self._seconds, self._stats, self.latency, histograms=self.histograms)
        if self.latency is not None:
            merged.percentiles = percentiles_of(self.latency)
        merged.quantiles = {name: percentiles_of(sketch) for name, sketch in self.histograms.items()}
        return merged


def merge(start: int, rows: Iterable[Row]) -> Row:
    """Return one row that covers several, given in order of time."""
    merging = RowAccumulator(start)
    for row in rows:
        merging.add(row)
    return merging.row()


def percentiles_of(sketch: LatencySketch) -> Percentiles:
    """Return the percentiles that rows keep of a sketch."""
    p50, p95, p99 = sketch.quantiles(PERCENTILES) or (0.0, 0.0, 0.0)
    return p50, p95, p99


def shown(value: float) -> float:
    """Return the value with three decimals: records are read by people and sent to every browser each second.

    In half the time of `round(value, 3)`: a day of minutes is 47,000 numbers.
    """
    return round(value * 1000) / 1000


def to_record(row: Row, step: int, *, rollup: bool) -> MetricsRecord:
    """Return the row as clients see it, stamped with the end of its stretch of `step` seconds, in ms.

    A metric nobody reported is 0 in the record (its fields are not optional); alert rules look at the row,
    where it is absent. `rollup` adds `min`, `max` and `count`.
    """
    means = dict.fromkeys(RECORD_NAMES, 0.0)
    least: dict[str, float] = {}
    most: dict[str, float] = {}
    stats = row.stats
    for name in RECORD_NAMES:
        stat = stats.get(name)
        if stat is not None:
            means[name] = shown(stat.sum / stat.count)
            if rollup:
                least[name] = shown(stat.min)
                most[name] = shown(stat.max)
    if row.percentiles is not None:
        means.update(zip(LATENCY_NAMES, [shown(value) for value in row.percentiles], strict=True))
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
        min=least if rollup else UNSET,
        max=most if rollup else UNSET,
        count=row.seconds if rollup else UNSET,
    )


def unmeasured(row: Row) -> list[str]:
    """Return the fields of the row's record that nobody measured."""
    absent = [name for name in RECORD_NAMES if name not in row.stats and not name.startswith("network")]
    return absent if "network_in" in row.stats or "network_out" in row.stats else [*absent, "network"]


def to_point(row: Row, metric: str, step: int, *, rollup: bool) -> MetricPoint | None:
    """Return one metric of the row as clients see it; None where the row does not have it."""
    value = row.value(metric)
    if value is None:
        return None
    stat = row.stats.get(metric) if rollup else None
    return MetricPoint(
        timestamp=(row.start + step) * 1000,
        value=shown(value),
        min=shown(stat.min) if stat is not None else UNSET,
        max=shown(stat.max) if stat is not None else UNSET,
        count=row.seconds if rollup else UNSET,
    )
