"""Histograms of other systems, converted to sketches. Pure.

A bucket counts the values between two bounds: they are spread evenly over it, as Prometheus assumes when it
interpolates. So percentiles are as exact as the buckets are narrow.
"""

import math
from collections.abc import Sequence
from itertools import pairwise

from services.latency_sketch import BadSample, LatencySketch

MAX_BUCKETS = 1000
# Points that stand for the values of one bucket, fewer where buckets are many (and narrow).
_SPREAD = 9
_MAX_SPREAD = 1000  # of all buckets together: each costs a third of a microsecond
# A bucket of an exponential histogram narrower than this counts as its middle: within the sketch's own 1 %.
_NARROW = 1.02


def from_explicit(
    bounds: Sequence[float],
    counts: Sequence[float],
    *,
    low: float | None = None,
    high: float | None = None,
    scale: float = 1.0,
) -> LatencySketch:
    """Return the sketch of buckets: `counts[i]` values in (bounds[i-1], bounds[i]], the last ones above all bounds.

    `low` and `high` are the extremes, if known; `scale` converts the bounds' unit to the sketch's.

    Raises:
        BadSample: bounds that do not rise, counts that do not fit them, or values below zero.
    """
    if len(counts) > MAX_BUCKETS or len(counts) != len(bounds) + 1:
        raise BadSample("bad_sketch", f"there must be one count more than bounds, and at most {MAX_BUCKETS}")
    if not all(map(math.isfinite, bounds)) or any(a >= b for a, b in pairwise(bounds)):
        raise BadSample("bad_sketch", "bounds must be finite and rise")
    sketch, steps = LatencySketch(), _steps(len(counts))
    for index, count in enumerate(counts):
        if not count:
            continue
        if not 0 < count < math.inf:
            raise BadSample("bad_sketch", "counts must be finite and not negative")
        lower = bounds[index - 1] if index else min(0.0, bounds[0] if bounds else 0.0)
        upper = bounds[index] if index < len(bounds) else None
        if low is not None and low > lower and (upper is None or low < upper):
            lower = low
        if upper is None:
            upper = max(lower, high) if high is not None else lower
        elif high is not None and lower < high < upper:
            upper = high
        if upper < 0 or (lower < 0 < upper):
            raise BadSample("bad_sketch", "values below zero have no percentiles here")
        _spread(sketch, max(0.0, lower) * scale, upper * scale, count, steps)
    return sketch


def from_exponential(
    scale: int, zero_count: float, offset: int, counts: Sequence[float], *, factor: float = 1.0
) -> LatencySketch:
    """Return the sketch of an exponential histogram: bucket `i` is (base^(offset+i), base^(offset+i+1)].

    `base` is 2^(2^-scale); `factor` converts the unit to the sketch's.
    https://opentelemetry.io/docs/specs/otel/metrics/data-model/#exponentialhistogram

    Raises:
        BadSample: a scale or an offset no values could have, too many buckets, or negative counts.
    """
    if not -10 <= scale <= 20 or len(counts) > MAX_BUCKETS:
        raise BadSample("bad_sketch", f"the scale must be from -10 to 20, with at most {MAX_BUCKETS} buckets")
    sketch, steps = LatencySketch(), _steps(len(counts))
    if zero_count:
        sketch.add_many(0.0, zero_count)
    per_bucket = math.ldexp(1.0, -scale)  # log2 of the base
    for index, count in enumerate(counts):
        if not count:
            continue
        exponent = (offset + index) * per_bucket
        if not -1000 < exponent < 1000:
            raise BadSample("bad_sketch", "a bucket is out of range")
        lower, upper = 2.0**exponent * factor, 2.0 ** (exponent + per_bucket) * factor
        if upper < lower * _NARROW:
            sketch.add_many(math.sqrt(lower * upper), count)
        else:
            _spread(sketch, lower, upper, count, steps)
    return sketch


def _steps(buckets: int) -> int:
    """Return an odd number, so that one point is in the middle of its bucket."""
    return (min(_SPREAD, _MAX_SPREAD // max(1, buckets)) - 1) | 1


def _spread(sketch: LatencySketch, lower: float, upper: float, count: float, steps: int) -> None:
    if lower == upper:
        sketch.add_many(upper, count)
        return
    width = (upper - lower) / steps
    for step in range(steps):
        sketch.add_many(lower + (step + 0.5) * width, count / steps)
