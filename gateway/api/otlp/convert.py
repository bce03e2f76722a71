"""Data points of OTLP metrics, checked one by one and converted to reports for the bus. Pure.

- A resource is a source: its `service.name`, with `service.namespace` before it. `service.instance.id` separates its
  instances: the totals of each are compared with earlier ones of the same.
- Attributes of a point are labels; each label set of a source is a series.
- Gauges and non-monotonic totals are gauges; monotonic sums are counters; histograms become sketches. Durations of
  served requests (`_SERVED`) also are the source's requests, errors and latency.

A bad point is refused by itself, with a reason. https://opentelemetry.io/docs/specs/otlp/#otlphttp
"""

import math
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field

from opentelemetry.proto.common.v1.common_pb2 import KeyValue
from opentelemetry.proto.metrics.v1.metrics_pb2 import (
    AggregationTemporality,
    DataPointFlags,
    ExponentialHistogramDataPoint,
    HistogramDataPoint,
    Metric,
    NumberDataPoint,
)
from opentelemetry.proto.resource.v1.resource_pb2 import Resource

from gateway.api.histograms import from_explicit, from_exponential
from gateway.api.otlp.split import Piece
from gateway.api.responses import ApiError
from services.latency_sketch import BadSample, LatencySketch
from services.wire.codes import ErrorCode
from services.wire.events import (
    MAX_LABEL_BYTES,
    MAX_LABELS_PER_SOURCE,
    MetricsReport,
    SketchTotal,
    Total,
    is_timely,
)
from services.wire.names import METRIC_NAME, InvalidName, normalize_name

MAX_POINTS = 20_000
# As SDKs have it: https://opentelemetry.io/docs/specs/otel/common/#attribute-limits
_MAX_RESOURCE_ATTRIBUTES = 128
# A report is written at once, and has to fit the bus: what is more goes into another one.
_MAX_REPORT_WEIGHT = 20_000
_WEIGHT_OF_NAME = 2  # a bin of a histogram weighs one
_DELTA = AggregationTemporality.AGGREGATION_TEMPORALITY_DELTA
_CUMULATIVE = AggregationTemporality.AGGREGATION_TEMPORALITY_CUMULATIVE
# Semantic conventions, present and past, and milliseconds per unit.
_SERVED = {"http.server.request.duration": 1000.0, "http.server.duration": 1.0, "rpc.server.duration": 1.0}
_STATUS = ("http.response.status_code", "http.status_code")


class _PointRefused(Exception):
    """A refused point; the message is shown to the sender."""


@dataclass(slots=True)
class Export:
    """Content of one request: reports for the bus, the number of refused points by reason, and warnings."""

    reports: list[MetricsReport] = field(default_factory=list)
    refused: Counter[str] = field(default_factory=Counter)
    warnings: set[str] = field(default_factory=set)


@dataclass(slots=True)
class _Draft:
    """The report of one label set of one instance, as it fills."""

    source: str
    instance: str
    labels: dict[str, str]
    requests: float = 0.0
    errors: float = 0.0
    since: int = 0
    weight: int = 0
    latency: LatencySketch | None = None
    gauges: dict[str, float] = field(default_factory=dict)
    counters: dict[str, float] = field(default_factory=dict)
    histograms: dict[str, LatencySketch] = field(default_factory=dict)
    totals: dict[str, Total] = field(default_factory=dict)
    histogram_totals: dict[str, SketchTotal] = field(default_factory=dict)

    def report(self, now_ms: int) -> MetricsReport:
        histograms = {name: sketch.to_wire() for name, sketch in self.histograms.items()}
        if self.latency is not None:
            histograms["latency"] = self.latency.to_wire()
        return MetricsReport(
            source=self.source,
            kind="app",
            boot="",
            seq=0,
            timestamp=now_ms,
            requests=self.requests,
            errors=self.errors,
            gauges=self.gauges,
            counters=self.counters,
            labels=self.labels,
            histograms=histograms,
            totals=self.totals,
            histogram_totals=self.histogram_totals,
            instance=self.instance,
            counts_since=self.since,
        )

    def weight_of(self, name: str) -> int:
        """Return the weight of one metric within the report."""
        parts = (self.gauges, self.counters, self.totals, self.histograms, self.histogram_totals)
        weight = _WEIGHT_OF_NAME * sum(name in part for part in parts)
        if name in self.histograms:
            weight += len(self.histograms[name].bins)
        if name in self.histogram_totals:
            weight += len(self.histogram_totals[name].sketch.bins)
        return weight

    def counts_from(self, point: "Point") -> None:
        """Note the start of the counts of a delta: that of the earliest point."""
        start = point.start_time_unix_nano // 1_000_000
        self.since = min(self.since or start, start)


