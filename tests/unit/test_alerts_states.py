"""The table of alert states is complete and announces what it should."""

import pytest

from metrics_svc.alerts.states import TABLE, AlertEffect, AlertState, Signal

PAIRS = [(state, input) for state in AlertState for input in Signal]


def test_every_pair_is_in_the_table() -> None:
    assert set(TABLE) == set(AlertState)
    for state in AlertState:
        assert set(TABLE[state]) == set(Signal)


@pytest.mark.parametrize(("state", "input"), PAIRS)
def test_announced_exactly_on_entering_changing_and_leaving_firing(state: AlertState, input: Signal) -> None:
    transition = TABLE[state][input]
    entered = state is not AlertState.FIRING and transition.next is AlertState.FIRING
    left = state is AlertState.FIRING and transition.next is not AlertState.FIRING
    assert entered == (transition.effect is AlertEffect.RAISE)
    assert left == (transition.effect is AlertEffect.RESOLVE)
    if transition.effect is AlertEffect.CHANGE:
        assert (state, transition.next) == (AlertState.FIRING, AlertState.FIRING)


@pytest.mark.parametrize("input", Signal)
def test_resolved_is_only_reached_from_firing(input: Signal) -> None:
    for state in (AlertState.INACTIVE, AlertState.PENDING, AlertState.RESOLVED):
        assert TABLE[state][input].next is not AlertState.RESOLVED
    assert TABLE[AlertState.FIRING][input].next in (AlertState.FIRING, AlertState.RESOLVED)
