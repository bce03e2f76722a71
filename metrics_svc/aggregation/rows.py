"""A row: what one series did during one stretch of time.

Every metric is kept as sum, count, min, max and last, which merge without loss; latencies are kept as a
sketch, because percentiles do not merge at all. Rows are packed for the store (MessagePack, bins of a sketch as
differences). Measured for the fleet's series, with latencies that spread widely (log-normal, sigma 1):

| requests/s | a second | ten seconds | a minute | an hour, a day and 30 days of them | a day of minutes |
|---|---|---|---|---|---|
| 0 | 124 B | 327 B | 327 B | 18 MB | 0.5 MB |
| 30 | 300 B | 838 B | 1,054 B | 54 MB | 1.5 MB |
| 1,000 | 674 B | 1,162 B | 1,541 B | 79 MB | 2.2 MB |

An agent's series, without latencies, takes 12 MB. The number of bins, and so the most a row can take, is bounded
by the range of the sketch (`services.sketch`), the number of series by `admission.MAX_SOURCES` at any one time.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field
from itertools import accumulate
from math import fsum

import msgspec

from services.sketch import LatencySketch
from services.wire.records import UNSET, MetricsRecord, Network

PERCENTILES = (0.50, 0.95, 0.99)
LATENCY_NAMES = ("latencyP50", "latencyP95", "latencyP99")


class Stat(msgspec.Struct, array_like=True, frozen=True):
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

    `latency` is None when nothing was timed, and then `percentiles` is too.
    """

    start: int
    seconds: int = 1
    stats: dict[str, Stat] = field(default_factory=dict)
    latency: LatencySketch | None = None
    percentiles: tuple[float, float, float] | None = None

    @classmethod
    def of_second(cls, start: int, values: dict[str, float], latency: LatencySketch | None) -> "Row":
        """Return the row of one second from values measured or counted in it."""
        row = cls(start, 1, {name: Stat.of(value) for name, value in values.items()})
        if latency is not None and latency.count:
            row.latency = latency
            row.percentiles = _percentiles(latency)
            row.stats.update(zip(LATENCY_NAMES, map(Stat.of, row.percentiles), strict=True))
        return row

    def value(self, name: str) -> float | None:
        """Return a metric's mean over the stretch, or the percentile of all its latencies; None if absent."""
        if self.percentiles is not None and name in LATENCY_NAMES:
            return self.percentiles[LATENCY_NAMES.index(name)]
        stat = self.stats.get(name)
        return stat.mean if stat else None


def merge(start: int, rows: Iterable[Row]) -> Row:
    """Return one row that covers several, given in order of time."""
    merged = Row(start, 0)
    sketch: LatencySketch | None = None
    stats = merged.stats
    for row in rows:
        merged.seconds += row.seconds
        for name, stat in row.stats.items():
            before = stats.get(name)
            stats[name] = before.then(stat) if before else stat
        if row.latency is not None:
            sketch = sketch or LatencySketch()
            sketch.merge(row.latency)
    if sketch is not None:
        merged.latency = sketch
        merged.percentiles = _percentiles(sketch)
    return merged


def _percentiles(sketch: LatencySketch) -> tuple[float, float, float]:
    p50, p95, p99 = sketch.quantiles(PERCENTILES) or (0.0, 0.0, 0.0)
    return p50, p95, p99