_Drafts = dict[tuple[tuple[str, str], ...], _Draft]  # by label set


def convert(pieces: Iterable[Piece | None], export: Export, now_ms: int) -> Iterator[None]:
    """Add the reports of pieces that arrived at `now_ms` to an export; the sender fills in `boot` and `seq`.

    A step, between two yields, is a millisecond or two of work.

    Raises:
        ApiError: `too_large` for a resource with more than `_MAX_RESOURCE_ATTRIBUTES`.
    """
    seen = 0
    resource: Resource | None = None
    attributes: dict[str, str] = {}
    drafts: _Drafts = {}
    for piece in pieces:
        yield
        if piece is None:
            continue
        if piece.resource is not resource:
            for draft in drafts.values():
                export.reports.append(draft.report(now_ms))
                yield
            drafts, resource = {}, piece.resource
            if len(resource.attributes) > _MAX_RESOURCE_ATTRIBUTES:
                text = f"a resource has more than {_MAX_RESOURCE_ATTRIBUTES} attributes"
                raise ApiError(ErrorCode.TOO_LARGE, text)
            attributes = _texts(resource.attributes)
        kind = piece.metric.WhichOneof("data")
        points: Sequence[Point] = getattr(piece.metric, kind).data_points if kind is not None else ()
        seen += len(points)
        if seen > MAX_POINTS:
            export.refused[f"more than {MAX_POINTS} points in one request"] += len(points)
            continue
        for point in points:
            try:
                filled = _convert_point(drafts, attributes, piece.metric, point, now_ms)
            except (_PointRefused, BadSample, InvalidName) as fault:
                export.refused[str(fault)] += 1
            else:
                if filled is not None and filled.weight >= _MAX_REPORT_WEIGHT:
                    del drafts[_key(filled.labels)]
                    export.reports.append(filled.report(now_ms))
                    yield
            yield
    for draft in drafts.values():
        export.reports.append(draft.report(now_ms))
        yield


Point = NumberDataPoint | HistogramDataPoint | ExponentialHistogramDataPoint


def _convert_point(
    drafts: _Drafts, resource: dict[str, str], metric: Metric, point: Point, now_ms: int
) -> _Draft | None:
    if point.flags & DataPointFlags.DATA_POINT_FLAGS_NO_RECORDED_VALUE_MASK:
        return None
    if not METRIC_NAME.fullmatch(metric.name):
        raise _PointRefused(
            "a metric's name is a letter or _ and up to 63 letters, digits, and any of _ . : -"
        )
    at = point.time_unix_nano // 1_000_000
    if point.time_unix_nano and not is_timely(at, now_ms):
        raise _PointRefused("the time of a point is over an hour old or of the future")
    labels = _labels(point)
    key = _key(labels)
    draft = drafts.get(key)
    if draft is None:
        draft = drafts[key] = _Draft(_source(resource), _instance(resource), labels)
    before = draft.weight_of(metric.name)
    _add(draft, metric, point)
    draft.weight += draft.weight_of(metric.name) - before
    return draft


def _key(labels: dict[str, str]) -> tuple[tuple[str, str], ...]:
    return tuple(sorted(labels.items()))


def _add(draft: _Draft, metric: Metric, point: Point) -> None:
    if isinstance(point, NumberDataPoint):
        value = float(point.as_int) if point.WhichOneof("value") == "as_int" else point.as_double
        if not math.isfinite(value):
            raise _PointRefused("numbers must be finite")
        if metric.HasField("gauge"):
            draft.gauges[metric.name] = value
        else:
            _add_sum(draft, metric, point, value)
    elif isinstance(point, HistogramDataPoint):
        low = point.min if point.HasField("min") else None
        high = point.max if point.HasField("max") else None
        temporality = metric.histogram.aggregation_temporality
        if temporality == _CUMULATIVE:
            low = high = None  # they are those of all times, not of what is new
        counts = [float(count) for count in point.bucket_counts] or [float(point.count)]
        sketch = from_explicit(list(point.explicit_bounds), counts, low=low, high=high)
        _add_histogram(draft, metric.name, point, temporality, sketch)
    elif isinstance(point, ExponentialHistogramDataPoint):
        if sum(point.negative.bucket_counts):
            raise _PointRefused("values below zero have no percentiles here")
        positive = point.positive
        sketch = from_exponential(
            point.scale, float(point.zero_count), positive.offset, list(positive.bucket_counts)
        )
        temporality = metric.exponential_histogram.aggregation_temporality
        _add_histogram(draft, metric.name, point, temporality, sketch)
    else:
        raise _PointRefused("summaries are not taken: their quantiles cannot be merged")


