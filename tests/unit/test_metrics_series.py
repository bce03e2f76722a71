"""Label sets, totals and histograms: from reports to rows."""

import pytest

from metrics_svc.aggregation import sources, totals
from metrics_svc.aggregation.aggregator import MAX_FLEET_METRICS, Aggregator, SecondSnapshot
from metrics_svc.aggregation.packed import decode_row, merge_packed, pack, unpack
from metrics_svc.aggregation.rows import FLEET, RowAccumulator, to_point
from metrics_svc.aggregation.sources import EXPIRE_S, RejectReason, series_name
from metrics_svc.aggregation.totals import EXPIRE_MS
from metrics_svc.aggregation.validation import ReportValidator
from services.latency_sketch import LatencySketch
from services.wire.events import SketchTotal, Total
from tests.support.metrics import T0, report


class Intake:
    """Admission and seconds, fed by hand."""

    def __init__(self) -> None:
        self.validator = ReportValidator()
        self.seconds = Aggregator()
        self.rejections: list[RejectReason] = []

    def hear(self, at: float, source: str = "shop", kind: str = "app", **fields: object) -> None:
        said = {"timestamp": int(at * 1000)} | fields
        validation = self.validator.validate(report(source, kind, **said), at)
        self.rejections += validation.rejections
        if validation.sample is not None:
            self.seconds.add(validation.sample, at)

    def close(self, second: int = T0) -> SecondSnapshot:
        return self.seconds.close(second)


def test_each_label_set_is_a_series_and_the_source_has_all() -> None:
    intake = Intake()
    for route, requests, depth in (("/a", 3.0, 1.0), ("/b", 4.0, 2.0)):
        intake.hear(T0, labels={"route": route}, requests=requests, gauges={"depth": depth}, latencies=[5.0])
    closed = intake.close()
    one, two = 'shop{route="/a"}', 'shop{route="/b"}'
    assert set(closed.rows) == {FLEET, "shop", one, two}
    assert closed.parents == {one: "shop", two: "shop"}
    assert [closed.rows[name].value("requests") for name in (one, two, "shop", FLEET)] == [3, 4, 7, 7]
    assert [closed.rows[name].value("depth") for name in (one, two, "shop", FLEET)] == [1, 2, 3, 3]
    assert closed.rows[FLEET].measured("latencyP99") == 2


def test_labels_of_machines_describe_them() -> None:
    intake = Intake()
    intake.hear(T0, "web", "agent", labels={"zone": "a"}, gauges={"cpu": 5.0})
    closed = intake.close()
    assert closed.labels["web"] == {"zone": "a"}
    assert closed.parents == {}


def test_a_million_label_values_become_no_series(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sources, "MAX_LABEL_SETS_PER_SOURCE", 3)
    intake = Intake()
    for user in range(1000):
        intake.hear(T0, labels={"user": str(user)}, requests=1.0)
    closed = intake.close()
    assert len(closed.parents) == 3
    assert closed.rows["shop"].value("requests") == 1000
    assert intake.rejections == [RejectReason.TOO_MANY_LABEL_SETS] * 997


def test_label_sets_are_bounded_over_all_sources(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sources, "MAX_LABEL_SETS", 2)
    validator = ReportValidator()
    taken = [validator.validate(report(f"s{at}", "app", labels={"a": "b"}), T0).sample for at in range(4)]
    assert [sample.series != "" for sample in taken if sample is not None] == [True, True, False, False]
    later = T0 + sources.EXPIRE_S + 1
    again = validator.validate(report("new", "app", labels={"a": "b"}), later).sample
    assert again is not None
    assert again.series  # sources that fell silent gave theirs back


def test_names_of_label_sets_are_injective() -> None:
    assert series_name("a", {"x": '1",y="2'}) != series_name("a", {"x": "1", "y": "2"})
    assert series_name("a", {"y": "2", "x": "1"}) == series_name("a", {"x": "1", "y": "2"})


def test_the_fleet_sums_what_applications_count_and_is_bounded() -> None:
    intake = Intake()
    intake.hear(T0, "a", counters={"sold": 2.0}, gauges={"depth": 5.0})
    intake.hear(T0, "b", counters={"sold": 3.0}, gauges={"depth": 7.0})
    intake.hear(T0, "gw", "gateway", counters={f"c{at:02}": 1.0 for at in range(60)})
    intake.hear(T0, "gw2", "gateway", counters={f"d{at:02}": 1.0 for at in range(60)})
    row = intake.close().rows[FLEET]
    assert row.value("depth") is None  # cut: over the bound, by name
    assert row.value("c00") == 1
    assert len([name for name in row.stats if name not in ("requests", "errors")]) == MAX_FLEET_METRICS


def test_totals_become_what_is_new() -> None:
    intake = Intake()
    values = [(0, 100.0), (1, 103.0), (2, 103.0), (3, 4.0), (4, 9.0)]
    said = []
    for at, value in values:  # the fourth is a counter that began again
        intake.hear(
            T0 + at, totals={"sold": Total(value=value), "requests": Total(value=value)}, instance="i"
        )
        said.append(intake.close(T0 + at).rows["shop"])
    assert [row.value("sold") for row in said] == [0, 3, 0, 4, 5]
    assert [row.value("requests") for row in said] == [0, 3, 0, 4, 5]