def to_record(row: Row, step: int, *, rollup: bool) -> MetricsRecord:
    """Return the row as clients see it, stamped with the end of its stretch of `step` seconds, in ms.

    A metric nobody reported is 0 in the record (its fields are not optional); alert rules look at the row,
    where it is absent. `rollup` adds `min`, `max` and `count`.
    """

    stats = row.stats
    # Three decimals: a record is read by people and sent to every browser each second.
    means = {name: round(stat.sum / stat.count, 3) for name, stat in stats.items()}
    if row.percentiles is not None:
        means.update(zip(LATENCY_NAMES, [round(value, 3) for value in row.percentiles], strict=True))
    mean = means.get
    return MetricsRecord(
        cpu=mean("cpu", 0.0),
        memory=mean("memory", 0.0),
        disk=mean("disk", 0.0),
        network=Network(in_=mean("network_in", 0.0), out=mean("network_out", 0.0)),
        requests=mean("requests", 0.0),
        errors=mean("errors", 0.0),
        latency_p50=mean("latencyP50", 0.0),
        latency_p95=mean("latencyP95", 0.0),
        latency_p99=mean("latencyP99", 0.0),
        timestamp=(row.start + step) * 1000,
        min={name: round(stat.min, 3) for name, stat in stats.items()} if rollup else UNSET,
        max={name: round(stat.max, 3) for name, stat in stats.items()} if rollup else UNSET,
        count=row.seconds if rollup else UNSET,
    )


class _PackedSketch(msgspec.Struct, array_like=True, frozen=True):
    """`bins` alternates the distance from the bin before and the count; whole counts become integers."""

    zero: int | float
    sum: float
    min: float
    max: float
    bins: list[int | float]


class _PackedRow(msgspec.Struct, array_like=True, frozen=True):
    """A stat of a single value is packed as that value. The sketch stays packed until somebody merges it."""

    start: int
    seconds: int
    stats: dict[str, float | Stat]
    percentiles: tuple[float, float, float] | None = None
    latency: bytes | None = None


_encode = msgspec.msgpack.Encoder().encode
_decode_row = msgspec.msgpack.Decoder(_PackedRow).decode
_decode_sketch = msgspec.msgpack.Decoder(_PackedSketch).decode


def pack(row: Row) -> bytes:
    """Return the row as the store keeps it."""
    stats: dict[str, float | Stat] = {
        name: stat.last if stat.count == 1 else stat for name, stat in row.stats.items()
    }
    return _encode(
        _PackedRow(
            row.start,
            row.seconds,
            stats,
            row.percentiles,
            _pack_sketch(row.latency) if row.latency is not None else None,
        )
    )


def unpack(data: bytes, *, sketch: bool) -> Row:
    """Return the row packed as `data`; without `sketch` its latencies are left out (its percentiles are not).

    Raises:
        msgspec.DecodeError: not a row.
    """
    return _unpacked(_decode_row(data), sketch)


def unpack_between(stored: Iterable[bytes], start: int, end: int, *, sketch: bool) -> list[Row]:
    """Return those of the packed rows that begin in [start, end); the sketches of others are not unpacked.

    Raises:
        msgspec.DecodeError: not rows.
    """
    return [_unpacked(packed, sketch) for packed in map(_decode_row, stored) if start <= packed.start < end]


def _unpacked(packed: "_PackedRow", sketch: bool) -> Row:
    stats = {
        name: stat if isinstance(stat, Stat) else Stat.of(float(stat)) for name, stat in packed.stats.items()
    }
    latency = _unpack_sketch(packed.latency) if sketch and packed.latency is not None else None
    return Row(packed.start, packed.seconds, stats, latency, packed.percentiles)


def _whole(count: float) -> int | float:
    return int(count) if count.is_integer() else count


def _pack_sketch(sketch: LatencySketch) -> bytes:
    bins: list[int | float] = []
    before = 0
    for key in sorted(sketch.bins):
        bins += (key - before, _whole(sketch.bins[key]))
        before = key
    return _encode(_PackedSketch(_whole(sketch.zero), sketch.sum, sketch.min, sketch.max, bins))


def _unpack_sketch(data: bytes) -> LatencySketch:
    """Return what `_pack_sketch` packed. It is ours: checking it again would double the cost of a query."""
    packed = _decode_sketch(data)
    sketch = LatencySketch()
    counts = [float(count) for count in packed.bins[1::2]]
    sketch.bins = dict(zip(accumulate(map(int, packed.bins[::2])), counts, strict=True))
    sketch.zero = float(packed.zero)
    sketch.count = sketch.zero + fsum(counts)
    sketch.sum, sketch.min, sketch.max = packed.sum, packed.min, packed.max
    return sketch
