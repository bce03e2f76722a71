"""The leader's state in memory is bounded, like the store's."""

from metrics_svc.aggregation.rollups import Rollups
from metrics_svc.alerts.engine import AlertEngine
from metrics_svc.alerts.rules import DEFAULT_RULES
from metrics_svc.leader_state import LeaderState
from metrics_svc.store import MAX_UNANNOUNCED, SecondCommit
from services.wire.records import Alert
from services.wire.server import AlertRaised
from tests.support.metrics import T0


def raised(at: int) -> AlertRaised:
    return AlertRaised(
        data=Alert(
            id="cpu-alert",
            type="warning",
            metric="cpu",
            value=1.0,
            threshold=1.0,
            message="",
            timestamp=at * 1000,
        )
    )


def test_of_events_that_wait_for_the_bus_the_newest_are_kept() -> None:
    term = LeaderState(1, T0, AlertEngine(DEFAULT_RULES, {}), Rollups(), [])
    for second in range(T0, T0 + MAX_UNANNOUNCED + 2):
        term.committed(SecondCommit(second, [], events=[raised(second)]))
    assert len(term.unannounced) == MAX_UNANNOUNCED
    assert [event.data.timestamp // 1000 - T0 for event in term.unannounced[:2]] == [2, 3]
