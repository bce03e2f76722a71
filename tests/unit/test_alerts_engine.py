"""Alerts from rows: when they are raised, changed, resolved, and when not."""

from collections.abc import Iterable
from typing import Literal

import msgspec
import pytest

from metrics_svc.aggregation.aggregator import SecondSnapshot
from metrics_svc.aggregation.rows import FLEET, Row
from metrics_svc.alerts.engine import AlertEngine
from metrics_svc.alerts.instance import REFRESH_S
from metrics_svc.alerts.rules import DEFAULT_RULES, EVERY_SOURCE, Rule, RuleSet
from metrics_svc.alerts.states import AlertState
from metrics_svc.store import SecondCommit
from services.latency_sketch import LatencySketch
from services.wire.records import UNSET
from services.wire.server import AlertRaised
from tests.support.metrics import T0, fleet, of_sources

QUIET = 20.0


class Run:
    """An engine, and all its events so far."""

    def __init__(self, *rules: Rule) -> None:
        self.engine = AlertEngine(RuleSet(rules) if rules else DEFAULT_RULES, {})
        self.second = T0
        self.outcomes: list[SecondCommit] = []

    def feed(self, *values: float | None, metric: str = "cpu") -> "Run":
        for value in values:
            self.take(fleet(self.second, **({} if value is None else {metric: value})))
        return self

    def take(self, closed: SecondSnapshot) -> None:
        self.outcomes.append(self.engine.evaluate(closed))
        self.second = closed.second + 1

    @property
    def said(self) -> list[str]:
        """`cpu-alert critical`, `cpu-alert resolved`, …"""
        return [
            f"{event.data.id} {event.data.type if isinstance(event, AlertRaised) else 'resolved'}"
            for outcome in self.outcomes
            for event in outcome.events
        ]

    @property
    def reasons(self) -> Iterable[str]:
        return [change.transition.reason.name for outcome in self.outcomes for change in outcome.announced]


CPU = Rule(metric="cpu", warning=70, critical=90, clear_for_s=0)


def test_an_alert_reads_well() -> None:
    run = Run(CPU).feed(93.14)
    event = run.outcomes[0].events[0]
    assert isinstance(event, AlertRaised)
    alert = event.data
    assert (alert.id, alert.type, alert.metric) == ("cpu-alert", "critical", "cpu")
    assert (alert.value, alert.threshold, alert.timestamp) == (93.14, 90, (T0 + 1) * 1000)
    assert alert.message == "cpu is 93.14 %, critical at 90"


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ([69.9], []),
        ([70.0], ["cpu-alert warning"]),
        ([90.0], ["cpu-alert critical"]),
        ([75, 80, 75], ["cpu-alert warning"]),
        ([75, 95], ["cpu-alert warning", "cpu-alert critical"]),
        ([95, 86, 85.4], ["cpu-alert critical", "cpu-alert warning"]),
        ([95, 20], ["cpu-alert critical", "cpu-alert resolved"]),
        ([75, 66.5], ["cpu-alert warning"]),
        ([75, 66.4], ["cpu-alert warning", "cpu-alert resolved"]),
        ([75, 20, 20, 20], ["cpu-alert warning", "cpu-alert resolved"]),
        ([75, 20, 75], ["cpu-alert warning", "cpu-alert resolved", "cpu-alert warning"]),
    ],
)
def test_thresholds(values: list[float], said: list[str]) -> None:
    assert Run(CPU).feed(*values).said == said


def test_shorter_than_for_raises_no_alert() -> None:
    rule = Rule(metric="cpu", warning=70, for_s=3, clear_for_s=0)
    assert Run(rule).feed(75, 75, 75, QUIET, 75, 75).said == []
    assert Run(rule).feed(75, 75, 75, 75).said == ["cpu-alert warning"]


def test_a_short_spike_does_not_raise_severity() -> None:
    rule = Rule(metric="cpu", warning=70, critical=90, for_s=3, clear_for_s=0)
    run = Run(rule).feed(75, 75, 75, 75, 95, 95, 75, 75, 75)
    assert run.said == ["cpu-alert warning"]
    assert run.feed(95, 95, 95, 95).said == ["cpu-alert warning", "cpu-alert critical"]


def test_clear_for_bridges_short_dips() -> None:
    rule = Rule(metric="cpu", warning=70, clear_for_s=3)
    run = Run(rule).feed(75, 20, 20, 75, 20, 20, 20)
    assert run.said == ["cpu-alert warning"]
    assert run.feed(20).said == ["cpu-alert warning", "cpu-alert resolved"]