def test_instances_have_totals_of_their_own_and_new_streams_count_fully() -> None:
    intake = Intake()
    for at, one, two in ((0, 100.0, 50.0), (1, 101.0, 53.0)):
        intake.hear(T0 + at, totals={"sold": Total(value=one)}, instance="1")
        intake.hear(T0 + at, totals={"sold": Total(value=two)}, instance="2")
        closed = intake.close(T0 + at)
    assert closed.rows["shop"].value("sold") == 4
    intake.hear(T0 + 2, totals={"failed": Total(value=1.0, start=1)}, instance="1")
    assert intake.close(T0 + 2).rows["shop"].value("failed") == 1


def test_a_later_start_is_a_restart_even_when_the_total_is_higher() -> None:
    intake = Intake()
    for at, value, start in ((0, 10.0, 1000), (1, 15.0, 2000)):
        intake.hear(T0 + at, totals={"sold": Total(value=value, start=start)})
        closed = intake.close(T0 + at)
    assert closed.rows["shop"].value("sold") == 15


def test_streams_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(totals, "MAX_STREAMS", 2)
    intake = Intake()
    intake.hear(T0, totals={name: Total(value=1.0) for name in "abc"})
    assert intake.rejections == [RejectReason.TOO_MANY_TOTALS]
    # One that is no longer reported gives its place to another, which may be old: it counts from then on.
    later = T0 + EXPIRE_MS // 1000 + 1
    intake.hear(later - 1, totals={"b": Total(value=2.0)})
    intake.hear(later, totals={"c": Total(value=500.0)})
    assert intake.close(later).rows["shop"].value("c") == 0
    intake.hear(later + 1, totals={"c": Total(value=502.0)})
    assert intake.close(later + 1).rows["shop"].value("c") == 2
    assert intake.rejections == [RejectReason.TOO_MANY_TOTALS]


def test_streams_of_all_sources_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(totals, "MAX_ALL_COUNTS", 3)
    intake = Intake()
    for source in ("a", "b"):
        intake.hear(T0, source, totals={name: Total(value=1.0) for name in "xy"})
    assert intake.rejections == [RejectReason.TOO_MANY_TOTALS]
    later = T0 + EXPIRE_S + 1  # both are gone, and so are their totals
    intake.hear(later, "c", totals={name: Total(value=1.0) for name in "xyz"})
    assert intake.rejections == [RejectReason.TOO_MANY_TOTALS]


def test_totals_of_histograms_become_what_was_measured_since() -> None:
    intake = Intake()
    sketch = LatencySketch([10.0] * 50)
    for at, value in ((0, 10.0), (1, 500.0)):
        sketch.add(value)
        wire = SketchTotal(sketch=sketch.to_wire())
        intake.hear(T0 + at, histogram_totals={"latency": wire, "checkout": wire})
        closed = intake.close(T0 + at)
    row = closed.rows["shop"]
    assert row.value("latencyP50") == pytest.approx(500, rel=0.01)
    assert row.value("checkout.p99") == pytest.approx(500, rel=0.01)
    assert row.measured("checkout") == row.measured("latencyP50") == 1


def test_histograms_merge_and_survive_packing() -> None:
    intake = Intake()
    for at, value in ((0, 10.0), (1, 1000.0)):
        intake.hear(T0 + at, histograms={"size": LatencySketch([value] * 99).to_wire()})
    rows = [intake.close(T0 + at).rows[FLEET] for at in (0, 1)]
    packed = pack(RowAccumulator(T0, rows).row())
    merged = merge_packed(T0, [decode_row(packed)], sketches=True)
    assert merged.measured("size.p50") == 198
    assert merged.value("size") == pytest.approx(505, rel=0.01)
    assert merged.value("size.p99") == pytest.approx(1000, rel=0.01)
    [plain] = unpack([packed])
    assert plain.value("size.p99") == pytest.approx(1000, rel=0.01)
    point = to_point(plain, "size", 10, rollup=True)
    assert point is not None
    assert (point.min, point.max) == (10, 1000)
    assert to_point(plain, "other", 10, rollup=True) is None


def test_too_many_histograms_lose_those_over_the_limit() -> None:
    intake = Intake()
    wire = LatencySketch([1.0]).to_wire()
    intake.hear(T0, histograms={f"h{at}": wire for at in range(sources.MAX_HISTOGRAMS_PER_SOURCE + 2)})
    assert intake.rejections == [RejectReason.TOO_MANY_HISTOGRAMS] * 2


def test_a_source_that_lives_is_up() -> None:
    intake = Intake()
    intake.hear(T0, "web", "agent", gauges={"cpu": 1.0})
    assert intake.close().rows["web"].value("up") == 1
    assert intake.close(T0 + 1).rows["web"].value("up") == 1
    assert "web" not in intake.close(T0 + 5).rows
