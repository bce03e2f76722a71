"""Validation of reports.

Anyone who may publish can send a report, so nothing in it is trusted: a bad number loses that number, a bad name
that metric, a repeat the whole report. The reason of each rejection is counted; the valid parts are used.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field

from metrics_svc.aggregation.rows import LATENCY
from metrics_svc.aggregation.sources import (
    MAX_INTERVAL_S,
    RejectReason,
    Source,
    SourceKind,
    SourceRegistry,
    series_name,
)
from services.latency_sketch import BadSample, LatencySketch
from services.wire.events import (
    MAX_AGE_S,
    MAX_FUTURE_S,
    MAX_LABEL_BYTES,
    MAX_LABELS_PER_SOURCE,
    MAX_LATENCIES,
    MetricsReport,
    Sketch,
)
from services.wire.names import METRIC_NAME
from services.wire.records import UNSET

# Sums of accepted numbers stay finite and exact enough.
MAX_NUMBER = 1e15

_KINDS = frozenset(SourceKind)


@dataclass(slots=True)
class Counts:
    """Counts by name, also `requests` and `errors`, and histograms by name, also `latency`."""

    counters: dict[str, float] = field(default_factory=dict)
    histograms: dict[str, LatencySketch] = field(default_factory=dict)

    def __bool__(self) -> bool:
        return bool(self.histograms) or any(self.counters.values())

    def count(self, name: str, number: float) -> None:
        self.counters[name] = self.counters.get(name, 0.0) + number

    def measure(self, name: str, sketch: LatencySketch) -> None:
        self.histograms.setdefault(name, LatencySketch()).merge(sketch)

    def add(self, other: "Counts") -> None:
        for name, number in other.counters.items():
            self.count(name, number)
        for name, sketch in other.histograms.items():
            self.measure(name, sketch)


@dataclass(slots=True)
class Sample:
    """The valid part of one report: finite numbers, plain names.

    `series` is the labelled series that the report's labels make, empty without. `interval_s` is the source's report
    interval, `span_s` the time its counts cover; 0: unknown.
    """

    source: str
    kind: SourceKind
    gauges: dict[str, float]
    labels: dict[str, str]
    counts: Counts = field(default_factory=Counts)
    series: str = ""
    interval_s: float = 0.0
    span_s: float = 0.0


@dataclass(slots=True)
class Validation:
    """The sample of a report (None: nothing valid), the rejections, and the number of lost reports before it."""

    sample: Sample | None
    rejections: list[RejectReason]
    lost: int = 0


class ReportValidator(SourceRegistry):
    """Validates reports and keeps the state of their sources."""

    def validate(self, report: MetricsReport, now: float) -> Validation:
        """Validate a report received at `now` (seconds since 1970)."""
        if not self.is_valid_name(report.source):
            return Validation(None, [RejectReason.BAD_SOURCE])
        if report.kind not in _KINDS:
            return Validation(None, [RejectReason.BAD_KIND])
        age_s = now - report.timestamp / 1000
        if age_s < -MAX_FUTURE_S:
            return Validation(None, [RejectReason.FUTURE])
        if age_s > MAX_AGE_S:
            return Validation(None, [RejectReason.TOO_OLD])
        source = self.admit(report.source, SourceKind(report.kind), now)
        if isinstance(source, RejectReason):
            return Validation(None, [source])
        lost = source.accept_seq(report.boot, report.seq)
        if lost is None:
            return Validation(None, [RejectReason.DUPLICATE])
        source.seen_at = now
        rejections: list[RejectReason] = []
        sample = _sample(report, source, rejections)
        if sample.labels and sample.kind is SourceKind.APP:
            series = series_name(sample.source, sample.labels)
            if self.admit_label_set(source, series, now):
                sample.series = series
            else:  # its numbers count, unlabelled
                rejections.append(RejectReason.TOO_MANY_LABEL_SETS)
                sample.labels = {}
        if report.totals or report.histogram_totals:
            _add_totals(report, source, sample, rejections)
        _set_times(report, source, sample, now)
        return Validation(sample, rejections, lost)


def _set_times(report: MetricsReport, source: Source, sample: Sample, now: float) -> None:
    """Set the interval and the span of a sample: as declared, or as observed so far."""
    interval = source.interval_of(report.instance, report.labels, now)
    declared_s = max(0.0, report.interval_ms / 1000)
    sample.interval_s = min(MAX_INTERVAL_S, declared_s or interval.seconds)
    # A gateway discards what it cannot send: its counts never cover a long time.
    spans = [interval.gaps[-1]] if interval.gaps and source.kind is SourceKind.APP else []
    if 0 < report.counts_since < report.timestamp:
        spans.append((report.timestamp - report.counts_since) / 1000)
    sample.span_s = min((*spans, MAX_INTERVAL_S)) if spans else 0.0


def _sample(report: MetricsReport, source: Source, rejections: list[RejectReason]) -> Sample:
    gauges = dict(_numbers(report.gauges, source, rejections, least=-MAX_NUMBER))
    sample = Sample(report.source, source.kind, gauges, _labels(report.labels, rejections))
    counts = sample.counts
    for name, value in _numbers(report.counters, source, rejections, least=0.0):
        counts.count(name, value)
    for name, value in (("requests", report.requests), ("errors", report.errors)):
        if not 0 <= value <= MAX_NUMBER:  # true for NaN
            rejections.append(RejectReason.BAD_NUMBER)
        elif value:
            counts.count(name, value)
    if (latency := _latency(report, rejections)).count:
        counts.measure(LATENCY, latency)
    for name, sketch in _sketches(report.histograms, source, rejections):
        counts.measure(name, sketch)
    return sample


def _add_totals(
    report: MetricsReport, source: Source, sample: Sample, rejections: list[RejectReason]
) -> None:
    """Add the increase of the report's totals. Their state belongs to the instance, label set and name."""
    totals = source.totals.of(report.instance, report.timestamp)
    # By the reported labels, with or without a labelled series: another label set's total is another total.
    label_set = series_name("", report.labels) if report.labels else ""
    numbers = {name: total.value for name, total in report.totals.items()}
    for name, value in _numbers(numbers, source, rejections, least=0.0):
        new = totals.new_count((label_set, name), value, report.totals[name].start)
        if new is None:
            rejections.append(RejectReason.TOO_MANY_TOTALS)
        else:
            sample.counts.count(name, new)
    wires = {name: total.sketch for name, total in report.histogram_totals.items()}
    for name, sketch in _sketches(wires, source, rejections):
        later = totals.new_sketch((label_set, name), sketch, report.histogram_totals[name].start)
        if later is None:
            rejections.append(RejectReason.TOO_MANY_TOTALS)
        elif later.count:
            sample.counts.measure(name, later)