def test_falling_through_both_thresholds_only_resolves() -> None:
    rule = Rule(metric="cpu", warning=70, critical=90, clear_for_s=3)
    assert Run(rule).feed(95, 80, 20, 20, 20, 20).said == ["cpu-alert critical", "cpu-alert resolved"]


def test_own_clear_thresholds() -> None:
    rule = Rule(metric="cpu", warning=70, warning_clear=50, clear_for_s=0)
    assert Run(rule).feed(75, 51, 50, 49).said == ["cpu-alert warning", "cpu-alert resolved"]


def test_a_rule_may_alert_below_a_threshold() -> None:
    rule = Rule(metric="requests", warning=10, critical=1, op="<=", clear_for_s=0)
    run = Run(rule).feed(20, 10, 10.4, 1, 1.04, 5, 11, metric="requests")
    assert run.said == [
        "requests-alert warning",
        "requests-alert critical",
        "requests-alert warning",
        "requests-alert resolved",
    ]
    assert run.outcomes[1].announced[0].alert.message == "requests is 10/s, warning at or below 10"


@pytest.mark.parametrize(
    ("no_data", "before", "said"),
    [
        ("keep", [95], ["cpu-alert critical"]),
        ("resolve", [95], ["cpu-alert critical", "cpu-alert resolved"]),
        ("alert", [95], ["cpu-alert critical"]),
        ("keep", [20], []),
        ("resolve", [20], []),
        ("alert", [20], ["cpu-alert warning"]),
        ("alert", [], ["cpu-alert warning"]),
    ],
)
def test_without_data(no_data: str, before: list[float], said: list[str]) -> None:
    rule = Rule(metric="cpu", warning=70, critical=90, clear_for_s=0, no_data=no_data, no_data_for_s=5)  # type: ignore[arg-type]
    run = Run(rule).feed(*before, None, None, None, None, None)
    assert run.said == said[: len([value for value in before if value > 70])]  # not yet for five seconds
    assert run.feed(*[None] * 10).said == said


def test_data_after_no_data_goes_on_where_it_was() -> None:
    assert Run(CPU).feed(95, None, None, 95).said == ["cpu-alert critical"]
    assert Run(CPU).feed(95, *[None] * 30, 20).said == ["cpu-alert critical", "cpu-alert resolved"]


def test_a_pending_alert_does_not_count_time_without_data() -> None:
    rule = Rule(metric="cpu", warning=70, for_s=20, no_data_for_s=5, clear_for_s=0)
    assert Run(rule).feed(75, *[None] * 30, 75, 75).said == []


def test_no_data_alert_ends_with_data() -> None:
    rule = Rule(metric="cpu", warning=70, no_data="alert", no_data_for_s=2, clear_for_s=0)
    run = Run(rule).feed(20, None, None, None)
    assert run.outcomes[-1].announced[0].alert.message == "no data for cpu"
    assert run.feed(20).said == ["cpu-alert warning", "cpu-alert resolved"]


def test_few_requests_are_ignored_for_latency() -> None:
    rule = Rule(metric="latencyP99", warning=500, min_count=10, no_data="resolve")
    run = Run(rule)
    run.take(fleet(T0, [900.0] * 9))
    assert run.said == []
    run.take(fleet(T0 + 1, [900.0] * 10))
    assert run.said == ["latencyP99-alert warning"]


def test_default_rules() -> None:
    run = Run()
    run.take(fleet(T0, [600.0], cpu=95, memory=85, errors=50, requests=100, disk=99))
    assert run.said == [
        "cpu-alert critical",
        "memory-alert warning",
        "latencyP99-alert warning",
        "errors-alert critical",
    ]


def test_each_source_on_its_own() -> None:
    rule = Rule(metric="cpu", source=EVERY_SOURCE, warning=70, clear_for_s=0)
    run = Run(rule)
    run.take(of_sources(T0, web_1={"cpu": 95.0}, web_2={"cpu": 20.0}, gw={"requests": 1.0}))
    assert run.said == ["cpu@web-1-alert warning"]
    assert run.outcomes[0].announced[0].alert.message == "cpu of web-1 is 95 %, warning at 70"
    run.take(of_sources(T0 + 1, web_1={"cpu": 20.0}, web_2={"cpu": 80.0}))
    assert run.said[1:] == ["cpu@web-1-alert resolved", "cpu@web-2-alert warning"]


def test_a_rule_for_one_source_takes_precedence() -> None:
    run = Run(
        Rule(metric="cpu", source=EVERY_SOURCE, warning=70, clear_for_s=0),
        Rule(metric="cpu", source="batch", warning=99, clear_for_s=0),
    )
    run.take(of_sources(T0, web={"cpu": 95.0}, batch={"cpu": 95.0}))
    assert run.said == ["cpu@web-alert warning"]


