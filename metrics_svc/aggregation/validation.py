"""Which reports, and which parts of a report, are taken.

Anyone who may publish can send a report, so nothing in it is believed: a bad number loses that number, a
bad name that metric, a repeat the whole report. Every refusal has a reason, which is counted; the good
parts are taken.
"""

import re
from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass, field
from enum import StrEnum

from metrics_svc.aggregation.totals import Budget, CumulativeTotals, TooManyTotals
from services.latency_sketch import BadSample, LatencySketch
from services.wire.events import MetricsReport, Sketch
from services.wire.names import METRIC_NAME
from services.wire.records import UNSET

MAX_SOURCES = 256
MAX_METRICS_PER_SOURCE = 64
MAX_HISTOGRAMS_PER_SOURCE = 8
MAX_LABELS_PER_SOURCE = 16
MAX_LABEL_BYTES = 128
# Series of their own, beside the sources': each is a row a second.
MAX_LABEL_SETS_PER_SOURCE = 32
MAX_LABEL_SETS = 512
MAX_LATENCIES = 10_000
# Sums of what passes stay finite and exact enough.
MAX_NUMBER = 1e15
# An application unheard of for so long gives its place to another; so does a name of a metric, a label set, a total.
FORGET_S = 300
# The name of an agent or a gateway is kept for so long, where there is room: no application may take it meanwhile.
REMEMBER_S = 86_400
# Reports are filed under our own clock. Theirs only shows that a report is nonsense (from the future) or was
# held back so long that its counts would be taken for a burst of now.
MAX_FUTURE_S = 60
MAX_AGE_S = 3600
# Gateways push for applications, each with a boot of its own: so one source may have several boots at once.
MAX_BOOTS = 64
# Longer times between two reports are no interval: the source was away.
MAX_INTERVAL_S = 120.0
# Reports of one label set that come closer together are parts of one push.
_TOGETHER_S = 0.05
# Of one source: instances times label sets whose intervals are known.
_MAX_RHYTHMS = 1024

_SOURCE_NAME = re.compile(r"[^\x00-\x1f\x7f]{1,128}")
# A source of this name could not be told from a label set of another one (`part_name`).
_LIKE_A_PART = re.compile(r".*\{.*\}", re.DOTALL)


class SourceKind(StrEnum):
    """Who reports. Only an agent's gauges count as the state of a machine of the fleet."""

    GATEWAY = "gateway"
    AGENT = "agent"
    APP = "app"


_KINDS = frozenset(SourceKind)


class RejectReason(StrEnum):
    """Why a report, or a part of one, was not taken. The values are metric labels."""

    MALFORMED = "malformed"
    BAD_SOURCE = "bad_source"
    BAD_KIND = "bad_kind"
    FUTURE = "future"
    TOO_OLD = "too_old"
    DUPLICATE = "duplicate"
    NAME_TAKEN = "name_taken"
    TOO_MANY_SOURCES = "too_many_sources"
    TOO_MANY_METRICS = "too_many_metrics"
    TOO_MANY_HISTOGRAMS = "too_many_histograms"
    TOO_MANY_LABELS = "too_many_labels"
    TOO_MANY_LABEL_SETS = "too_many_label_sets"
    TOO_MANY_LATENCIES = "too_many_latencies"
    TOO_MANY_TOTALS = "too_many_totals"
    BAD_METRIC_NAME = "bad_metric_name"
    BAD_NUMBER = "bad_number"
    BAD_LATENCY = "bad_latency"
    BAD_SKETCH = "bad_sketch"


@dataclass(slots=True)
class Sample:
    """What was taken of one report: finite numbers, plain names.

    `part` is the series of its own that the report's labels make, empty without. `interval_s` is how often the source
    reports, `span_s` the time its counts are of; 0: not known.
    """

    source: str
    kind: SourceKind
    requests: float = 0.0
    errors: float = 0.0
    latency: LatencySketch | None = None
    gauges: dict[str, float] = field(default_factory=dict)
    counters: dict[str, float] = field(default_factory=dict)
    labels: dict[str, str] = field(default_factory=dict)
    histograms: dict[str, LatencySketch] = field(default_factory=dict)
    part: str = ""
    interval_s: float = 0.0
    span_s: float = 0.0


@dataclass(slots=True)
class Validation:
    """What was taken (None: nothing), what was refused, and how many reports of this source never came."""

    sample: Sample | None
    refusals: list[RejectReason]
    lost: int = 0


