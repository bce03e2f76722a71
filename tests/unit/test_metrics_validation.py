"""Accepted reports, and the reasons for refusals."""

from math import inf, nan

import pytest

from metrics_svc.aggregation import sources
from metrics_svc.aggregation.sources import RejectReason
from metrics_svc.aggregation.validation import MAX_LABELS_PER_SOURCE, ReportValidator
from services.latency_sketch import LatencySketch
from services.wire.events import Sketch
from tests.support.metrics import T0, report

NOW = float(T0)


def test_accepts_a_valid_report_completely() -> None:
    result = ReportValidator().validate(
        report(requests=5.0, errors=1.0, latencies=[1.0, 2.0], gauges={"cpu": 3.0}, counters={"sent": 4.0}),
        NOW,
    )
    assert not result.rejections
    sample = result.sample
    assert sample is not None
    assert sample.gauges == {"cpu": 3.0}
    assert sample.counts.counters == {"requests": 5.0, "errors": 1.0, "sent": 4.0}
    assert sample.counts.histograms["latency"].count == 2


@pytest.mark.parametrize("number", [nan, inf, -inf, 1e300])
def test_a_bad_number_loses_that_number_alone(number: float) -> None:
    result = ReportValidator().validate(
        report(
            requests=number,
            errors=2.0,
            gauges={"bad": number, "good": 1.0},
            counters={"bad2": number, "good2": 2.0},
            latencies=[number, 7.0],
        ),
        NOW,
    )
    sample = result.sample
    assert sample is not None
    assert (sample.gauges, sample.counts.counters) == ({"good": 1.0}, {"errors": 2.0, "good2": 2.0})
    assert sample.counts.histograms["latency"].count == 1
    assert sorted(result.rejections) == sorted([RejectReason.BAD_NUMBER] * 3 + [RejectReason.BAD_LATENCY])


def test_negative_counts_are_refused_negative_gauges_are_not() -> None:
    result = ReportValidator().validate(report(requests=-1.0, counters={"c": -1.0}, gauges={"g": -1.0}), NOW)
    assert result.rejections == [RejectReason.BAD_NUMBER, RejectReason.BAD_NUMBER]
    assert result.sample is not None
    assert result.sample.gauges == {"g": -1.0}


def test_a_bad_sketch_loses_the_sketch_alone() -> None:
    result = ReportValidator().validate(
        report(latency=Sketch(bins={0: -1.0}, min=1.0, max=1.0), latencies=[5.0]), NOW
    )
    assert result.rejections == [RejectReason.BAD_SKETCH]
    assert result.sample is not None
    assert result.sample.counts.histograms["latency"].count == 1


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"source": ""}, RejectReason.BAD_SOURCE),
        ({"source": "x" * 129}, RejectReason.BAD_SOURCE),
        ({"source": "a\nb"}, RejectReason.BAD_SOURCE),
        ({"source": 'shop{route="/cart"}'}, RejectReason.BAD_SOURCE),
        ({"kind": "robot"}, RejectReason.BAD_KIND),
        ({"timestamp": (T0 + 61) * 1000}, RejectReason.FUTURE),
        ({"timestamp": (T0 - 3601) * 1000}, RejectReason.TOO_OLD),
    ],
)
def test_refuses_the_complete_report(fields: dict[str, object], reason: RejectReason) -> None:
    validator = ReportValidator()
    result = validator.validate(report(**fields), NOW)  # type: ignore[arg-type]
    assert result.sample is None
    assert result.rejections == [reason]
    assert len(validator) == 0


def test_skew_within_reason_is_taken() -> None:
    validator = ReportValidator()
    for skew_s in (-3000, -5, 5, 59):
        assert validator.validate(report(timestamp=(T0 + skew_s) * 1000), NOW).sample is not None


def test_a_repeat_counts_once_and_a_gap_is_noticed() -> None:
    validator = ReportValidator()
    assert validator.validate(report(boot="a", seq=1), NOW).sample is not None
    assert validator.validate(report(boot="a", seq=1), NOW).rejections == [RejectReason.DUPLICATE]
    assert validator.validate(report(boot="a", seq=5), NOW).lost == 3
    assert validator.validate(report(boot="a", seq=4), NOW).rejections == [RejectReason.DUPLICATE]


