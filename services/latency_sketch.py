"""A mergeable sketch of latencies: DDSketch with a relative accuracy of 1 %.

A value `v` falls into the bin `ceil(log_gamma(v))` with `gamma = (1 + accuracy) / (1 - accuracy)`: all values of a bin
are within 1 % of its value. Sketches merge by adding bins, exactly as if one had counted all values; averages of
percentiles do not. Source: Masson, Rim, Lee, "DDSketch", VLDB 2019. Bins are those of the `ddsketch` libraries (Python,
Go, JavaScript). The mapping is theirs; their stores take twice the time of a plain dictionary in `add`, which runs once
per request of a gateway, and their quantiles take another rank.
"""

from collections.abc import Iterable, Iterator
from math import ceil, fsum, inf, log

from ddsketch.mapping import LogarithmicMapping

from services.wire.events import Sketch
from services.wire.records import UNSET

RELATIVE_ACCURACY = 0.01
# Values below count in `zero`; values above are refused. Between them lie about 2,420 bins: no source can
# make a sketch grow further. 1e12 ms are 31 years.
MIN_MS = 1e-9
MAX_MS = 1e12
# More values than any sketch has; keeps sums of sketches finite.
MAX_COUNT = 1e15

_MAPPING = LogarithmicMapping(RELATIVE_ACCURACY)
_PER_LOG: float = 1.0 / log(_MAPPING.gamma)
_MIN_BIN: int = ceil(log(MIN_MS) * _PER_LOG)
_MAX_BIN: int = ceil(log(MAX_MS) * _PER_LOG)
_BIN_VALUES: list[float] = [float(_MAPPING.value(key)) for key in range(_MIN_BIN, _MAX_BIN + 1)]


class BadSample(ValueError):
    """An impossible latency or sketch; `reason` is a metric label."""

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason


