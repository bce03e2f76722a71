"""Which silence covers which alert."""

import pytest

from metrics_svc.alerts.silences import silencing
from services.wire.records import Alert
from services.wire.rpc import Matcher, Silence

ALERT = Alert(id="cpu-alert", type="critical", metric="cpu", value=95, threshold=90, message="", timestamp=0)


def silence(*matchers: tuple[str, str], starts_at: int = 100, ends_at: int = 200) -> Silence:
    return Silence(
        id="s",
        matchers=[Matcher(name=name, value=value) for name, value in matchers],
        starts_at=starts_at,
        ends_at=ends_at,
    )


@pytest.mark.parametrize(
    ("matchers", "covered"),
    [
        ([("metric", "cpu")], True),
        ([("id", "cpu-alert"), ("type", "critical")], True),
        ([("metric", "cpu"), ("type", "warning")], False),
        ([("team", "billing")], True),
        ([("team", "other")], False),
        ([("missing", "x")], False),
        ([("metric", "disk")], False),
    ],
)
def test_all_matchers_must_match(matchers: list[tuple[str, str]], covered: bool) -> None:
    labels = {"team": "billing", "metric": "disk"}  # a label cannot pose as a field of the alert
    found = silencing([silence(*matchers)], ALERT, labels, 150)
    assert (found is not None) == covered


@pytest.mark.parametrize(("now", "covered"), [(99, False), (100, True), (199, True), (200, False)])
def test_only_in_its_time(now: int, covered: bool) -> None:
    assert (silencing([silence(("metric", "cpu"))], ALERT, {}, now) is not None) == covered
