"""Which reports are taken, and why others are not."""

from math import inf, nan

import pytest

from metrics_svc.aggregation import admission
from metrics_svc.aggregation.admission import Admission, Refusal
from services.latency_sketch import LatencySketch
from services.wire.events import Sketch
from tests.support.metrics import T0, report

NOW = float(T0)


def test_takes_a_good_report_whole() -> None:
    verdict = Admission().judge(
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
    verdict = Admission().judge(
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
    assert sorted(verdict.refusals) == sorted([Refusal.BAD_NUMBER] * 3 + [Refusal.BAD_LATENCY])


def test_negative_counts_are_refused_negative_gauges_are_not() -> None:
    verdict = Admission().judge(report(requests=-1.0, counters={"c": -1.0}, gauges={"g": -1.0}), NOW)
    assert verdict.refusals == [Refusal.BAD_NUMBER, Refusal.BAD_NUMBER]
    assert verdict.sample is not None
    assert verdict.sample.gauges == {"g": -1.0}


def test_a_bad_sketch_loses_the_sketch_alone() -> None:
    verdict = Admission().judge(
        report(latency=Sketch(bins={0: -1.0}, min=1.0, max=1.0), latencies=[5.0]), NOW
    )
    assert verdict.refusals == [Refusal.BAD_SKETCH]
    assert verdict.sample is not None
    assert verdict.sample.latency is not None
    assert verdict.sample.latency.count == 1


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"source": ""}, Refusal.BAD_SOURCE),
        ({"source": "x" * 129}, Refusal.BAD_SOURCE),
        ({"source": "a\nb"}, Refusal.BAD_SOURCE),
        ({"source": 'shop{route="/cart"}'}, Refusal.BAD_SOURCE),
        ({"kind": "robot"}, Refusal.BAD_KIND),
        ({"timestamp": (T0 + 61) * 1000}, Refusal.FUTURE),
        ({"timestamp": (T0 - 3601) * 1000}, Refusal.TOO_OLD),
    ],
)
def test_refuses_the_whole_report(fields: dict[str, object], reason: Refusal) -> None:
    judge = Admission()
    verdict = judge.judge(report(**fields), NOW)  # type: ignore[arg-type]
    assert verdict.sample is None
    assert verdict.refusals == [reason]
    assert len(judge) == 0


def test_skew_within_reason_is_taken() -> None:
    judge = Admission()
    for skew_s in (-3000, -5, 5, 59):
        assert judge.judge(report(timestamp=(T0 + skew_s) * 1000), NOW).sample is not None


def test_a_repeat_counts_once_and_a_gap_is_noticed() -> None:
    judge = Admission()
    assert judge.judge(report(boot="a", seq=1), NOW).sample is not None
    assert judge.judge(report(boot="a", seq=1), NOW).refusals == [Refusal.DUPLICATE]
    assert judge.judge(report(boot="a", seq=5), NOW).lost == 3
    assert judge.judge(report(boot="a", seq=4), NOW).refusals == [Refusal.DUPLICATE]


def test_boots_of_one_source_are_counted_apart() -> None:
    judge = Admission()
    for boot, seq, taken in (("a", 1, True), ("b", 1, True), ("a", 1, False), ("a", 2, True), ("b", 2, True)):
        assert (judge.judge(report(boot=boot, seq=seq), NOW).sample is not None) is taken, (boot, seq)


def test_sources_are_capped_and_silent_ones_make_room() -> None:
    judge = Admission(max_sources=2)
    assert judge.judge(report("a"), NOW).sample is not None
    assert judge.judge(report("b"), NOW).sample is not None
    assert judge.judge(report("c"), NOW).refusals == [Refusal.TOO_MANY_SOURCES]
    later = NOW + admission.FORGET_S + 1
    assert judge.judge(report("b", timestamp=int(later * 1000)), later).sample is not None
    assert judge.judge(report("c", timestamp=int(later * 1000)), later).sample is not None
    assert len(judge) == 2


def test_an_application_does_not_speak_for_an_agent_or_a_gateway() -> None:
    judge = Admission()
    for kind in ("agent", "gateway"):
        assert judge.judge(report("web", "app", gauges={"cpu": 1.0}), NOW).sample is not None
        taken = judge.judge(report("web", kind, gauges={"cpu": 95.0}), NOW).sample
        assert taken is not None
        assert taken.kind == kind
        for later in (NOW, NOW + admission.FORGET_S + 1, NOW + 3600 * 23):
            pushed = report("web", "app", timestamp=int(later * 1000))
            assert judge.judge(pushed, later).refusals == [Refusal.NAME_TAKEN]
        judge = Admission()


def test_made_up_sources_keep_no_agent_out() -> None:
    judge = Admission(max_sources=4)
    for at in range(10):
        judge.judge(report(f"made-up-{at}", "app"), NOW + at / 10)
    for at in range(4):
        assert judge.judge(report(f"host-{at}", "agent"), NOW + 1).sample is not None
    assert judge.judge(report("made-up-0", "app"), NOW + 1).refusals == [Refusal.TOO_MANY_SOURCES]
    assert judge.judge(report("host-4", "agent"), NOW + 1).refusals == [Refusal.TOO_MANY_SOURCES]
    assert len(judge) == 4


@pytest.mark.parametrize("of", ["gauges", "histograms"])
def test_names_that_are_no_longer_used_make_room(of: str) -> None:
    """An application whose releases rename its metrics."""
    judge = Admission()
    value = 1.0 if of == "gauges" else LatencySketch([1.0]).to_wire()
    size = 20 if of == "gauges" else 3
    for release in range(6):
        now = NOW + release * (admission.FORGET_S + 1)
        for at in (0, admission.FORGET_S / 2):
            said = report(
                "shop", "app", timestamp=int((now + at) * 1000),
                **{of: {f"r{release}_{name}": value for name in range(size)}},
            )  # fmt: skip
            assert judge.judge(said, now + at).refusals == []


def test_a_million_metric_names_cost_no_memory() -> None:
    judge = Admission()
    verdict = judge.judge(report(gauges={f"m{i}": 1.0 for i in range(1000)}), NOW)
    assert verdict.sample is not None
    assert len(verdict.sample.gauges) == admission.MAX_METRICS_PER_SOURCE
    assert verdict.refusals.count(Refusal.TOO_MANY_METRICS) == 1000 - admission.MAX_METRICS_PER_SOURCE
    again = judge.judge(report(gauges={"m0": 2.0, "other": 1.0}), NOW)
    assert again.sample is not None
    assert again.sample.gauges == {"m0": 2.0}


@pytest.mark.parametrize("name", ["", "1st", "a b", "x" * 65, "é", "a\n"])
def test_bad_metric_names(name: str) -> None:
    assert Admission().judge(report(gauges={name: 1.0}), NOW).refusals == [Refusal.BAD_METRIC_NAME]


def test_labels_and_latencies_are_capped() -> None:
    verdict = Admission().judge(
        report(labels={f"l{i}": "v" for i in range(20)} | {"long": "x" * 200}, latencies=[1.0] * 10_001),
        NOW,
    )
    assert verdict.sample is not None
    assert len(verdict.sample.labels) == admission.MAX_LABELS_PER_SOURCE
    assert verdict.refusals.count(Refusal.TOO_MANY_LABELS) == 5
    assert verdict.refusals.count(Refusal.TOO_MANY_LATENCIES) == 1
