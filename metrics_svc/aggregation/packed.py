"""The stored form of rows: MessagePack, with the bins of a sketch as differences. Merging and points of packed rows.

The range of the sketch (`services.latency_sketch`) and the limits on metrics and histograms of a source bound the size of
a row; `MAX_SOURCES` and `MAX_LABEL_SETS` (`sources`) bound the number of series at any one time. `docs/performance.md` has measured sizes.
"""

from collections.abc import Callable, Collection, Iterable, Sequence
from functools import lru_cache
from itertools import accumulate
from math import fsum, inf
from operator import add, attrgetter
from typing import Any, cast

import msgspec

from metrics_svc.aggregation.rows import (
    LATENCY,
    LATENCY_NAMES,
    QUANTILE_SUFFIXES,
    Percentiles,
    Row,
    Stat,
    percentiles_of,
    round3,
)
from services.latency_sketch import LatencySketch
from services.wire.names import METRIC_NAME
from services.wire.records import MetricPoint


class _PackedSketch(msgspec.Struct, array_like=True, frozen=True):
    """Counts are integers where possible. `bins` alternates the distance from the previous bin and the count.

    With `first`, `bins` are the counts of consecutive bins from `first` on: for dense bins this is smaller and several
    times faster to add up.
    """

    zero: int | float
    sum: float
    min: float
    max: float
    bins: list[int | float]
    first: int | None = None