def _sketches(
    wires: dict[str, Sketch], source: Source, rejections: list[RejectReason]
) -> Iterator[tuple[str, LatencySketch]]:
    for name, wire in wires.items():
        known = name == LATENCY or name in source.histograms
        if not known and not METRIC_NAME.fullmatch(name):
            rejections.append(RejectReason.BAD_METRIC_NAME)
        elif name != LATENCY and not source.histograms.admit(name, source.seen_at):
            rejections.append(RejectReason.TOO_MANY_HISTOGRAMS)
        elif (sketch := _sketch(wire, rejections)) is not None:
            yield name, sketch


def _numbers(
    numbers: dict[str, float], source: Source, rejections: list[RejectReason], *, least: float
) -> Iterator[tuple[str, float]]:
    for name, value in numbers.items():
        if name not in source.names and not METRIC_NAME.fullmatch(name):
            rejections.append(RejectReason.BAD_METRIC_NAME)
        elif not source.names.admit(name, source.seen_at):
            rejections.append(RejectReason.TOO_MANY_METRICS)
        elif least <= value <= MAX_NUMBER:  # false for NaN
            yield name, value
        else:
            rejections.append(RejectReason.BAD_NUMBER)


def _sketch(wire: Sketch, rejections: list[RejectReason]) -> LatencySketch | None:
    try:
        return LatencySketch.from_wire(wire)
    except BadSample:
        rejections.append(RejectReason.BAD_SKETCH)
        return None


def _latency(report: MetricsReport, rejections: list[RejectReason]) -> LatencySketch:
    sketch = _sketch(report.latency, rejections) if report.latency is not UNSET else None
    sketch = sketch or LatencySketch()
    if len(report.latencies) > MAX_LATENCIES:
        rejections.append(RejectReason.TOO_MANY_LATENCIES)
    for value in report.latencies[:MAX_LATENCIES]:
        try:
            sketch.add(value)
        except BadSample:
            rejections.append(RejectReason.BAD_LATENCY)
    return sketch


def _labels(labels: dict[str, str], rejections: list[RejectReason]) -> dict[str, str]:
    accepted: dict[str, str] = {}
    for name, value in labels.items():
        if len(accepted) >= MAX_LABELS_PER_SOURCE or len(name) + len(value) > MAX_LABEL_BYTES:
            rejections.append(RejectReason.TOO_MANY_LABELS)
        else:
            accepted[name] = value
    return accepted
