"""Reports as they come from the bus: decoded, judged, counted. Every replica hears all of them."""

from collections.abc import Callable

import msgspec

from metrics_svc.aggregation.aggregator import Aggregator
from metrics_svc.aggregation.validation import RejectReason, ReportValidator, SourceKind
from services import telemetry
from services.bus.message import BusMessage
from services.telemetry import MetricName
from services.wire.events import LogReport, MetricsReport

ERROR_LEVELS = frozenset({"error", "critical"})

_report = msgspec.json.Decoder(MetricsReport).decode
_logs = msgspec.json.Decoder(LogReport).decode


class Intake:
    """Feeds `Seconds` from the bus. `now` tells the fleet's time."""

    def __init__(self, admission: ReportValidator, seconds: Aggregator, now: Callable[[], float]) -> None:
        self._admission = admission
        self._seconds = seconds
        self._now = now
        self._sources = -1
        # Looked up once: 20,000 reports a second may come.
        self._taken = {
            kind: telemetry.counter(MetricName.METRICS_REPORTS).labels(kind.value) for kind in SourceKind
        }

    def on_report(self, message: BusMessage) -> None:
        """Take one metrics report, or as much of it as is good."""
        try:
            report = _report(message.data)
        except (msgspec.DecodeError, RecursionError):
            _count_refused(RejectReason.MALFORMED)
            return
        now = self._now()
        verdict = self._admission.validate(report, now)
        for reason in verdict.refusals:
            _count_refused(reason)
        if verdict.sample is not None:
            self._taken[verdict.sample.kind].inc()
            self._seconds.add(verdict.sample, now)
        if verdict.lost:
            telemetry.counter(MetricName.METRICS_REPORTS_LOST).inc(verdict.lost)
        if len(self._admission) != self._sources:
            self._sources = len(self._admission)
            telemetry.gauge(MetricName.METRICS_SOURCES).set(self._sources)

    def on_logs(self, message: BusMessage) -> None:
        """Count the errors among log lines of the stream (`logs_feed`: each line is there once)."""
        try:
            report = _logs(message.data)
        except (msgspec.DecodeError, RecursionError):
            _count_refused(RejectReason.MALFORMED)
            return
        if errors := sum(entry.level in ERROR_LEVELS for entry in report.entries):
            self._seconds.add_log_errors(errors, self._now())


def _count_refused(reason: RejectReason) -> None:
    telemetry.counter(MetricName.METRICS_REFUSED).labels(reason.value).inc()