def test_boots_of_one_source_are_counted_apart() -> None:
    validator = ReportValidator()
    for boot, seq, taken in (("a", 1, True), ("b", 1, True), ("a", 1, False), ("a", 2, True), ("b", 2, True)):
        assert (validator.validate(report(boot=boot, seq=seq), NOW).sample is not None) is taken, (boot, seq)


def test_sources_are_capped_and_silent_ones_make_room(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sources, "MAX_SOURCES", 2)
    validator = ReportValidator()
    assert validator.validate(report("a"), NOW).sample is not None
    assert validator.validate(report("b"), NOW).sample is not None
    assert validator.validate(report("c"), NOW).rejections == [RejectReason.TOO_MANY_SOURCES]
    later = NOW + sources.EXPIRE_S + 1
    assert validator.validate(report("b", timestamp=int(later * 1000)), later).sample is not None
    assert validator.validate(report("c", timestamp=int(later * 1000)), later).sample is not None
    assert len(validator) == 2


def test_an_application_does_not_speak_for_an_agent_or_a_gateway() -> None:
    validator = ReportValidator()
    for kind in ("agent", "gateway"):
        assert validator.validate(report("web", "app", gauges={"cpu": 1.0}), NOW).sample is not None
        taken = validator.validate(report("web", kind, gauges={"cpu": 95.0}), NOW).sample
        assert taken is not None
        assert taken.kind == kind
        for later in (NOW, NOW + sources.EXPIRE_S + 1, NOW + 3600 * 23):
            pushed = report("web", "app", timestamp=int(later * 1000))
            assert validator.validate(pushed, later).rejections == [RejectReason.NAME_TAKEN]
        validator = ReportValidator()


def test_made_up_sources_keep_no_agent_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sources, "MAX_SOURCES", 4)
    validator = ReportValidator()
    for at in range(10):
        validator.validate(report(f"made-up-{at}", "app"), NOW + at / 10)
    for at in range(4):
        assert validator.validate(report(f"host-{at}", "agent"), NOW + 1).sample is not None
    assert validator.validate(report("made-up-0", "app"), NOW + 1).rejections == [
        RejectReason.TOO_MANY_SOURCES
    ]
    assert validator.validate(report("host-4", "agent"), NOW + 1).rejections == [
        RejectReason.TOO_MANY_SOURCES
    ]
    assert len(validator) == 4


@pytest.mark.parametrize("of", ["gauges", "histograms"])
def test_names_that_are_no_longer_used_make_room(of: str) -> None:
    """An application whose releases rename its metrics."""
    validator = ReportValidator()
    value = 1.0 if of == "gauges" else LatencySketch([1.0]).to_wire()
    size = 20 if of == "gauges" else 3
    for release in range(6):
        now = NOW + release * (sources.EXPIRE_S + 1)
        for at in (0, sources.EXPIRE_S / 2):
            said = report(
                "shop", "app", timestamp=int((now + at) * 1000),
                **{of: {f"r{release}_{name}": value for name in range(size)}},
            )  # fmt: skip
            assert validator.validate(said, now + at).rejections == []


def test_a_million_metric_names_cost_no_memory() -> None:
    validator = ReportValidator()
    result = validator.validate(report(gauges={f"m{i}": 1.0 for i in range(1000)}), NOW)
    assert result.sample is not None
    assert len(result.sample.gauges) == sources.MAX_METRICS_PER_SOURCE
    assert result.rejections.count(RejectReason.TOO_MANY_METRICS) == 1000 - sources.MAX_METRICS_PER_SOURCE
    again = validator.validate(report(gauges={"m0": 2.0, "other": 1.0}), NOW)
    assert again.sample is not None
    assert again.sample.gauges == {"m0": 2.0}


@pytest.mark.parametrize("name", ["", "1st", "a b", "x" * 65, "é", "a\n"])
def test_bad_metric_names(name: str) -> None:
    assert ReportValidator().validate(report(gauges={name: 1.0}), NOW).rejections == [
        RejectReason.BAD_METRIC_NAME
    ]


def test_labels_and_latencies_are_capped() -> None:
    result = ReportValidator().validate(
        report(labels={f"l{i}": "v" for i in range(20)} | {"long": "x" * 200}, latencies=[1.0] * 10_001),
        NOW,
    )
    assert result.sample is not None
    assert len(result.sample.labels) == MAX_LABELS_PER_SOURCE
    assert result.rejections.count(RejectReason.TOO_MANY_LABELS) == 5
    assert result.rejections.count(RejectReason.TOO_MANY_LATENCIES) == 1
