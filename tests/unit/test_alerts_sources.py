"""Alerts of single sources: silence, label sets, aggregates over sources, stored transitions."""

import msgspec

from metrics_svc.aggregation.aggregator import SecondSnapshot
from metrics_svc.aggregation.rows import FLEET, Row
from metrics_svc.alerts.engine import AlertEngine
from metrics_svc.alerts.instance import AlertInstance
from metrics_svc.alerts.rules import EVERY_SOURCE, Rule, RuleSet
from metrics_svc.store import SecondCommit
from services.latency_sketch import LatencySketch
from services.wire.server import AlertRaised
from tests.support.metrics import T0, fleet, of_sources

DOWN = Rule(
    metric="up", source=EVERY_SOURCE, critical=0, op="<=", no_data="alert", no_data_for_s=3, forget_s=20,
    clear_for_s=0, labels={"team": "ops"},
)  # fmt: skip


def said(outcomes: list[SecondCommit]) -> list[str]:
    return [
        f"{event.data.id} {event.data.type if isinstance(event, AlertRaised) else 'resolved'}"
        for outcome in outcomes
        for event in outcome.events
    ]


def with_up(second: int, *names: str) -> SecondSnapshot:
    closed = of_sources(second, **{name: {"up": 1.0} for name in names})
    closed.labels.update({name: {"zone": "a"} for name in names})
    return closed


def test_a_silent_source_alerts_and_recovers() -> None:
    engine = AlertEngine(RuleSet([DOWN]), {})
    outcomes = [engine.evaluate(with_up(T0, "web", "db"))]
    outcomes += [engine.evaluate(with_up(T0 + at, "db")) for at in range(1, 8)]
    assert said(outcomes) == ["up@web-alert critical"]
    alert = outcomes[4].events[0].data
    assert alert.message == "no data for up of web"
    assert (alert.source, alert.labels) == ("web", {"zone": "a", "team": "ops"})
    outcomes.append(engine.evaluate(with_up(T0 + 8, "web", "db")))
    assert said(outcomes)[1:] == ["up@web-alert resolved"]


def test_a_source_that_never_reports_again_is_forgotten() -> None:
    engine = AlertEngine(RuleSet([DOWN]), {})
    engine.evaluate(with_up(T0, "web"))
    outcomes = [engine.evaluate(with_up(T0 + at)) for at in range(1, 30)]
    assert said(outcomes) == ["up@web-alert critical", "up@web-alert resolved"]
    assert engine._instances == {}
    reasons = [transition.reason for outcome in outcomes for transition in outcome.transitions]
    assert reasons[-1] == "no data for so long that the source is taken for gone"


def test_that_a_source_exists_survives_a_restart() -> None:
    first = AlertEngine(RuleSet([DOWN]), {})
    kept = first.evaluate(with_up(T0, "web")).instances
    second = AlertEngine(RuleSet([DOWN]), {id: watch for id, watch in kept.items() if watch is not None})
    outcomes = [second.evaluate(with_up(T0 + at)) for at in range(1, 6)]
    assert said(outcomes) == ["up@web-alert critical"]


def test_label_sets_are_watched_where_a_rule_matches_them() -> None:
    rule = Rule(
        metric="errors", source=EVERY_SOURCE, match={"route": "*", "tier": "1"}, warning=5, clear_for_s=0
    )
    engine = AlertEngine(RuleSet([rule]), {})
    series = {
        'shop{route="/a"}': ("/a", "1", 9.0),
        'shop{route="/b"}': ("/b", "2", 9.0),
        'shop{route="/c"}': ("/c", "1", 1.0),
    }
    closed = of_sources(T0, shop={"errors": 19.0})
    for name, (route, tier, errors) in series.items():
        closed.rows[name] = Row.of_second(T0, {"errors": errors})
        closed.labels[name] = {"route": route, "tier": tier}
        closed.parents[name] = "shop"
    outcome = engine.evaluate(closed)
    assert said([outcome]) == ['errors@shop{route="/a"}-alert warning']
    alert = outcome.events[0].data
    assert (alert.source, alert.labels) == ("shop", {"route": "/a", "tier": "1"})
    plain = AlertEngine(RuleSet([Rule(metric="errors", source=EVERY_SOURCE, warning=5)]), {})
    assert said([plain.evaluate(closed)]) == ["errors@shop-alert warning"]


def test_the_fleets_value_of_any_metric_comes_from_its_sources() -> None:
    closed = of_sources(T0, a={"depth": 3.0}, b={"depth": 9.0})
    for aggregate, value in (("sum", 12), ("mean", 6), ("min", 3), ("max", 9)):
        rule = Rule(metric="depth", aggregate=aggregate, warning=0)  # type: ignore[arg-type]
        assert AlertEngine(RuleSet([rule]), {}).evaluate(closed).events[0].data.value == value


def test_percentiles_of_histograms_have_a_least_number_of_values() -> None:
    rule = Rule(metric="checkout.p95", warning=100, min_count=10)
    for count, alerts in ((9, 0), (10, 1)):
        row = Row.of_second(T0, {}, {"checkout": LatencySketch([200.0] * count)})
        assert (
            len(AlertEngine(RuleSet([rule]), {}).evaluate(SecondSnapshot(T0, {FLEET: row}, {})).events)
            == alerts
        )


def test_every_transition_is_kept_with_its_reason() -> None:
    engine = AlertEngine(RuleSet([Rule(metric="cpu", warning=70, critical=90, for_s=2, clear_for_s=0)]), {})
    values = [75, 20, 75, 75, 75, 95, 95, 95, 20]
    outcomes = [engine.evaluate(fleet(T0 + at, cpu=value)) for at, value in enumerate(values)]
    steps = [(step.before, step.after, step.reason) for outcome in outcomes for step in outcome.transitions]
    assert steps == [
        ("inactive", "pending", "over a threshold"),
        ("pending", "inactive", "back under the threshold before it counted"),
        ("inactive", "pending", "over a threshold"),
        ("pending", "firing", "over a threshold for long enough"),
        ("firing", "firing", "over the next threshold"),
        ("firing", "resolved", "past the clear threshold for long enough"),
    ]
    entries = [line for outcome in outcomes for line in outcome.entries]
    assert [line.reason for line in entries] == [step[2] for step in steps[3:]]


def test_a_watch_has_the_reason_of_its_state() -> None:
    outcome = AlertEngine(RuleSet([Rule(metric="cpu", warning=70)]), {}).evaluate(fleet(T0, cpu=80))
    watch = outcome.instances["cpu-alert"]
    assert isinstance(watch, AlertInstance)
    assert watch.reason == "over a threshold for long enough"


def test_the_stored_form_of_an_instance_keeps_its_names() -> None:
    stored = b'{"metric":"cpu","source":"shop{a=1}","whole":"shop"}'
    instance = msgspec.json.decode(stored, type=AlertInstance)
    assert instance.parent == "shop"
    assert msgspec.json.encode(instance) == stored