class LatencySketch:
    """Latencies in milliseconds. Not thread-safe."""

    __slots__ = ("bins", "count", "max", "min", "sum", "zero")

    def __init__(self, values: Iterable[float] = ()) -> None:
        self.bins: dict[int, float] = {}
        self.zero: float = 0.0
        self.count: float = 0.0
        self.sum: float = 0.0
        self.min: float = inf
        self.max: float = -inf
        for value in values:
            self.add(value)

    def add(self, ms: float) -> None:
        """Count one latency, in about half a microsecond.

        Raises:
            BadSample: NaN, infinite, negative, or over `MAX_MS`; nothing was counted.
        """
        if MIN_MS <= ms <= MAX_MS:
            key = ceil(log(ms) * _PER_LOG)
            bins = self.bins
            bins[key] = bins.get(key, 0.0) + 1.0
        elif 0 <= ms < MIN_MS:
            self.zero += 1.0
        else:
            raise BadSample("bad_latency", f"not a latency in ms: {ms!r}")
        self.count += 1.0
        self.sum += ms
        if ms < self.min:
            self.min = ms
        if ms > self.max:
            self.max = ms

    def add_many(self, value: float, count: float) -> None:
        """Count one value `count` times; the count may be a fraction.

        Raises:
            BadSample: a value no sketch holds, or a count that is not positive; nothing was counted.
        """
        if not 0 < count <= MAX_COUNT:
            raise BadSample("bad_sketch", f"not a count: {count!r}")
        if not 0 <= value <= MAX_MS:
            raise BadSample("bad_latency", f"out of range: {value!r}")
        if value < MIN_MS:
            self.zero += count
        else:
            key = ceil(log(value) * _PER_LOG)
            self.bins[key] = self.bins.get(key, 0.0) + count
        self.count += count
        self.sum += value * count
        self.min = min(self.min, value)
        self.max = max(self.max, value)

    def weighted(self) -> Iterator[tuple[float, float]]:
        """Yield the value of each bin, and its count."""
        if self.zero:
            yield 0.0, self.zero
        for key, count in self.bins.items():
            yield _BIN_VALUES[key - _MIN_BIN], count

    def since(self, before: "LatencySketch") -> "LatencySketch | None":
        """Return the values added after `before`, an earlier state of the same sketch; None if it is not one.

        Its extremes are those of its lowest and highest bins, within 1 %.
        """
        later = LatencySketch()
        for key, count in self.bins.items():
            new = count - before.bins.get(key, 0.0)
            if new < 0:
                return None
            if new > 0:
                later.bins[key] = new
        later.zero = self.zero - before.zero
        later.count = later.zero + fsum(later.bins.values())
        if later.zero < 0 or not before.bins.keys() <= self.bins.keys():
            return None
        if later.count:
            values = [value for value, _ in later.weighted()]
            later.min, later.max = min(values), max(values)
            later.sum = max(0.0, self.sum - before.sum)
        return later

    def merge(self, other: "LatencySketch") -> None:
        """Add all values of `other` to this sketch."""
        if not other.count:
            return
        bins = self.bins
        for key, count in other.bins.items():
            bins[key] = bins.get(key, 0.0) + count
        self.zero += other.zero
        self.count += other.count
        self.sum += other.sum
        self.min = min(self.min, other.min)
        self.max = max(self.max, other.max)

    def quantile(self, q: float) -> float | None:
        """Return, within 1 %, the least value that a share `q` of all does not exceed; None when empty."""
        values = self.quantiles((q,))
        return values[0] if values else None

    def quantiles(self, qs: tuple[float, ...]) -> list[float] | None:
        """Return the values at several quantiles, given in rising order; None when nothing was counted.

        Nearest rank: of ten latencies the 99th percentile is the slowest; interpolation and the DDSketch
        libraries would return the one before.
        """
        if not self.count:
            return None
        found: list[float] = []
        ascending = iter(sorted(self.bins))
        seen, value = self.zero, self.min
        for q in qs:
            # 0.07 * 100 is a little over 7 in floating point; it must not become the 8th value.
            rank = max(0.0, ceil(q * self.count * (1.0 - 1e-12)) - 1.0)
            while rank >= seen:
                key = next(ascending, None)
                if key is None:  # floating-point counts fall short of their sum
                    seen, value = inf, self.max
                else:
                    seen += self.bins[key]
                    # The extremes are known exactly: no quantile lies outside them.
                    value = min(max(_BIN_VALUES[key - _MIN_BIN], self.min), self.max)
            found.append(value)
        return found

    def to_wire(self) -> Sketch:
        """Return the form that crosses the bus and is stored. It is a copy."""
        if not self.count:
            return Sketch()
        return Sketch(
            bins=dict(self.bins), zero=self.zero, count=self.count, sum=self.sum, min=self.min, max=self.max
        )

    @classmethod
    def from_wire(cls, wire: Sketch) -> "LatencySketch":
        """Return the sketch that `wire` describes. `count` comes from the bins, not from the sender's word.

        Raises:
            BadSample: a count, a bin or an extreme that no values could have made.
        """
        sketch = cls()
        count = wire.zero
        if not 0 <= count <= MAX_COUNT:
            raise BadSample("bad_sketch", "a count is negative, too large or not a number")
        for key, n in wire.bins.items():
            if not _MIN_BIN <= key <= _MAX_BIN:
                raise BadSample("bad_sketch", f"bin {key} is out of range")
            if not 0 < n <= MAX_COUNT:
                raise BadSample("bad_sketch", f"the count of bin {key} is not positive or too large")
            count += n
        if not count:
            return sketch
        low, high = wire.min, wire.max
        if low is UNSET or high is UNSET or not 0 <= low <= high <= MAX_MS:
            raise BadSample("bad_sketch", "min and max are missing or out of order")
        if not 0 <= wire.sum <= MAX_MS * MAX_COUNT:
            raise BadSample("bad_sketch", "the sum is negative, too large or not a number")
        sketch.bins = dict(wire.bins)
        sketch.zero = wire.zero
        sketch.count = count
        sketch.sum = wire.sum
        sketch.min = low
        sketch.max = high
        return sketch
