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

from services.sketch import BadSample, LatencySketch
from services.wire.events import MetricsReport
from services.wire.records import UNSET

MAX_SOURCES = 256
MAX_METRICS_PER_SOURCE = 64
MAX_LABELS_PER_SOURCE = 16
MAX_LABEL_BYTES = 128
MAX_LATENCIES = 10_000
# Sums of what passes stay finite and exact enough.
MAX_NUMBER = 1e15
# A source unheard of for so long gives its place to another.
FORGET_S = 300
# Reports are filed under our own clock. Theirs only shows that a report is nonsense (from the future) or was
# held back so long that its counts would be taken for a burst of now.
MAX_FUTURE_S = 60
MAX_AGE_S = 3600
# Gateways push for applications, each with a boot of its own: so one source may have several boots at once.
MAX_BOOTS = 64

_METRIC_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_.:-]{0,63}")
_SOURCE_NAME = re.compile(r"[^\x00-\x1f\x7f]{1,128}")


class SourceKind(StrEnum):
    """Who reports. Only an agent's gauges count as the state of a machine of the fleet."""

    GATEWAY = "gateway"
    AGENT = "agent"
    APP = "app"


_KINDS = frozenset(SourceKind)


class Refusal(StrEnum):
    """Why a report, or a part of one, was not taken. The values are metric labels."""

    MALFORMED = "malformed"
    BAD_SOURCE = "bad_source"
    BAD_KIND = "bad_kind"
    FUTURE = "future"
    TOO_OLD = "too_old"
    DUPLICATE = "duplicate"
    TOO_MANY_SOURCES = "too_many_sources"
    TOO_MANY_METRICS = "too_many_metrics"
    TOO_MANY_LABELS = "too_many_labels"
    TOO_MANY_LATENCIES = "too_many_latencies"
    BAD_METRIC_NAME = "bad_metric_name"
    BAD_NUMBER = "bad_number"
    BAD_LATENCY = "bad_latency"
    BAD_SKETCH = "bad_sketch"


@dataclass(slots=True)
class Sample:
    """What was taken of one report: finite numbers, plain names."""

    source: str
    kind: SourceKind
    requests: float = 0.0
    errors: float = 0.0
    latency: LatencySketch | None = None
    gauges: dict[str, float] = field(default_factory=dict)
    counters: dict[str, float] = field(default_factory=dict)
    labels: dict[str, str] = field(default_factory=dict)


@dataclass(slots=True)
class Verdict:
    """What was taken (None: nothing), what was refused, and how many reports of this source never came."""

    sample: Sample | None
    refusals: list[Refusal]
    lost: int = 0


@dataclass(slots=True)
class _Source:
    """What is remembered of a source: its names count against its limit, its sequences show repeats."""

    seen_at: float
    last_seq: OrderedDict[str, int] = field(default_factory=OrderedDict)
    names: set[str] = field(default_factory=set)


class Admission:
    """Judges reports. Memory is bounded by the limits above."""

    def __init__(self, *, max_sources: int = MAX_SOURCES) -> None:
        self._max_sources = max_sources
        self._sources: dict[str, _Source] = {}

    def __len__(self) -> int:
        return len(self._sources)

    def judge(self, report: MetricsReport, now: float) -> Verdict:
        """Return what is taken of a report that arrived at `now` (seconds since 1970)."""
        if not _SOURCE_NAME.fullmatch(report.source):
            return Verdict(None, [Refusal.BAD_SOURCE])
        if report.kind not in _KINDS:
            return Verdict(None, [Refusal.BAD_KIND])
        age_s = now - report.timestamp / 1000
        if age_s < -MAX_FUTURE_S:
            return Verdict(None, [Refusal.FUTURE])
        if age_s > MAX_AGE_S:
            return Verdict(None, [Refusal.TOO_OLD])
        source = self._sources.get(report.source)
        if source is None:
            self._forget(now)
            if len(self._sources) >= self._max_sources:
                return Verdict(None, [Refusal.TOO_MANY_SOURCES])
            source = self._sources[report.source] = _Source(now)
        lost = _step(source, report.boot, report.seq)
        if lost is None:
            return Verdict(None, [Refusal.DUPLICATE])
        source.seen_at = now
        refusals: list[Refusal] = []
        return Verdict(_take(report, source, refusals), refusals, lost)

    def _forget(self, now: float) -> None:
        gone = [name for name, source in self._sources.items() if now - source.seen_at > FORGET_S]
        for name in gone:
            del self._sources[name]


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


def _take(report: MetricsReport, source: _Source, refusals: list[Refusal]) -> Sample:
    return Sample(
        source=report.source,
        kind=SourceKind(report.kind),
        requests=_count(report.requests, refusals),
        errors=_count(report.errors, refusals),
        latency=_latency(report, refusals),
        gauges=dict(_numbers(report.gauges, source, refusals, least=-MAX_NUMBER)),
        counters=dict(_numbers(report.counters, source, refusals, least=0.0)),
        labels=_labels(report.labels, refusals),
    )


def _count(value: float, refusals: list[Refusal]) -> float:
    if 0 <= value <= MAX_NUMBER:  # false for NaN
        return value
    refusals.append(Refusal.BAD_NUMBER)
    return 0.0


def _numbers(
    numbers: dict[str, float], source: _Source, refusals: list[Refusal], *, least: float
) -> Iterator[tuple[str, float]]:
    for name, value in numbers.items():
        if name not in source.names:
            if not _METRIC_NAME.fullmatch(name):
                refusals.append(Refusal.BAD_METRIC_NAME)
                continue
            if len(source.names) >= MAX_METRICS_PER_SOURCE:
                refusals.append(Refusal.TOO_MANY_METRICS)
                continue
            source.names.add(name)
        if least <= value <= MAX_NUMBER:
            yield name, value
        else:
            refusals.append(Refusal.BAD_NUMBER)


def _latency(report: MetricsReport, refusals: list[Refusal]) -> LatencySketch | None:
    sketch = LatencySketch()
    if report.latency is not UNSET:
        try:
            sketch = LatencySketch.from_wire(report.latency)
        except BadSample:
            refusals.append(Refusal.BAD_SKETCH)
    if len(report.latencies) > MAX_LATENCIES:
        refusals.append(Refusal.TOO_MANY_LATENCIES)
    for value in report.latencies[:MAX_LATENCIES]:
        try:
            sketch.add(value)
        except BadSample:
            refusals.append(Refusal.BAD_LATENCY)
    return sketch if sketch.count else None


def _labels(labels: dict[str, str], refusals: list[Refusal]) -> dict[str, str]:
    taken: dict[str, str] = {}
    for name, value in labels.items():
        if len(taken) >= MAX_LABELS_PER_SOURCE or len(name) + len(value) > MAX_LABEL_BYTES:
            refusals.append(Refusal.TOO_MANY_LABELS)
        else:
            taken[name] = value
    return taken
