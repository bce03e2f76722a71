"""What applications push as metrics: one item after the other, checked and turned into bus reports. Pure.

A bad item is refused by itself, with its index and a reason; the good ones beside it are taken.
"""

import math
import secrets
from collections.abc import Generator
from typing import Annotated

import msgspec

from gateway.api.body import decode
from gateway.api.histograms import from_explicit
from gateway.api.label_sets import MAX_LABEL_SETS, LabelSets
from gateway.api.responses import ApiError
from services.latency_sketch import BadSample, LatencySketch
from services.wire.codes import ErrorCode
from services.wire.events import MetricsReport, Sketch
from services.wire.names import METRIC_NAME, InvalidName, normalize_name
from services.wire.records import UNSET, Record, UnsetType

MAX_ITEMS = 1000
MAX_ITEM_BYTES = 256 * 1024
DEFAULT_SOURCE = "app"

_MAX_SERIES = 100
_MAX_LABELS = 16
_MAX_LATENCIES = 10_000
_MAX_BUCKETS = 500
_MAX_HISTOGRAMS = 8
# Clocks differ and batches wait; outside these a timestamp is a mistake (seconds for milliseconds, for one).
_OLDEST_MS = 3_600_000
_NEWEST_MS = 60_000

_SOURCES_REMEMBERED = 10_000

_Count = Annotated[float, msgspec.Meta(ge=0)]
_Latencies = Annotated[list[_Count], msgspec.Meta(max_length=_MAX_LATENCIES)]
_Gauges = Annotated[dict[str, float], msgspec.Meta(max_length=_MAX_SERIES)]
_Counters = Annotated[dict[str, _Count], msgspec.Meta(max_length=_MAX_SERIES)]
_LabelValue = Annotated[str, msgspec.Meta(max_length=128)]
_Labels = Annotated[dict[str, _LabelValue], msgspec.Meta(max_length=_MAX_LABELS)]


class PushedBuckets(Record, frozen=True, kw_only=True):
    """A histogram: `counts[i]` values up to `bounds[i]`, and one count more for what lies above all bounds."""

    bounds: Annotated[list[float], msgspec.Meta(max_length=_MAX_BUCKETS)]
    counts: Annotated[list[_Count], msgspec.Meta(max_length=_MAX_BUCKETS + 1)]


_Histograms = Annotated[dict[str, _Latencies | PushedBuckets], msgspec.Meta(max_length=_MAX_HISTOGRAMS)]


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


# An array whose elements are the fields: those after the last one are skipped without an object for each.
_Items = msgspec.defstruct(
    "_Items",
    [(f"item_{index}", msgspec.Raw, msgspec.Raw()) for index in range(MAX_ITEMS + 1)],
    array_like=True,
)


def items_of(body: bytes) -> list[msgspec.Raw]:
    """Return the items of a push: the elements of an array, or the one object.

    Raises:
        ApiError: malformed JSON, or too many items.
    """
    if not body.lstrip(b" \t\r\n").startswith(b"["):
        return [decode(body, msgspec.Raw).copy()]
    items = [item for item in msgspec.structs.astuple(decode(body, _Items)) if len(item)]
    if len(items) > MAX_ITEMS:
        raise ApiError(ErrorCode.TOO_LARGE, f"more than {MAX_ITEMS} items")
    return items


def check_item(raw: msgspec.Raw, max_bytes: int) -> None:
    """Raise ApiError for an item that is larger than `max_bytes`."""
    if len(raw) > max_bytes:
        raise ApiError(ErrorCode.TOO_LARGE, f"an item may be {max_bytes} bytes")


class ReportNumbers:
    """Numbers the reports of each source within one boot, so that metrics_svc recognises a repeat.

    Sources are named by strangers, so only so many are remembered: beyond that a new boot begins.
    """

    def __init__(self) -> None:
        self._last: dict[str, int] = {}
        self._pushed: dict[tuple[str, tuple[tuple[str, str], ...]], int] = {}
        self._boot = secrets.token_hex(8)

    def last_push(self, source: str, labels: dict[str, str], now_ms: int) -> int:
        """Return when a label set of a source was pushed last (ms; 0: not known), and note that it is now."""
        key = source, tuple(sorted(labels.items()))
        if len(self._pushed) >= _SOURCES_REMEMBERED and key not in self._pushed:
            self._pushed.clear()
        before = self._pushed.get(key, 0)
        self._pushed[key] = now_ms
        return before

    def next_of(self, source: str) -> tuple[str, int]:
        """Return (boot, seq) of the next report of a source."""
        if len(self._last) >= _SOURCES_REMEMBERED and source not in self._last:
            self._last.clear()
            self._boot = secrets.token_hex(8)
        seq = self._last[source] = self._last.get(source, 0) + 1
        return self._boot, seq


def report_of(
    raw: msgspec.Raw, now_ms: int, numbers: ReportNumbers, label_sets: LabelSets
) -> Generator[None, None, MetricsReport]:
    """Return the bus report of one item that arrived at `now_ms`, after steps of a few milliseconds.

    Raises:
        ApiError: which field of the item is wrong, and why.
    """
    check_item(raw, MAX_ITEM_BYTES)
    item = decode(raw, PushedItem)
    source = _name(item.source, "source")
    _check_series("gauges", item.gauges)
    _check_series("counters", item.counters)
    for label in item.labels:
        _check_metric_name("labels", label)
    if not all(map(math.isfinite, (item.requests, item.errors, *item.latencies))):
        raise _invalid("numbers must be finite")
    timestamp = now_ms if item.timestamp is UNSET else item.timestamp
    if not now_ms - _OLDEST_MS <= timestamp <= now_ms + _NEWEST_MS:
        raise _invalid("`timestamp` must be in milliseconds, at most an hour old and not of the future")
    histograms = {}
    for name, pushed in item.histograms.items():
        yield
        histograms[name] = _histogram(name, pushed)
    yield
    if item.labels and not label_sets.admit(source, item.labels):
        raise ApiError(
            ErrorCode.CONFLICT,
            f"`labels`: the source has {MAX_LABEL_SETS} label sets already; what differs between any two requests is no label",
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


def _name(text: str, what: str) -> str:
    try:
        return normalize_name(text, what)
    except InvalidName as fault:
        raise ApiError(ErrorCode.INVALID_NAME, str(fault)) from None


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
