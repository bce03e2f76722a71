"""Reports of a gateway: content, time, and unsent counts."""

from types import SimpleNamespace
from typing import Any

import msgspec
import pytest

from gateway.delivery.counters import Counters
from gateway.metrics import MetricsReporter, seconds_to_mid_second
from services.wire.subjects import Subjects
from tests.support.metrics import T0, ManualTime, RecordingBus


class Reported:
    """A reporter of a gateway that exists only as far as it looks."""

    def __init__(self) -> None:
        self.time = ManualTime(T0 + 0.5)
        self.bus = RecordingBus()
        self.counters = Counters()
        settings: Any = SimpleNamespace(subjects=Subjects("t"))
        bus: Any = self.bus
        self.reporter = MetricsReporter(
            bus, settings, "gw-1", "b", self.counters, [], [], lambda: [], lambda: False, self.time
        )

    def turn(self) -> None:
        self.time.now += 1
        self.reporter.tick()

    @property
    def reports(self) -> list[dict[str, Any]]:
        return [msgspec.json.decode(data) for data in self.bus.on("t.metrics.report")]


@pytest.mark.parametrize(("now", "wait"), [(10.0, 0.5), (10.4, 0.1), (10.5, 1.0), (10.9, 0.6)])
def test_reports_leave_in_the_middle_of_the_second(now: float, wait: float) -> None:
    assert seconds_to_mid_second(now) == pytest.approx(wait)


def test_everything_is_counted_by_reason() -> None:
    at = Reported()
    at.counters.request_ok(0.0, 0.02)
    at.counters.request_failed("rate_limited", our_fault=False)
    at.counters.request_failed("unavailable", our_fault=True)
    at.counters.limit_hit("message_rate")
    at.counters.messages_in += 3
    at.counters.messages_out += 30
    at.counters.slow_clients += 1
    at.counters.dropped += 2
    at.turn()
    at.turn()
    first, second = at.reports
    assert (first["requests"], first["errors"]) == (3, 1)
    assert first["counters"] == {
        "messages_in": 3, "messages_out": 30, "bytes_out": 0, "slow_clients": 1, "dropped": 2,
        "refused.rate_limited": 1, "refused.unavailable": 1, "limited.message_rate": 1,
    }  # fmt: skip
    assert first["latency"]["count"] == 1
    assert second.get("requests", 0) == 0
    assert second["counters"]["messages_in"] == 0
    assert "refused.rate_limited" not in second["counters"]


def test_counts_of_a_short_outage_are_sent_older_ones_are_not() -> None:
    at = Reported()
    at.bus.down = True
    for _ in range(10):
        at.counters.request_ok(0.0, 0.01)
        at.turn()
    at.bus.down = False
    at.counters.request_ok(0.0, 0.01)
    at.turn()
    (report,) = at.reports
    assert report["requests"] == report["latency"]["count"] == 4  # of the last three seconds, and this one
    assert report["counters"]["reports_unsent"] == 7
    at.turn()
    assert "reports_unsent" not in at.reports[-1]["counters"]


def test_rates_are_per_second_whatever_the_interval() -> None:
    at = Reported()
    at.counters.messages_in += 10
    at.time.now += 1
    at.turn()
    assert at.reporter.stats().messages_in == pytest.approx(5)


def test_prometheus_gets_latencies_as_a_histogram() -> None:
    at = Reported()
    for ms in (0.5, 4.0, 40.0, 4000.0):
        at.counters.request_ok(0.0, ms / 1000)
    at.turn()
    families = {family.name: family for family in at.reporter.collect()}
    samples = families["tidings_gateway_request_seconds"].samples
    buckets = {sample.labels["le"]: sample.value for sample in samples if sample.name.endswith("_bucket")}
    assert (buckets["0.001"], buckets["0.005"], buckets["0.05"], buckets["2.5"], buckets["+Inf"]) == (
        1,
        2,
        3,
        3,
        4,
    )
