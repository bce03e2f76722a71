"""Metrics that applications push: items checked one by one and turned into reports for the bus. Pure.

A bad item is refused by itself, with its index and a reason; the good ones beside it are accepted.
"""

import math
from collections.abc import Generator
from typing import Annotated

import msgspec

from gateway.api.body import decode
from gateway.api.histograms import from_explicit
from gateway.api.pushes import LabelSets, ReportNumbers, check_item
from gateway.api.responses import ApiError
from services.latency_sketch import BadSample, LatencySketch
from services.wire.codes import ErrorCode
from services.wire.events import (
    MAX_HISTOGRAMS_PER_SOURCE,
    MAX_LABEL_BYTES,
    MAX_LABEL_SETS_PER_SOURCE,
    MAX_LABELS_PER_SOURCE,
    MAX_LATENCIES,
    MetricsReport,
    Sketch,
    is_timely,
)
from services.wire.names import METRIC_NAME, normalize_name
from services.wire.records import UNSET, Record, UnsetType

MAX_ITEM_BYTES = 256 * 1024
DEFAULT_SOURCE = "app"

_MAX_SERIES = 100
_MAX_BUCKETS = 500

_Count = Annotated[float, msgspec.Meta(ge=0)]
_Latencies = Annotated[list[_Count], msgspec.Meta(max_length=MAX_LATENCIES)]
_Gauges = Annotated[dict[str, float], msgspec.Meta(max_length=_MAX_SERIES)]
_Counters = Annotated[dict[str, _Count], msgspec.Meta(max_length=_MAX_SERIES)]
_LabelValue = Annotated[str, msgspec.Meta(max_length=MAX_LABEL_BYTES)]
_Labels = Annotated[dict[str, _LabelValue], msgspec.Meta(max_length=MAX_LABELS_PER_SOURCE)]


class PushedBuckets(Record, frozen=True, kw_only=True):
    """A histogram: `counts[i]` values up to `bounds[i]`, and one count more for what lies above all bounds."""

    bounds: Annotated[list[float], msgspec.Meta(max_length=_MAX_BUCKETS)]
    counts: Annotated[list[_Count], msgspec.Meta(max_length=_MAX_BUCKETS + 1)]


_Histograms = Annotated[
    dict[str, _Latencies | PushedBuckets], msgspec.Meta(max_length=MAX_HISTOGRAMS_PER_SOURCE)
]


class PushedItem(Record, frozen=True, kw_only=True):
    """One item as an application sends it. `requests`, `errors` and `counters` count since its last push.

    `latencies` are in ms. `histograms` are values, or buckets, by name and in any unit; one named `latency` is more
    of the latencies.
    """

    source: str = DEFAULT_SOURCE
    labels: _Labels = msgspec.field(default_factory=dict)
    timestamp: int | UnsetType = UNSET
    requests: _Count = 0.0
    errors: _Count = 0.0
    latencies: _Latencies = msgspec.field(default_factory=list)
    gauges: _Gauges = msgspec.field(default_factory=dict)
    counters: _Counters = msgspec.field(default_factory=dict)
    histograms: _Histograms = msgspec.field(default_factory=dict)


def report_of(
    raw: msgspec.Raw, now_ms: int, numbers: ReportNumbers, label_sets: LabelSets
) -> Generator[None, None, MetricsReport]:
    """Return the report of one item that arrived at `now_ms`, after steps of a few milliseconds.

    Raises:
        ApiError, InvalidName: a field of the item is wrong; the message names it.
    """
    check_item(raw, MAX_ITEM_BYTES)
    item = decode(raw, PushedItem)
    source = normalize_name(item.source, "source")
    _check_series("gauges", item.gauges)
    _check_series("counters", item.counters)
    for label in item.labels:
        _check_metric_name("labels", label)
    if not all(map(math.isfinite, (item.requests, item.errors, *item.latencies))):
        raise _invalid("numbers must be finite")
    timestamp = now_ms if item.timestamp is UNSET else item.timestamp
    if not is_timely(timestamp, now_ms):
        raise _invalid("`timestamp` must be in milliseconds, at most an hour old and not of the future")
    histograms = {}
    for name, pushed in item.histograms.items():
        yield
        histograms[name] = _histogram(name, pushed)
    yield
    if item.labels and not label_sets.admit(source, item.labels):
        raise ApiError(
            ErrorCode.CONFLICT,
            f"`labels`: the source has {MAX_LABEL_SETS_PER_SOURCE} label sets already; what differs between any two requests is no label",
        )
    boot, seq = numbers.next_of(source)
    since = numbers.last_push(source, item.labels, timestamp)
    return MetricsReport(
        source=source,
        kind="app",
        boot=boot,
        seq=seq,
        timestamp=timestamp,
        requests=item.requests,
        errors=item.errors,
        latencies=item.latencies,
        gauges=item.gauges,
        counters=item.counters,
        labels=item.labels,
        histograms=histograms,
        counts_since=since,
    )


def _histogram(name: str, pushed: list[float] | PushedBuckets) -> Sketch:
    _check_metric_name("histograms", name)
    try:
        if isinstance(pushed, PushedBuckets):
            return from_explicit(pushed.bounds, pushed.counts).to_wire()
        return LatencySketch(pushed).to_wire()
    except BadSample as fault:
        raise _invalid(f"`histograms.{name}`: {fault}") from None


def _check_series(what: str, series: dict[str, float]) -> None:
    for name, value in series.items():
        _check_metric_name(what, name)
        if not math.isfinite(value):
            raise _invalid(f"`{what}.{name}` must be finite")


def _check_metric_name(what: str, name: str) -> None:
    if not METRIC_NAME.fullmatch(name):
        raise _invalid(
            f"`{what}`: a name is a letter or _ and up to 63 letters, digits, and any of _ . : - after it"
        )


def _invalid(message: str) -> ApiError:
    return ApiError(ErrorCode.INVALID_FIELD, message)