def _add_sum(draft: _Draft, metric: Metric, point: NumberDataPoint, value: float) -> None:
    temporality = metric.sum.aggregation_temporality
    if temporality not in (_DELTA, _CUMULATIVE):
        raise _PointRefused("a sum needs an aggregation temporality")
    if not metric.sum.is_monotonic:
        if temporality == _DELTA:
            raise _PointRefused("deltas of a sum that may fall are not taken: export it as cumulative")
        draft.gauges[metric.name] = value
        return
    if value < 0:
        raise _PointRefused("a monotonic sum cannot be negative")
    if temporality == _DELTA:
        draft.counts_from(point)
        draft.counters[metric.name] = draft.counters.get(metric.name, 0.0) + value
    else:
        draft.totals[metric.name] = Total(value=value, start=point.start_time_unix_nano // 1_000_000)


def _add_histogram(
    draft: _Draft,
    name: str,
    point: HistogramDataPoint | ExponentialHistogramDataPoint,
    temporality: int,
    sketch: LatencySketch,
) -> None:
    if temporality not in (_DELTA, _CUMULATIVE):
        raise _PointRefused("a histogram needs an aggregation temporality")
    served = _scaled(sketch, _SERVED[name]) if name in _SERVED else None
    failed = any(draft.labels.get(status, "").startswith("5") for status in _STATUS)
    if temporality == _DELTA:
        draft.counts_from(point)
        draft.histograms.setdefault(name, LatencySketch()).merge(sketch)
        if served is not None:
            draft.latency = draft.latency or LatencySketch()
            draft.latency.merge(served)
            draft.requests += point.count
            draft.errors += point.count if failed else 0.0
        return
    start = point.start_time_unix_nano // 1_000_000
    draft.histogram_totals[name] = SketchTotal(sketch=sketch.to_wire(), start=start)
    if served is not None:
        draft.histogram_totals["latency"] = SketchTotal(sketch=served.to_wire(), start=start)
        draft.totals["requests"] = Total(value=float(point.count), start=start)
        draft.totals["errors"] = Total(value=float(point.count) if failed else 0.0, start=start)


def _scaled(sketch: LatencySketch, factor: float) -> LatencySketch:
    """Return the sketch of all values times a factor, within the sketch's own accuracy."""
    scaled = LatencySketch()
    for value, count in sketch.weighted():
        scaled.add_many(value * factor, count)
    return scaled


def _source(resource: dict[str, str]) -> str:
    name = resource.get("service.name") or "unknown_service"
    namespace = resource.get("service.namespace")
    return normalize_name(f"{namespace}/{name}" if namespace else name, "service.name")


def _instance(resource: dict[str, str]) -> str:
    named = [resource.get(name, "") for name in ("service.instance.id", "host.name", "process.pid")]
    return (named[0] or ":".join(filter(None, named)))[:MAX_LABEL_BYTES]


def _labels(point: Point) -> dict[str, str]:
    if len(point.attributes) > MAX_LABELS_PER_SOURCE:
        raise _PointRefused(f"more than {MAX_LABELS_PER_SOURCE} attributes")
    labels = _texts(point.attributes)
    for name, value in labels.items():
        if not name or len(name) + len(value) > MAX_LABEL_BYTES:
            raise _PointRefused(f"an attribute has more than {MAX_LABEL_BYTES} characters, or no name")
    return labels


def _texts(attributes: Iterable[KeyValue]) -> dict[str, str]:
    """Return attributes as text, without arrays and maps."""
    texts: dict[str, str] = {}
    for attribute in attributes:
        kind = attribute.value.WhichOneof("value")
        if kind == "string_value":
            texts[attribute.key] = attribute.value.string_value
        elif kind == "bool_value":
            texts[attribute.key] = "true" if attribute.value.bool_value else "false"
        elif kind == "int_value":
            texts[attribute.key] = str(attribute.value.int_value)
        elif kind == "double_value":
            texts[attribute.key] = f"{attribute.value.double_value:g}"
    return texts
