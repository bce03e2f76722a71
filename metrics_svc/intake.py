"""Intake of reports from the bus: decoded, validated, counted. Every replica receives all of them."""

from collections.abc import Callable

import msgspec

from metrics_svc.aggregation.aggregator import Aggregator
from metrics_svc.aggregation.sources import RejectReason, SourceKind
from metrics_svc.aggregation.validation import ReportValidator
from services import telemetry
from services.bus.message import BusMessage
from services.telemetry import MetricName
from services.wire.events import LogReport, MetricsReport

ERROR_LEVELS = frozenset({"error", "critical"})

_report = msgspec.json.Decoder(MetricsReport).decode
_logs = msgspec.json.Decoder(LogReport).decode


class Intake:
    """Feeds the aggregator from the bus. `now` returns the fleet's time."""

    def __init__(self, validator: ReportValidator, aggregator: Aggregator, now: Callable[[], float]) -> None:
        self._validator = validator
        self._aggregator = aggregator
        self._now = now
        self._sources = -1
        # Looked up once: up to 20,000 reports a second arrive.
        self._accepted = {
            kind: telemetry.counter(MetricName.METRICS_REPORTS).labels(kind.value) for kind in SourceKind
        }

    def on_report(self, message: BusMessage) -> None:
        """Validate one metrics report and count its valid part."""
        try:
            report = _report(message.data)
        except (msgspec.DecodeError, RecursionError):
            _count_rejected(RejectReason.MALFORMED)
            return
        now = self._now()
        validation = self._validator.validate(report, now)
        for reason in validation.rejections:
            _count_rejected(reason)
        if validation.sample is not None:
            self._accepted[validation.sample.kind].inc()
            self._aggregator.add(validation.sample, now)
        if validation.lost:
            telemetry.counter(MetricName.METRICS_REPORTS_LOST).inc(validation.lost)
        if len(self._validator) != self._sources:
            self._sources = len(self._validator)
            telemetry.gauge(MetricName.METRICS_SOURCES).set(self._sources)

    def on_logs(self, message: BusMessage) -> None:
        """Count the errors among log lines of the stream (`logs_feed` carries each line once)."""
        try:
            report = _logs(message.data)
        except (msgspec.DecodeError, RecursionError):
            _count_rejected(RejectReason.MALFORMED)
            return
        if errors := sum(entry.level in ERROR_LEVELS for entry in report.entries):
            self._aggregator.add_log_errors(errors, self._now())


def _count_rejected(reason: RejectReason) -> None:
    telemetry.counter(MetricName.METRICS_REFUSED).labels(reason.value).inc()