def test_a_source_that_left_is_forgotten() -> None:
    rule = Rule(metric="cpu", source=EVERY_SOURCE, warning=70, no_data="resolve", no_data_for_s=2)
    run = Run(rule)
    run.take(of_sources(T0, web={"cpu": 95.0}))
    for second in range(T0 + 1, T0 + 6):
        run.take(of_sources(second))
    assert run.said == ["cpu@web-alert warning", "cpu@web-alert resolved"]
    assert run.engine._instances == {}


def test_removing_a_rule_resolves_its_alert() -> None:
    run = Run(CPU).feed(95)
    run.engine.rules = RuleSet([])
    run.feed(95)
    assert run.said == ["cpu-alert critical", "cpu-alert resolved"]
    assert list(run.reasons) == ["BREACH_HELD", "RULE_REMOVED"]
    assert run.outcomes[-1].instances == {"cpu-alert": None}


def test_the_log_has_one_line_per_episode() -> None:
    run = Run(CPU).feed(75, 95, 20, QUIET, 75)
    entries = [entry for outcome in run.outcomes for entry in outcome.entries]
    assert [(entry.state, entry.type, entry.started_at // 1000 - T0) for entry in entries] == [
        ("firing", "warning", 1),
        ("firing", "critical", 1),
        ("resolved", "critical", 1),
        ("firing", "warning", 5),
    ]
    assert entries[2].ended_at == (T0 + 3) * 1000
    assert entries[0].ended_at is UNSET


def test_a_new_engine_goes_on_from_what_was_kept() -> None:
    rule = Rule(metric="cpu", warning=70, for_s=3, clear_for_s=2)
    values = [75, 75, 75, 75, 20, 20, 75, 20, 20, 20, 20]
    undisturbed = Run(rule).feed(*values).said
    assert undisturbed == ["cpu-alert warning", "cpu-alert resolved"]
    for cut in range(len(values)):
        first = Run(rule).feed(*values[:cut])
        kept = {}
        for outcome in first.outcomes:
            kept |= outcome.instances
        second = Run(rule)
        second.engine = AlertEngine(
            RuleSet([rule]), {id: watch for id, watch in kept.items() if watch is not None}
        )
        second.second = first.second
        assert first.said + second.feed(*values[cut:]).said == undisturbed


def test_watches_are_written_only_when_they_change() -> None:
    run = Run(CPU).feed(20, 20, 95, 95, 95, 95)
    assert [len(outcome.instances) for outcome in run.outcomes] == [0, 0, 1, 0, 0, 0]
    assert run.outcomes[2].instances["cpu-alert"] is not None
    assert run.outcomes[2].instances["cpu-alert"].state is AlertState.FIRING


def of_histograms(second: int, fleets: list[float] | None, **sources: list[float]) -> SecondSnapshot:
    """Return a second in which sources measured `basket`; the fleet's row has it, or had no room for it."""
    rows = {
        name: Row.of_second(second, {}, {"basket": LatencySketch(values)}) for name, values in sources.items()
    }
    whole = {"basket": LatencySketch(fleets)} if fleets else {}
    return SecondSnapshot(second, {FLEET: Row.of_second(second, {}, whole)} | rows, {})


@pytest.mark.parametrize("aggregate", ["sum", "mean"])
def test_percentiles_are_neither_summed_nor_averaged(aggregate: Literal["sum", "mean"]) -> None:
    run = Run(Rule(metric="basket.p95", warning=60, aggregate=aggregate, clear_for_s=0))
    run.take(of_histograms(T0, None, a=[40.0], b=[40.0], c=[40.0], d=[40.0]))
    assert run.said == []
    run.take(of_histograms(T0 + 1, [10.0, 80.0], a=[10.0], b=[80.0]))
    assert run.said == ["basket.p95-alert warning"]
    assert run.outcomes[-1].announced[0].alert.value == pytest.approx(80, rel=0.01)


def test_the_worst_percentile_of_any_source_is_one() -> None:
    run = Run(Rule(metric="basket.p95", warning=60, aggregate="max"))
    run.take(of_histograms(T0, None, a=[40.0], b=[70.0]))
    assert run.outcomes[-1].announced[0].alert.value == pytest.approx(70, rel=0.01)


def test_a_firing_alert_has_the_value_of_now_and_announces_nothing() -> None:
    run = Run(Rule(metric="disk", warning=80)).feed(81, metric="disk")
    run.feed(*[99.9] * REFRESH_S, metric="disk")
    assert run.said == ["disk-alert warning"]
    shown = run.engine._instances["disk-alert"].current
    assert shown is not None
    assert (shown.value, shown.message) == (99.9, "disk is 99.9 %, warning at 80")
    assert shown.timestamp == (T0 + 1) * 1000
    (current,) = [entry for outcome in run.outcomes for entry in outcome.current]
    assert (current.value, current.state, current.started_at) == (99.9, "firing", (T0 + 1) * 1000)
    assert current.reason == "over a threshold for long enough"


def test_an_alert_that_is_about_to_end_keeps_its_last_message() -> None:
    run = Run(Rule(metric="cpu", warning=70, clear_for_s=60)).feed(95, *[20.0] * 2 * REFRESH_S)
    shown = run.engine._instances["cpu-alert"].current
    assert shown is not None
    assert shown.message == "cpu is 95 %, warning at 70"


def test_a_value_that_changes_all_the_time_is_written_now_and_then() -> None:
    run = Run(CPU).feed(*[95 + at / 100 for at in range(50)])
    assert sum(len(outcome.instances) for outcome in run.outcomes) <= 1 + 50 // REFRESH_S


def test_alerts_of_two_rules_never_share_an_id() -> None:
    """A metric's name may end as another source's begins."""
    run = Run(
        Rule(metric="queue", source="a", warning=1),
        Rule(metric="queue-a", warning=1),
        Rule(metric="queue", warning=1),
    )
    run.take(
        SecondSnapshot(
            T0,
            {
                FLEET: Row.of_second(T0, {"queue-a": 500.0, "queue": 500.0}),
                "a": Row.of_second(T0, {"queue": 0.0}),
            },
            {},
        )
    )
    assert run.said == ["queue-a-alert warning", "queue-alert warning"]


def test_alerts_stored_under_other_ids_end_there_and_go_on() -> None:
    """Earlier versions wrote `METRIC-SOURCE-alert`."""
    rule = Rule(metric="up", source=EVERY_SOURCE, critical=0, op="<=", no_data="alert", no_data_for_s=2)
    run = Run(rule)
    run.take(of_sources(T0, web={"up": 1.0}, db={"up": 1.0}))
    for second in range(T0 + 1, T0 + 5):
        run.take(of_sources(second, db={"up": 1.0}))
    stored = {
        f"up-{watch.source}-alert": msgspec.structs.replace(
            watch, alert=watch.alert and msgspec.structs.replace(watch.alert, id=f"up-{watch.source}-alert")
        )
        for watch in run.engine._instances.values()
    }
    assert sorted(stored) == ["up-db-alert", "up-web-alert"]
    later = Run(rule)
    later.engine = AlertEngine(RuleSet([rule]), stored)
    for second in range(T0 + 5, T0 + 9):
        later.take(of_sources(second, db={"up": 1.0}))
    assert later.said == [
        "up-web-alert resolved",
        "up@web-alert critical",
    ]  # and of `db`, which is well, nothing
    first = later.outcomes[0]
    assert {id: watch is not None for id, watch in first.instances.items()} == {
        "up-web-alert": False, "up-db-alert": False, "up@web-alert": True, "up@db-alert": True,
    }  # fmt: skip
    assert [(entry.id, entry.state, entry.started_at // 1000 - T0) for entry in first.entries] == [
        ("up-web-alert", "resolved", 4),
        ("up@web-alert", "firing", 4),
    ]
    later.take(of_sources(T0 + 9, web={"up": 1.0}, db={"up": 1.0}))
    later.take(of_sources(T0 + 13, web={"up": 1.0}, db={"up": 1.0}))
    assert later.said[2:] == ["up@web-alert resolved"]


def test_a_rule_has_so_many_alerts_and_no_more() -> None:
    run = Run(Rule(metric="cpu", source=EVERY_SOURCE, warning=70, clear_for_s=0, limit=3))
    hot = {f"h{at}": {"cpu": 95.0} for at in range(5)}
    run.take(of_sources(T0, **hot))
    assert run.said == [f"cpu@h{at}-alert warning" for at in range(3)]
    assert run.outcomes[-1].limited == {"cpu@*": 2}
    run.take(of_sources(T0 + 1, **hot))
    assert (len(run.said), run.outcomes[-1].limited) == (3, {"cpu@*": 2})
    hot["h0"] = {"cpu": 1.0}
    run.take(of_sources(T0 + 2, **hot))
    run.take(of_sources(T0 + 3, **hot))
    assert run.said[3:] == ["cpu@h0-alert resolved", "cpu@h3-alert warning"]
    assert run.outcomes[-1].limited == {"cpu@*": 1}
