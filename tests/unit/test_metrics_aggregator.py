"""The rows of a closed second."""

import pytest

from metrics_svc.aggregation.aggregator import MAX_FLEET_HISTOGRAMS, Aggregator
from metrics_svc.aggregation.rows import FLEET, to_record
from metrics_svc.aggregation.validation import ReportValidator
from services.latency_sketch import LatencySketch
from tests.support.metrics import T0, report


class Fleet:
    """Seconds fed by reports, for short tests."""

    def __init__(self) -> None:
        self.seconds = Aggregator()
        self._validator = ReportValidator()

    def hear(self, at: float, source: str = "gw-1", kind: str = "gateway", **fields: object) -> None:
        validation = self._validator.validate(report(source, kind, **fields), at)
        assert validation.sample is not None
        self.seconds.add(validation.sample, at)

    def agent(self, at: float, source: str, **gauges: float) -> None:
        self.hear(at, source, "agent", gauges=gauges)


@pytest.fixture
def fleet() -> Fleet:
    return Fleet()


def test_no_report(fleet: Fleet) -> None:
    closed = fleet.seconds.close(T0)
    assert list(closed.rows) == [FLEET]
    assert closed.rows[FLEET].stats == {}
    record = to_record(closed.rows[FLEET], 1, rollup=False)
    assert (record.cpu, record.requests, record.latency_p99, record.timestamp) == (
        0,
        0,
        0,
        (T0 + 1) * 1000,
    )


def test_fleet_is_mean_of_machines_and_sum_of_networks(fleet: Fleet) -> None:
    fleet.agent(T0 + 0.1, "a", cpu=10, memory=40, disk=50, network_in=100, network_out=1)
    fleet.agent(T0 + 0.2, "b", cpu=30, memory=60, disk=70, network_in=200, network_out=2)
    record = to_record(fleet.seconds.close(T0).rows[FLEET], 1, rollup=False)
    assert (record.cpu, record.memory, record.disk) == (20, 50, 60)
    assert (record.network.in_, record.network.out) == (300, 3)


def test_counts_are_summed_and_latencies_merged(fleet: Fleet) -> None:
    fleet.hear(T0 + 0.1, "g1", requests=10, errors=1, latencies=[10.0] * 99)
    fleet.hear(T0 + 0.2, "g2", requests=20, errors=2, latencies=[1000.0])
    fleet.hear(T0 + 0.3, "shop", "app", requests=5)
    rows = fleet.seconds.close(T0).rows
    record = to_record(rows[FLEET], 1, rollup=False)
    assert (record.requests, record.errors) == (35, 3)
    assert record.latency_p50 == pytest.approx(10, rel=0.01)
    # An average of the two nodes' percentiles would say 505.
    assert record.latency_p99 == pytest.approx(10, rel=0.01)
    assert rows["g2"].value("latencyP99") == pytest.approx(1000, rel=0.01)
    assert rows["shop"].value("requests") == 5


def test_counts_belong_to_one_second_gauges_last_three(fleet: Fleet) -> None:
    fleet.agent(T0 + 0.5, "a", cpu=50)
    fleet.hear(T0 + 0.5, requests=7)
    said = [fleet.seconds.close(second).rows[FLEET] for second in range(T0, T0 + 4)]
    assert [row.value("cpu") for row in said] == [50, 50, 50, None]
    assert [row.value("requests") for row in said] == [7, 0, 0, None]


def test_a_gauge_goes_stale_while_its_source_reports_on(fleet: Fleet) -> None:
    fleet.hear(T0 + 0.5, gauges={"depth": 3.0})
    for second in range(T0, T0 + 4):
        fleet.hear(second + 0.6, gauges={"other": 1.0})
    values = [fleet.seconds.close(second).rows["gw-1"].value("depth") for second in range(T0, T0 + 4)]
    assert values == [3, 3, 3, None]


def test_a_late_report_counts_in_a_later_second(fleet: Fleet) -> None:
    fleet.hear(T0 + 0.9, requests=1, timestamp=(T0 - 2) * 1000)
    assert fleet.seconds.close(T0).rows[FLEET].value("requests") == 1


def test_a_report_for_a_closed_second_counts_in_the_next(fleet: Fleet) -> None:
    fleet.seconds.close(T0)
    fleet.hear(T0 + 0.5, requests=3)
    assert fleet.seconds.close(T0 + 1).rows[FLEET].value("requests") == 3


def test_reports_of_skipped_seconds_are_dropped(fleet: Fleet) -> None:
    fleet.hear(T0 + 0.5, requests=3)
    fleet.hear(T0 + 5.5, requests=4)
    assert fleet.seconds.close(T0 + 5).rows[FLEET].value("requests") == 4
    assert fleet.seconds.close(T0 + 6).rows[FLEET].value("requests") == 0


def test_an_agent_serves_no_requests(fleet: Fleet) -> None:
    fleet.agent(T0 + 0.1, "a", cpu=1)
    rows = fleet.seconds.close(T0).rows
    assert rows["a"].value("requests") is None
    assert rows[FLEET].value("errors") is None


def test_error_lines_of_logs_are_errors(fleet: Fleet) -> None:
    fleet.seconds.add_log_errors(3, T0 + 0.5)
    fleet.hear(T0 + 0.6, errors=2)
    assert fleet.seconds.close(T0).rows[FLEET].value("errors") == 5
    assert fleet.seconds.close(T0 + 1).rows[FLEET].value("errors") == 0


def test_an_applications_gauge_is_no_machines_cpu(fleet: Fleet) -> None:
    fleet.hear(T0 + 0.1, "shop", "app", gauges={"cpu": 99.0})
    rows = fleet.seconds.close(T0).rows
    assert rows[FLEET].value("cpu") is None
    assert rows["shop"].value("cpu") == 99


@pytest.mark.parametrize("order", [1, -1])
def test_histograms_of_the_fleet_do_not_depend_on_arrival_order(fleet: Fleet, order: int) -> None:
    for at in range(MAX_FLEET_HISTOGRAMS + 2)[::order]:
        sketch = LatencySketch([1.0]).to_wire()
        fleet.hear(T0 + 0.1, f"app-{at}", "app", histograms={f"h{at}": sketch})
    row = fleet.seconds.close(T0).rows[FLEET]
    assert sorted(row.histograms) == [f"h{at}" for at in range(MAX_FLEET_HISTOGRAMS)]


def test_reports_of_an_application_under_an_agents_name_are_dropped(fleet: Fleet) -> None:
    fleet.hear(T0 + 0.1, "web", "app", gauges={"cpu": 1.0, "depth": 5.0}, errors=50, labels={"route": "/"})
    fleet.agent(T0 + 0.2, "web", cpu=95)
    rows = fleet.seconds.close(T0).rows
    assert rows[FLEET].value("cpu") == 95
    assert sorted(rows) == [FLEET, "web"]
    assert (rows["web"].value("cpu"), rows["web"].value("depth"), rows["web"].value("errors")) == (
        95,
        None,
        None,
    )
