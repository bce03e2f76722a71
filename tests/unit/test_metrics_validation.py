"""Which reports are taken, and why others are not."""

from math import inf, nan

import pytest

from metrics_svc.aggregation import validation
from metrics_svc.aggregation.validation import RejectReason, ReportValidator
from services.latency_sketch import LatencySketch
from services.wire.events import Sketch
from tests.support.metrics import T0, report

NOW = float(T0)


def test_takes_a_good_report_whole() -> None:
    verdict = ReportValidator().validate(
        report(requests=5.0, errors=1.0, latencies=[1.0, 2.0], gauges={"cpu": 3.0}, counters={"sent": 4.0}),
        NOW,
    )
    assert not verdict.refusals
    sample = verdict.sample
    assert sample is not None
    assert (sample.requests, sample.errors, sample.gauges, sample.counters) == (
        5.0,
        1.0,
        {"cpu": 3.0},
        {"sent": 4.0},
    )
    assert sample.latency is not None
    assert sample.latency.count == 2


@pytest.mark.parametrize("number", [nan, inf, -inf, 1e300])
def test_a_bad_number_loses_that_number_alone(number: float) -> None:
    verdict = ReportValidator().validate(
        report(
            requests=number,
            errors=2.0,
            gauges={"bad": number, "good": 1.0},
            counters={"bad2": number, "good2": 2.0},
            latencies=[number, 7.0],
        ),
        NOW,
    )
    sample = verdict.sample
    assert sample is not None
    assert (sample.requests, sample.errors) == (0.0, 2.0)
    assert (sample.gauges, sample.counters) == ({"good": 1.0}, {"good2": 2.0})
    assert sample.latency is not None
    assert sample.latency.count == 1
    assert sorted(verdict.refusals) == sorted([RejectReason.BAD_NUMBER] * 3 + [RejectReason.BAD_LATENCY])


def test_negative_counts_are_refused_negative_gauges_are_not() -> None:
    verdict = ReportValidator().validate(report(requests=-1.0, counters={"c": -1.0}, gauges={"g": -1.0}), NOW)
    assert verdict.refusals == [RejectReason.BAD_NUMBER, RejectReason.BAD_NUMBER]
    assert verdict.sample is not None
    assert verdict.sample.gauges == {"g": -1.0}


def test_a_bad_sketch_loses_the_sketch_alone() -> None:
    verdict = ReportValidator().validate(
        report(latency=Sketch(bins={0: -1.0}, min=1.0, max=1.0), latencies=[5.0]), NOW
    )
    assert verdict.refusals == [RejectReason.BAD_SKETCH]
    assert verdict.sample is not None
    assert verdict.sample.latency is not None
    assert verdict.sample.latency.count == 1


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
def test_refuses_the_whole_report(fields: dict[str, object], reason: RejectReason) -> None:
    validator = ReportValidator()
    verdict = validator.validate(report(**fields), NOW)  # type: ignore[arg-type]
    assert verdict.sample is None
    assert verdict.refusals == [reason]
    assert len(validator) == 0


def test_skew_within_reason_is_taken() -> None:
    validator = ReportValidator()
    for skew_s in (-3000, -5, 5, 59):
        assert validator.validate(report(timestamp=(T0 + skew_s) * 1000), NOW).sample is not None


def test_a_repeat_counts_once_and_a_gap_is_noticed() -> None:
    validator = ReportValidator()
    assert validator.validate(report(boot="a", seq=1), NOW).sample is not None
    assert validator.validate(report(boot="a", seq=1), NOW).refusals == [RejectReason.DUPLICATE]
    assert validator.validate(report(boot="a", seq=5), NOW).lost == 3
    assert validator.validate(report(boot="a", seq=4), NOW).refusals == [RejectReason.DUPLICATE]


def test_boots_of_one_source_are_counted_apart() -> None:
    validator = ReportValidator()
    for boot, seq, taken in (("a", 1, True), ("b", 1, True), ("a", 1, False), ("a", 2, True), ("b", 2, True)):
        assert (validator.validate(report(boot=boot, seq=seq), NOW).sample is not None) is taken, (boot, seq)


def test_sources_are_capped_and_silent_ones_make_room() -> None:
    validator = ReportValidator(max_sources=2)
    assert validator.validate(report("a"), NOW).sample is not None
    assert validator.validate(report("b"), NOW).sample is not None
    assert validator.validate(report("c"), NOW).refusals == [RejectReason.TOO_MANY_SOURCES]
    later = NOW + validation.FORGET_S + 1
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
        for later in (NOW, NOW + validation.FORGET_S + 1, NOW + 3600 * 23):
            pushed = report("web", "app", timestamp=int(later * 1000))
            assert validator.validate(pushed, later).refusals == [RejectReason.NAME_TAKEN]
        validator = ReportValidator()


def test_made_up_sources_keep_no_agent_out() -> None:
    validator = ReportValidator(max_sources=4)
    for at in range(10):
        validator.validate(report(f"made-up-{at}", "app"), NOW + at / 10)
    for at in range(4):
        assert validator.validate(report(f"host-{at}", "agent"), NOW + 1).sample is not None
    assert validator.validate(report("made-up-0", "app"), NOW + 1).refusals == [RejectReason.TOO_MANY_SOURCES]
    assert validator.validate(report("host-4", "agent"), NOW + 1).refusals == [RejectReason.TOO_MANY_SOURCES]
    assert len(validator) == 4


@pytest.mark.parametrize("of", ["gauges", "histograms"])
def test_names_that_are_no_longer_used_make_room(of: str) -> None:
    """An application whose releases rename its metrics."""
    validator = ReportValidator()
    value = 1.0 if of == "gauges" else LatencySketch([1.0]).to_wire()
    size = 20 if of == "gauges" else 3
    for release in range(6):
        now = NOW + release * (validation.FORGET_S + 1)
        for at in (0, validation.FORGET_S / 2):
            said = report(
                "shop", "app", timestamp=int((now + at) * 1000),
                **{of: {f"r{release}_{name}": value for name in range(size)}},
            )  # fmt: skip
            assert validator.validate(said, now + at).refusals == []


def test_a_million_metric_names_cost_no_memory() -> None:
    validator = ReportValidator()
    verdict = validator.validate(report(gauges={f"m{i}": 1.0 for i in range(1000)}), NOW)
    assert verdict.sample is not None
    assert len(verdict.sample.gauges) == validation.MAX_METRICS_PER_SOURCE
    assert verdict.refusals.count(RejectReason.TOO_MANY_METRICS) == 1000 - validation.MAX_METRICS_PER_SOURCE
    again = validator.validate(report(gauges={"m0": 2.0, "other": 1.0}), NOW)
    assert again.sample is not None
    assert again.sample.gauges == {"m0": 2.0}


@pytest.mark.parametrize("name", ["", "1st", "a b", "x" * 65, "é", "a\n"])
def test_bad_metric_names(name: str) -> None:
    assert ReportValidator().validate(report(gauges={name: 1.0}), NOW).refusals == [
        RejectReason.BAD_METRIC_NAME
    ]


def test_labels_and_latencies_are_capped() -> None:
    verdict = ReportValidator().validate(
        report(labels={f"l{i}": "v" for i in range(20)} | {"long": "x" * 200}, latencies=[1.0] * 10_001),
        NOW,
    )
    assert verdict.sample is not None
    assert len(verdict.sample.labels) == validation.MAX_LABELS_PER_SOURCE
    assert verdict.refusals.count(RejectReason.TOO_MANY_LABELS) == 5
    assert verdict.refusals.count(RejectReason.TOO_MANY_LATENCIES) == 1
