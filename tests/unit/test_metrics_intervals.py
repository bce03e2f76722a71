"""Sources that report less often than each second: they stay alive in between, and their counts are no burst."""

from math import inf

import pytest

from metrics_svc.aggregation.aggregator import UP, Aggregator
from metrics_svc.aggregation.rows import FLEET, LATENCY
from metrics_svc.aggregation.sources import MAX_INTERVAL_S
from metrics_svc.aggregation.validation import ReportValidator
from metrics_svc.alerts.engine import AlertEngine
from metrics_svc.alerts.rules import EVERY_SOURCE, Rule, RuleSet
from services.latency_sketch import LatencySketch
from services.wire.events import SketchTotal, Total
from services.wire.server import AlertRaised
from tests.support.metrics import T0, report


class Source:
    """One source, the seconds it is in, and what rules say of them."""

    def __init__(self, kind: str = "app", *rules: Rule, started: int = T0) -> None:
        self.kind = kind
        self.validator = ReportValidator()
        self.seconds = Aggregator()
        self.engine = AlertEngine(RuleSet(rules), {})
        self.second = started
        self.rows: list[dict[str, float | None]] = []
        self.said: list[str] = []

    def hear(self, **fields: object) -> None:
        now = self.second + 0.5
        validation = self.validator.validate(
            report("shop", self.kind, **({"timestamp": int(now * 1000)} | fields)), now
        )
        assert validation.sample is not None
        self.seconds.add(validation.sample, now)

    def run(self, seconds: int, *metrics: str) -> None:
        for _ in range(seconds):
            closed = self.seconds.close(self.second)
            row = closed.rows.get("shop")
            self.rows.append({name: row.value(name) if row else None for name in (UP, *metrics)})
            self.said += [
                f"{event.data.id} {event.data.type if isinstance(event, AlertRaised) else 'resolved'}"
                for event in self.engine.evaluate(closed).events
            ]
            self.second += 1

    def values(self, metric: str) -> list[float | None]:
        return [row[metric] for row in self.rows]


SILENT = Rule(metric=UP, source=EVERY_SOURCE, critical=0, op="<=", no_data="alert", no_data_for_s=15)
ERRORS = Rule(metric="errors", warning=10, critical=50, no_data="resolve")


def test_an_application_with_otlps_default_interval_lives_and_counts_evenly() -> None:
    source = Source("app", SILENT, ERRORS)
    for minute in range(4):
        source.hear(totals={"errors": Total(value=1000.0 + 60 * minute)}, gauges={"depth": 5.0}, instance="1")
        source.run(60, "errors", "depth")
    assert set(source.values(UP)) == {1}
    assert set(source.values("depth")) == {5}
    assert source.values("errors") == pytest.approx([0.0] * 60 + [1.0] * 180)  # the first total is a baseline
    assert source.said == []
    source.run(200)
    assert source.said == [f"{UP}@shop-alert critical"]  # and when it is gone, that is seen
    assert source.values(UP).count(1) == 180 + 150


def test_deltas_count_over_the_time_they_name() -> None:
    source = Source("app", ERRORS)
    source.hear(errors=600.0, counts_since=(T0 - 60) * 1000 + 500)
    source.run(70, "errors")
    assert source.values("errors") == pytest.approx([10.0] * 60 + [0.0] * 10)
    assert source.said == ["errors-alert warning", "errors-alert resolved"]


def test_pushes_count_since_the_last_one() -> None:
    source = Source()
    for pushed in (1.0, 30.0, 30.0):
        source.hear(counters={"sold": pushed})
        source.run(10, "sold")
    assert source.values("sold") == pytest.approx([1, *[None] * 9, *[3.0] * 20])


def test_a_push_each_second_counts_in_its_second() -> None:
    source = Source()
    for at in range(5):
        source.hear(counters={"sold": float(at)})
        source.run(1, "sold")
    assert source.values("sold") == [0, 1, 2, 3, 4]


def test_no_measured_value_is_lost_or_made_up() -> None:
    source = Source()
    values = [float(1 + at % 100) for at in range(1000)] + [5000.0]
    before, after = LatencySketch(), LatencySketch(values)
    rows = []
    for total in (before, after):
        source.hear(histogram_totals={"latency": SketchTotal(sketch=total.to_wire())}, instance="1")
        for _ in range(60):
            rows.append(source.seconds.close(source.second).rows["shop"])
            source.second += 1
    sketches = [row.histograms[LATENCY] for row in rows if LATENCY in row.histograms]
    merged = LatencySketch()
    for sketch in sketches:
        merged.merge(sketch)
    assert merged.bins == after.bins
    assert len(sketches) == 60
    assert max(sketch.count for sketch in sketches) < 60  # of 1001
    assert merged.quantile(1.0) == pytest.approx(5000.0, rel=0.01)


def test_counts_of_an_application_reach_the_fleet_and_its_label_set() -> None:
    source = Source()
    part = 'shop{route="/a"}'
    fleet: list[float | None] = []
    of_part: list[float | None] = []
    for _ in range(2):
        source.hear(labels={"route": "/a"}, requests=20.0)
        for _ in range(10):
            rows = source.seconds.close(source.second).rows
            fleet.append(rows[FLEET].value("requests"))
            of_part.append(rows[part].value("requests"))
            source.second += 1
    assert fleet[10:] == of_part[10:] == pytest.approx([2.0] * 10)


def test_an_agents_interval_is_the_reported_one() -> None:
    source = Source("agent", SILENT)
    source.hear(gauges={"cpu": 5.0}, interval_ms=30_000)
    source.run(75, "cpu")
    assert source.values("cpu") == [5.0] * 75
    source.run(20)
    assert source.values(UP)[75:] == [None] * 20


@pytest.mark.parametrize("interval", [1, 7, 60])
def test_one_long_silence_is_no_interval(interval: int) -> None:
    source = Source()
    for pause in (interval, interval, interval, 110, interval):
        source.hear(gauges={"depth": 1.0})
        source.run(pause)
    source.hear(gauges={"depth": 1.0})
    source.rows.clear()
    source.run(200)
    assert source.values(UP).count(1) == max(3, round(2.5 * interval))


@pytest.mark.parametrize("since", [-5, T0 * 1000 + 10_000, 1])
def test_a_span_is_bounded_for_any_report(since: int) -> None:
    validator = ReportValidator()
    validation = validator.validate(report("shop", "app", counts_since=since, interval_ms=-1), float(T0))
    assert validation.sample is not None
    assert 0 <= validation.sample.span_s <= MAX_INTERVAL_S < inf


def test_after_a_restart_a_source_that_was_not_due_is_not_silent() -> None:
    """The process begins between two reports of an agent that reports every 30 s, and of an application of 60 s."""
    known = Source("agent", SILENT)
    known.hear(interval_ms=30_000)
    known.run(1)
    stored = dict(known.engine._instances)
    assert stored
    for kind, due in (("agent", 29), ("app", 59)):
        restarted = Source(kind, SILENT, started=known.second)
        restarted.engine = AlertEngine(RuleSet([SILENT]), stored)
        restarted.run(due)
        restarted.hear(interval_ms=30_000 if kind == "agent" else 0)
        restarted.run(60)
        assert restarted.said == []
    gone = Source("agent", SILENT, started=known.second)
    gone.engine = AlertEngine(RuleSet([SILENT]), stored)
    gone.run(100)
    assert gone.said == [f"{UP}@shop-alert critical"]
