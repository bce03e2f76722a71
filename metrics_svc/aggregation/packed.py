"""Rows as the store keeps them: MessagePack, bins of a sketch as differences.

Measured, with latencies that spread widely (log-normal, sigma 1); the fleet's series has the metrics of gateways too:

| series | a second | ten seconds | a minute | an hour of seconds and a day of tens | a day of minutes | all that is kept |
|---|---|---|---|---|---|---|
| an agent | 94 B | 244 B | 244 B | 2.4 MB | 0.35 MB | 13 MB |
| an application with ten counters | 130 B | 232 B | 246 B | 2.5 MB | 0.35 MB | 13 MB |
| the fleet, without requests | 268 B | 577 B | 590 B | 5.9 MB | 0.85 MB | 31 MB |
| the fleet, 30 timed requests/s | 443 B | 1,090 B | 1,137 B | 11 MB | 1.6 MB | 60 MB |
| the fleet, 1,000 timed requests/s | 742 B | 1,206 B | 1,494 B | 13 MB | 2.2 MB | 78 MB |

The most a row can take is bounded by the range of the sketch (`services.latency_sketch`), by the metrics and histograms a source
may have, and the number of series at any one time by `MAX_SOURCES` and `MAX_LABEL_SETS` (`admission`).
"""

from bisect import bisect_right
from collections.abc import Collection, Iterable, Sequence
from itertools import accumulate
from math import ceil, fsum, inf
from operator import add, attrgetter
from typing import cast

import msgspec

from metrics_svc.aggregation.rows import PERCENTILES, Percentiles, Row, Stat
from services.latency_sketch import LatencySketch, bin_value


class _PackedSketch(msgspec.Struct, array_like=True, frozen=True):
    """Whole counts become integers. `bins` alternates the distance from the bin before and the count.

    Where the bins lie close together, `bins` are the counts alone, of each bin from `first` on: that is smaller, and is
    added up several times faster.
    """

    zero: int | float
    sum: float
    min: float
    max: float
    bins: list[int | float]
    first: int | None = None


