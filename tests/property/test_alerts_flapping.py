"""An alert does not flap around one threshold, and its events are consistent."""

from hypothesis import given
from hypothesis import strategies as st

from metrics_svc.alerts.engine import AlertEngine
from metrics_svc.alerts.rules import Rule, RuleSet
from services.wire.server import AlertRaised
from tests.support.metrics import T0, fleet


@given(st.lists(st.floats(66.5, 89.9), min_size=1, max_size=200))
def test_noise_around_one_threshold_raises_at_most_one_alert(values: list[float]) -> None:
    """66.5 is the clear threshold of 70: nothing above it ends the alert."""
    engine = AlertEngine(RuleSet([Rule(metric="cpu", warning=70, critical=90, clear_for_s=0)]), {})
    events = [
        event
        for at, value in enumerate(values)
        for event in engine.evaluate(fleet(T0 + at, cpu=value)).events
    ]
    assert len(events) == (1 if any(value >= 70 for value in values) else 0)


@given(
    st.lists(st.one_of(st.none(), st.floats(0, 100)), max_size=120),
    st.sampled_from([0.0, 2.0, 5.0]),
    st.sampled_from([0.0, 3.0]),
    st.sampled_from(["keep", "resolve", "alert"]),
)
def test_raised_and_resolved_alternate(
    values: list[float | None], for_s: float, clear_for_s: float, no_data: str
) -> None:
    rule = Rule(
        metric="cpu",
        warning=70,
        critical=90,
        for_s=for_s,
        clear_for_s=clear_for_s,
        no_data=no_data,  # type: ignore[arg-type]
        no_data_for_s=4,
    )
    engine = AlertEngine(RuleSet([rule]), {})
    severity: str | None = None
    for at, value in enumerate(values):
        outcome = engine.evaluate(fleet(T0 + at, **({} if value is None else {"cpu": value})))
        assert len(outcome.events) <= 1
        for event in outcome.events:
            if isinstance(event, AlertRaised):
                assert event.data.type != severity  # new, or another severity
                severity = event.data.type
            else:
                assert severity is not None
                severity = None
    # Nothing is left hanging: after quiet for long enough, whatever fired has ended.
    rest = [engine.evaluate(fleet(T0 + 1000 + at, cpu=1.0)) for at in range(5)]
    ended = [event for outcome in rest for event in outcome.events]
    assert len(ended) == (0 if severity is None else 1)