class PackedRow(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """A stat of a single value is stored as the value. Sketches stay packed until they are merged.

    `latency` is the sketch of the histogram `LATENCY`, `percentiles` are its quantiles.
    `gc=False`: rows hold no cycles, and thousands at a time would trigger the garbage collector.
    """

    start: int
    seconds: int
    stats: dict[str, float | Stat]
    percentiles: Percentiles | None = None
    latency: bytes | None = None
    quantiles: dict[str, Percentiles] = {}
    histograms: dict[str, bytes] = {}


_SUM, _COUNT, _MIN, _MAX = map(attrgetter, ("sum", "count", "min", "max"))

_encode = msgspec.msgpack.Encoder().encode
decode_row = msgspec.msgpack.Decoder(PackedRow).decode
_decode_sketch = msgspec.msgpack.Decoder(_PackedSketch).decode


def pack(row: Row) -> bytes:
    stats = {name: _pack_stat(stat) for name, stat in row.stats.items()}
    histograms = {name: _pack_sketch(sketch) for name, sketch in row.histograms.items()}
    quantiles = dict(row.quantiles)
    fields = (row.start, row.seconds, stats, quantiles.pop(LATENCY, None), histograms.pop(LATENCY, None))
    return _encode((*fields, quantiles, histograms) if histograms else fields)


def _pack_stat(stat: Stat) -> object:
    if stat.count == 1:
        return _as_integer(stat.last)
    return tuple(map(_as_integer, msgspec.structs.astuple(stat)))


def unpack(stored: Iterable[bytes]) -> list[Row]:
    """Decode rows, with percentiles but without sketches. Raises msgspec.DecodeError."""
    return list(map(_unpacked, map(decode_row, stored)))


def unpack_between(stored: Iterable[bytes], start: int, end: int) -> list[Row]:
    """Decode the rows that begin in [start, end). Raises msgspec.DecodeError."""
    return [_unpacked(packed) for packed in map(decode_row, stored) if start <= packed.start < end]


def _unpacked(packed: PackedRow) -> Row:
    stats = {name: _unpack_stat(stat) for name, stat in packed.stats.items()}
    latency = {LATENCY: packed.percentiles} if packed.percentiles is not None else {}
    return Row(packed.start, packed.seconds, stats, quantiles=packed.quantiles | latency)


def _unpack_stat(stat: float | Stat) -> Stat:
    return stat if isinstance(stat, Stat) else Stat.of(float(stat))


def _as_integer(value: float) -> int | float:
    """Whole numbers as integers: one to five bytes instead of nine."""
    return int(value) if float(value).is_integer() else value


def _pack_sketch(sketch: LatencySketch) -> bytes:
    keys = sorted(sketch.bins)
    span = keys[-1] - keys[0] + 1 if keys else 0
    ends = (_as_integer(sketch.zero), sketch.sum, sketch.min, sketch.max)
    if span and span <= 2 * len(keys):
        counts = [_as_integer(sketch.bins.get(key, 0)) for key in range(keys[0], keys[-1] + 1)]
        return _encode(_PackedSketch(*ends, counts, keys[0]))
    bins: list[int | float] = []
    before = 0
    for key in keys:
        bins += (key - before, _as_integer(sketch.bins[key]))
        before = key
    return _encode(_PackedSketch(*ends, bins))


class SketchAccumulator:
    """Sum of packed sketches: one dense list of counts that starts at bin `_base`.

    Sketches are not validated: they are our own, and checks would double the cost of a query.
    """

    __slots__ = ("_base", "_counts", "_max", "_min", "_sum", "_zero")

    def __init__(self) -> None:
        self._base = 0
        self._counts: list[float] = []
        self._zero = 0.0
        self._sum = 0.0
        self._min = inf
        self._max = -inf

    def add(self, data: bytes) -> None:
        packed = _decode_sketch(data)
        self._zero += packed.zero
        self._sum += packed.sum
        self._min = min(self._min, packed.min)
        self._max = max(self._max, packed.max)
        bins = packed.bins
        if not bins:
            return
        if packed.first is not None:
            at = self._reach(packed.first, packed.first + len(bins))
            counts = self._counts
            counts[at : at + len(bins)] = map(add, counts[at : at + len(bins)], bins)
            return
        keys = list(accumulate(map(int, bins[::2])))
        base = keys[0] - self._reach(keys[0], keys[-1] + 1)
        for key, count in zip(keys, bins[1::2], strict=True):
            self._counts[key - base] += count

    def _reach(self, first: int, end: int) -> int:
        """Extend the list to the bins in [first, end); return the index of `first`."""
        if not self._counts:
            self._base = first
        if first < self._base:
            self._counts[:0] = [0.0] * (self._base - first)
            self._base = first
        missing = end - self._base - len(self._counts)
        if missing > 0:
            self._counts += [0.0] * missing
        return first - self._base

    def sketch(self) -> LatencySketch:
        sketch = LatencySketch()
        sketch.bins = {key: float(count) for key, count in enumerate(self._counts, self._base) if count}
        sketch.zero = float(self._zero)
        sketch.count = sketch.zero + fsum(self._counts)
        sketch.sum, sketch.min, sketch.max = self._sum, self._min, self._max
        return sketch


def merge_packed(
    start: int, rows: Iterable[PackedRow], *, sketches: bool, only: Collection[str] | None = None
) -> Row:
    """Merge packed rows, given in order of time, into one row with all metrics or `only` some.

    A day is 1,440 minutes, so rows are merged by column and sketches are added up without unpacking the rows. With
    `sketches` the row has the merged sketches and their percentiles.
    """
    columns: dict[str, list[float | Stat]] = {}
    accumulators: dict[str, SketchAccumulator] = {}
    seconds = 0
    for packed in rows:
        seconds += packed.seconds
        stats = packed.stats
        for name in stats if only is None else only:
            if (stat := stats.get(name)) is not None:
                columns.setdefault(name, []).append(stat)
        if sketches:
            latency = {LATENCY: packed.latency} if packed.latency is not None else {}
            for name, data in (packed.histograms | latency).items():
                accumulators.setdefault(name, SketchAccumulator()).add(data)
    merged = {name: accumulator.sketch() for name, accumulator in accumulators.items()}
    quantiles = {name: percentiles_of(sketch) for name, sketch in merged.items()}
    folded = {name: _fold_column(column) for name, column in columns.items()}
    return Row(start, seconds, folded, merged, quantiles)


def _fold_column(column: Sequence[float | Stat]) -> Stat:
    """Stat of one metric over several spans, given in order of time."""
    if all(isinstance(value, float) for value in column):  # seconds
        values = cast(Sequence[float], column)
        return Stat(sum(values), len(values), min(values), max(values), values[-1])
    stats = [_unpack_stat(stat) for stat in column]
    return Stat(
        sum(map(_SUM, stats)),
        sum(map(_COUNT, stats)),
        min(map(_MIN, stats)),
        max(map(_MAX, stats)),
        stats[-1].last,
    )


@lru_cache(maxsize=64)
def _decoder(metric: str) -> Callable[[bytes], Any]:
    """Decoder of the first fields of a `PackedRow` and of one metric, as `stats.value`; the rest is skipped."""
    only = msgspec.defstruct(
        "Only", [("value", float | Stat | None, None)], rename={"value": metric}, frozen=True, gc=False
    )
    narrow = msgspec.defstruct(
        "Narrow",
        [("start", int), ("seconds", int), ("stats", only), ("percentiles", Percentiles | None, None)],
        array_like=True, frozen=True, gc=False,
    )  # fmt: skip
    return msgspec.msgpack.Decoder(narrow).decode


def has_points(metric: str) -> bool:
    """Report whether `read_points` supports a metric; percentiles of histograms are too deep in a row."""
    return METRIC_NAME.fullmatch(metric) is not None and metric.rpartition(".")[2] not in QUANTILE_SUFFIXES


def read_points(stored: Iterable[bytes], metric: str, start: int, end: int, step: int) -> list[MetricPoint]:
    """Points of one metric from the rollup rows of `step` seconds that begin in [start, end) and have it.

    A day of ten seconds is 8,640 rows, so no other metric is decoded.

    Raises:
        msgspec.DecodeError: not rows.
    """
    rank = LATENCY_NAMES.index(metric) if metric in LATENCY_NAMES else None
    found: list[MetricPoint] = []
    for row in map(_decoder(metric), stored):
        stat: float | Stat | None = row.stats.value
        if stat is None or not start <= row.start < end:
            continue
        if not isinstance(stat, Stat):
            value = least = most = stat
        else:
            value, least, most = stat.sum / stat.count, stat.min, stat.max
        if rank is not None and row.percentiles is not None:
            value = row.percentiles[rank]
        found.append(
            MetricPoint(
                timestamp=(row.start + step) * 1000,
                value=round3(value),
                min=round3(least),
                max=round3(most),
                count=row.seconds,
            )
        )
    return found