class PackedRow(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """A stat of a single value is packed as that value. Sketches stay packed until somebody merges them.

    `gc=False`: it holds no cycles, and thousands of them at a time would set the collector to work.
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
    """Return the row as the store keeps it."""
    stats = {name: _pack_stat(stat) for name, stat in row.stats.items()}
    latency = _pack_sketch(row.latency) if row.latency is not None else None
    whole = (row.start, row.seconds, stats, row.percentiles, latency)
    if not row.histograms:
        return _encode(whole)
    histograms = {name: _pack_sketch(sketch) for name, sketch in row.histograms.items()}
    return _encode((*whole, row.quantiles, histograms))


def _pack_stat(stat: Stat) -> object:
    if stat.count == 1:
        return _whole(stat.last)
    return (_whole(stat.sum), stat.count, _whole(stat.min), _whole(stat.max), _whole(stat.last))


def unpack(data: bytes, *, sketch: bool) -> Row:
    """Return the row packed as `data`; without `sketch` what was measured is left out (its percentiles are not).

    Raises:
        msgspec.DecodeError: not a row.
    """
    return _unpacked(decode_row(data), sketch)


def unpack_between(
    stored: Iterable[bytes], start: int, end: int, *, sketch: bool, only: Collection[str] | None = None
) -> list[Row]:
    """Return those of the packed rows that begin in [start, end), with all metrics or `only` some.

    The sketches of other rows are not unpacked.

    Raises:
        msgspec.DecodeError: not rows.
    """
    return [
        _unpacked(packed, sketch, only) for packed in map(decode_row, stored) if start <= packed.start < end
    ]


def _unpacked(packed: PackedRow, sketch: bool, only: Collection[str] | None = None) -> Row:
    stored = packed.stats
    names = stored if only is None else [name for name in only if name in stored]
    stats = {name: _unpack_stat(stored[name]) for name in names}
    row = Row(packed.start, packed.seconds, stats, None, packed.percentiles)
    if sketch and packed.latency is not None:
        row.latency = _unpack_sketch(packed.latency)
    if packed.quantiles:
        row.quantiles = packed.quantiles
        if sketch:
            row.histograms = {name: _unpack_sketch(data) for name, data in packed.histograms.items()}
    return row


def _unpack_stat(stat: float | Stat) -> Stat:
    return stat if isinstance(stat, Stat) else Stat.of(float(stat))


def _whole(value: float) -> int | float:
    """Return a whole number as an integer: one to five bytes instead of nine."""
    return int(value) if float(value).is_integer() else value


def _pack_sketch(sketch: LatencySketch) -> bytes:
    keys = sorted(sketch.bins)
    span = keys[-1] - keys[0] + 1 if keys else 0
    ends = (_whole(sketch.zero), sketch.sum, sketch.min, sketch.max)
    if span and span <= 2 * len(keys):
        counts = [_whole(sketch.bins.get(key, 0)) for key in range(keys[0], keys[-1] + 1)]
        return _encode(_PackedSketch(*ends, counts, keys[0]))
    bins: list[int | float] = []
    before = 0
    for key in keys:
        bins += (key - before, _whole(sketch.bins[key]))
        before = key
    return _encode(_PackedSketch(*ends, bins))


def _unpack_sketch(data: bytes) -> LatencySketch:
    """Return what `_pack_sketch` packed. It is ours: checking it again would double the cost of a query."""
    adding = SketchAccumulator()
    adding.add(data)
    return adding.sketch()


class SketchAccumulator:
    """Packed sketches being added up, in one dense list of counts that begins at bin `base`."""

    __slots__ = ("_base", "_counts", "_max", "_min", "_sum", "_zero")

    def __init__(self) -> None:
        self._base = 0
        self._counts: list[float] = []
        self._zero = 0.0
        self._sum = 0.0
        self._min = inf
        self._max = -inf

    def add(self, data: bytes) -> None:
        """Add what one packed sketch holds."""
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
        """Make room for the bins from `first` to before `end`; return where `first` is in the list."""
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
        """Return the sketch of everything added."""
        sketch = LatencySketch()
        sketch.bins = {key: float(count) for key, count in enumerate(self._counts, self._base) if count}
        sketch.zero = float(self._zero)
        sketch.count = sketch.zero + fsum(self._counts)
        sketch.sum, sketch.min, sketch.max = self._sum, self._min, self._max
        return sketch

    def percentiles(self) -> Percentiles:
        """Return what `rows.percentiles_of` would of the sketch, without making it."""
        seen = list(accumulate(self._counts, initial=self._zero))
        ranks = (max(0.0, ceil(q * seen[-1] * (1.0 - 1e-12)) - 1.0) for q in PERCENTILES)
        p50, p95, p99 = (self._at(bisect_right(seen, rank)) for rank in ranks)
        return p50, p95, p99

    def _at(self, index: int) -> float:
        if index == 0:
            return self._min
        value = bin_value(self._base + min(index, len(self._counts)) - 1)
        return min(max(value, self._min), self._max)


def merge_packed(
    start: int,
    rows: Iterable[PackedRow],
    *,
    sketches: bool,
    only: Collection[str] | None = None,
    keep_sketches: bool = False,
) -> Row:
    """Return one row that covers several packed ones, given in order of time, with all metrics or `only` some.

    A day is 1,440 minutes: they are merged by column, and sketches are added up as they are read. The row has the
    percentiles of all that was measured (not without `sketches`), and a sketch only with `keep_sketches`.
    """
    columns: dict[str, list[float | Stat]] = {}
    latency: SketchAccumulator | None = None
    histograms: dict[str, SketchAccumulator] = {}
    seconds = 0
    for packed in rows:
        seconds += packed.seconds
        stats = packed.stats
        for name in stats if only is None else only:
            if (stat := stats.get(name)) is not None:
                columns.setdefault(name, []).append(stat)
        if sketches and packed.latency is not None:
            latency = latency or SketchAccumulator()
            latency.add(packed.latency)
        if sketches:
            for name, data in packed.histograms.items():
                histograms.setdefault(name, SketchAccumulator()).add(data)
    row = Row(start, seconds, {name: _over(column) for name, column in columns.items()})
    if latency is not None:
        row.percentiles = latency.percentiles()
    row.quantiles = {name: adding.percentiles() for name, adding in histograms.items()}
    if keep_sketches:
        row.latency = latency.sketch() if latency is not None else None
        row.histograms = {name: adding.sketch() for name, adding in histograms.items()}
    return row


def _over(column: Sequence[float | Stat]) -> Stat:
    """Return the stat of one metric over several stretches, given in order of time."""
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
