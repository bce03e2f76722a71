"""One metric out of packed rows. A day of ten seconds is 8,640 rows: what nobody asked for is not even unpacked."""

from collections.abc import Callable, Iterable
from functools import lru_cache
from typing import Any

import msgspec

from metrics_svc.aggregation.rows import LATENCY_NAMES, QUANTILE_SUFFIXES, Percentiles, Stat, shown
from services.wire.names import METRIC_NAME
from services.wire.records import MetricPoint


@lru_cache(maxsize=64)
def _decoder(metric: str) -> Callable[[bytes], Any]:
    """Return what reads the beginning of a `packed.PackedRow`, with one metric of all `stats`, as `stats.value`."""
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
    """Say whether `points` can answer for a metric; percentiles of histograms lie too deep in a row."""
    return METRIC_NAME.fullmatch(metric) is not None and metric.rpartition(".")[2] not in QUANTILE_SUFFIXES


def points(stored: Iterable[bytes], metric: str, start: int, end: int, step: int) -> list[MetricPoint]:
    """Return one metric of those rollup rows of `step` seconds that begin in [start, end); rows without it are left out.

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
                value=shown(value),
                min=shown(least),
                max=shown(most),
                count=row.seconds,
            )
        )
    return found