class _Names:
    """Names in use by one source, `limit` at most, each with when it was used last."""

    __slots__ = ("_limit", "_used")

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._used: dict[str, float] = {}

    def __contains__(self, name: str) -> bool:
        return name in self._used

    def admit(self, name: str, now: float) -> bool:
        """Note that a name is used at `now`; False when there are as many others as there may be."""
        if name not in self._used and len(self._used) >= self._limit:
            self._used = {other: at for other, at in self._used.items() if now - at <= FORGET_S}
            if len(self._used) >= self._limit:
                return False
        self._used[name] = now
        return True


@dataclass(slots=True)
class _Rhythm:
    """When one instance reported one label set last, and the times between its last reports."""

    at: float
    gaps: tuple[float, ...] = ()

    def hear(self, now: float) -> None:
        if now - self.at >= _TOGETHER_S:
            self.gaps = (*self.gaps[-2:], now - self.at)
            self.at = now

    @property
    def interval_s(self) -> float:
        """The usual time between two reports: one that came late, after an outage, does not count; 0: not known."""
        return sorted(self.gaps)[(len(self.gaps) - 1) // 2] if self.gaps else 0.0


@dataclass(slots=True)
class _Source:
    """What is remembered of a source: its names count against its limit, its sequences show repeats."""

    kind: SourceKind
    seen_at: float
    totals: CumulativeTotals
    last_seq: OrderedDict[str, int] = field(default_factory=OrderedDict)
    names: _Names = field(default_factory=lambda: _Names(MAX_METRICS_PER_SOURCE))
    histograms: _Names = field(default_factory=lambda: _Names(MAX_HISTOGRAMS_PER_SOURCE))
    parts: dict[str, float] = field(default_factory=dict)
    rhythms: OrderedDict[tuple[str, str], _Rhythm] = field(default_factory=OrderedDict)


def series_name(source: str, labels: dict[str, str]) -> str:
    """Return the name of the series for one label set of a source: `shop{region="eu",route="/cart"}`.

    Injective: what could be taken for the notation is escaped in values.
    """
    written = (
        f'{name}="{value.replace(chr(92), chr(92) * 2).replace(chr(34), chr(92) + chr(34))}"'
        for name, value in sorted(labels.items())
    )
    return f"{source}{{{','.join(written)}}}"


class ReportValidator:
    """Judges reports. Memory is bounded by the limits above and by those of `totals`.

    Sources of all kinds share one namespace. Agents and gateways come first: an application takes neither their names
    nor, where places are short, their places.
    """

    def __init__(self, *, max_sources: int = MAX_SOURCES, max_label_sets: int = MAX_LABEL_SETS) -> None:
        self._max_sources = max_sources
        self._max_label_sets = max_label_sets
        self._label_sets = 0
        self._sources: dict[str, _Source] = {}
        self._budget = Budget()

    def __len__(self) -> int:
        return len(self._sources)

    def validate(self, report: MetricsReport, now: float) -> Validation:
        """Return what is taken of a report that arrived at `now` (seconds since 1970)."""
        source = self._sources.get(report.source)
        if source is None and (
            not _SOURCE_NAME.fullmatch(report.source) or _LIKE_A_PART.fullmatch(report.source)
        ):
            return Validation(None, [RejectReason.BAD_SOURCE])
        if report.kind not in _KINDS:
            return Validation(None, [RejectReason.BAD_KIND])
        age_s = now - report.timestamp / 1000
        if age_s < -MAX_FUTURE_S:
            return Validation(None, [RejectReason.FUTURE])
        if age_s > MAX_AGE_S:
            return Validation(None, [RejectReason.TOO_OLD])
        kind = SourceKind(report.kind)
        if source is not None and source.kind is not kind:
            displaced = source.kind is SourceKind.APP or (
                kind is not SourceKind.APP and now - source.seen_at > FORGET_S
            )
            if not displaced:
                return Validation(None, [RejectReason.NAME_TAKEN])
            self._drop(report.source)
            source = None
        if source is None:
            self._forget(now)
            if not self._has_room(kind, now):
                return Validation(None, [RejectReason.TOO_MANY_SOURCES])
            source = self._sources[report.source] = _Source(kind, now, CumulativeTotals(self._budget))
        lost = _step(source, report.boot, report.seq)
        if lost is None:
            return Validation(None, [RejectReason.DUPLICATE])
        source.seen_at = now
        refusals: list[RejectReason] = []
        sample = _take(report, source, refusals)
        if sample.labels and sample.kind is SourceKind.APP:
            sample.part = self._part(source, sample, now, refusals)
        if report.totals or report.histogram_totals:
            _take_totals(report, source, sample, refusals)
        _time(report, source, sample, now)
        return Validation(sample, refusals, lost)

    def _part(self, source: _Source, sample: Sample, now: float, refusals: list[RejectReason]) -> str:
        """Return the series of a label set, empty when there are too many: its numbers count, unlabelled."""
        name = series_name(sample.source, sample.labels)
        if name not in source.parts:
            for gone in [part for part, seen_at in source.parts.items() if now - seen_at > FORGET_S]:
                del source.parts[gone]
                self._label_sets -= 1
            full = len(source.parts) >= MAX_LABEL_SETS_PER_SOURCE or self._label_sets >= self._max_label_sets
            if full:
                refusals.append(RejectReason.TOO_MANY_LABEL_SETS)
                sample.labels = {}
                return ""
            self._label_sets += 1
        source.parts[name] = now
        return name

    def _forget(self, now: float) -> None:
        keep_s = {kind: FORGET_S if kind is SourceKind.APP else REMEMBER_S for kind in SourceKind}
        for name in [
            name for name, source in self._sources.items() if now - source.seen_at > keep_s[source.kind]
        ]:
            self._drop(name)

    def _has_room(self, kind: SourceKind, now: float) -> bool:
        """Make room for one more source, where one that is silent, or of an application, can give its place away."""
        if len(self._sources) < self._max_sources:
            return True
        first = kind is not SourceKind.APP
        yielding = [
            (source.seen_at, name)
            for name, source in self._sources.items()
            if now - source.seen_at > FORGET_S or (first and source.kind is SourceKind.APP)
        ]
        if not yielding:
            return False
        self._drop(min(yielding)[1])
        return True

    def _drop(self, name: str) -> None:
        source = self._sources.pop(name)
        source.totals.clear()
        self._label_sets -= len(source.parts)


def _step(source: _Source, boot: str, seq: int) -> int | None:
    """Note a report's place; return how many before it are missing, or None for a repeat."""
    last = source.last_seq.get(boot)
    if last is not None and seq <= last:
        return None
    source.last_seq[boot] = seq
    source.last_seq.move_to_end(boot)
    if len(source.last_seq) > MAX_BOOTS:
        source.last_seq.popitem(last=False)
    return seq - last - 1 if last is not None else 0


def _time(report: MetricsReport, source: _Source, sample: Sample, now: float) -> None:
    """Say of a sample how often it comes and which time it covers: as the report says, or as reports came so far."""
    key = report.instance, series_name("", report.labels) if report.labels else ""
    rhythm = source.rhythms.get(key)
    if rhythm is None:
        rhythm = source.rhythms[key] = _Rhythm(now)
        if len(source.rhythms) > _MAX_RHYTHMS:
            source.rhythms.popitem(last=False)
    else:
        rhythm.hear(now)
        source.rhythms.move_to_end(key)
    declared_s = max(0.0, report.interval_ms / 1000)
    sample.interval_s = min(MAX_INTERVAL_S, declared_s or rhythm.interval_s)
    # What a gateway could not send it gives up: its counts are never those of a long time.
    spans = [rhythm.gaps[-1]] if rhythm.gaps and source.kind is SourceKind.APP else []
    if 0 < report.counts_since < report.timestamp:
        spans.append((report.timestamp - report.counts_since) / 1000)
    sample.span_s = min((*spans, MAX_INTERVAL_S)) if spans else 0.0


def _take(report: MetricsReport, source: _Source, refusals: list[RejectReason]) -> Sample:
    sample = Sample(
        source=report.source,
        kind=source.kind,
        requests=_count(report.requests, refusals),
        errors=_count(report.errors, refusals),
        latency=_latency(report, refusals),
        gauges=dict(_numbers(report.gauges, source, refusals, least=-MAX_NUMBER)),
        counters=dict(_numbers(report.counters, source, refusals, least=0.0)),
        labels=_labels(report.labels, refusals),
    )
    for name, wire in report.histograms.items():
        if _admits_histogram(name, source, refusals) and (sketch := _sketch(wire, refusals)) is not None:
            _add_histogram(sample, name, sketch)
    return sample


def _take_totals(
    report: MetricsReport, source: _Source, sample: Sample, refusals: list[RejectReason]
) -> None:
    """Add what totals say is new. Their state belongs to the stream: instance, label set and name."""
    streams = source.totals.of(report.instance, report.timestamp)
    # By the labels, whether they have a series of their own or not: another label set's total is another total.
    stream = series_name("", report.labels) if report.labels else ""
    numbers = {name: total.value for name, total in report.totals.items()}
    for name, value in _numbers(numbers, source, refusals, least=0.0):
        try:
            new = streams.new_count((stream, name), value, report.totals[name].start)
        except TooManyTotals:
            refusals.append(RejectReason.TOO_MANY_TOTALS)
            continue
        if name == "requests":
            sample.requests += new
        elif name == "errors":
            sample.errors += new
        else:
            sample.counters[name] = sample.counters.get(name, 0.0) + new
    for name, total in report.histogram_totals.items():
        if _admits_histogram(name, source, refusals) and (now := _sketch(total.sketch, refusals)) is not None:
            try:
                later = streams.new_sketch((stream, name), now, total.start)
            except TooManyTotals:
                refusals.append(RejectReason.TOO_MANY_TOTALS)
                continue
            if later.count:
                _add_histogram(sample, name, later)


def _add_histogram(sample: Sample, name: str, sketch: LatencySketch) -> None:
    held = sample.latency if name == "latency" else sample.histograms.get(name)
    if held is not None:
        held.merge(sketch)
    elif name == "latency":
        sample.latency = sketch
    else:
        sample.histograms[name] = sketch


def _admits_histogram(name: str, source: _Source, refusals: list[RejectReason]) -> bool:
    if name == "latency":
        return True
    if name not in source.histograms and not METRIC_NAME.fullmatch(name):
        refusals.append(RejectReason.BAD_METRIC_NAME)
        return False
    if not source.histograms.admit(name, source.seen_at):
        refusals.append(RejectReason.TOO_MANY_HISTOGRAMS)
        return False
    return True


def _count(value: float, refusals: list[RejectReason]) -> float:
    if 0 <= value <= MAX_NUMBER:  # false for NaN
        return value
    refusals.append(RejectReason.BAD_NUMBER)
    return 0.0


def _numbers(
    numbers: dict[str, float], source: _Source, refusals: list[RejectReason], *, least: float
) -> Iterator[tuple[str, float]]:
    for name, value in numbers.items():
        if name not in source.names and not METRIC_NAME.fullmatch(name):
            refusals.append(RejectReason.BAD_METRIC_NAME)
            continue
        if not source.names.admit(name, source.seen_at):
            refusals.append(RejectReason.TOO_MANY_METRICS)
            continue
        if least <= value <= MAX_NUMBER:
            yield name, value
        else:
            refusals.append(RejectReason.BAD_NUMBER)


def _sketch(wire: Sketch, refusals: list[RejectReason]) -> LatencySketch | None:
    try:
        sketch = LatencySketch.from_wire(wire)
    except BadSample:
        refusals.append(RejectReason.BAD_SKETCH)
        return None
    return sketch


def _latency(report: MetricsReport, refusals: list[RejectReason]) -> LatencySketch | None:
    sketch: LatencySketch | None = None
    if report.latency is not UNSET:
        sketch = _sketch(report.latency, refusals)
    if not report.latencies:
        return sketch if sketch is not None and sketch.count else None
    if len(report.latencies) > MAX_LATENCIES:
        refusals.append(RejectReason.TOO_MANY_LATENCIES)
    sketch = sketch or LatencySketch()
    for value in report.latencies[:MAX_LATENCIES]:
        try:
            sketch.add(value)
        except BadSample:
            refusals.append(RejectReason.BAD_LATENCY)
    return sketch if sketch.count else None


def _labels(labels: dict[str, str], refusals: list[RejectReason]) -> dict[str, str]:
    taken: dict[str, str] = {}
    for name, value in labels.items():
        if len(taken) >= MAX_LABELS_PER_SOURCE or len(name) + len(value) > MAX_LABEL_BYTES:
            refusals.append(RejectReason.TOO_MANY_LABELS)
        else:
            taken[name] = value
    return taken
