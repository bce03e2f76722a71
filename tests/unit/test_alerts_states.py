"""The table of alert states is complete and announces what it should."""

import pytest

from metrics_svc.alerts.states import TABLE, Effect, Input, State

PAIRS = [(state, input) for state in State for input in Input]


def test_every_pair_is_in_the_table() -> None:
    assert set(TABLE) == set(State)
    for state in State:
        assert set(TABLE[state]) == set(Input)


@pytest.mark.parametrize(("state", "input"), PAIRS)
def test_announced_exactly_on_entering_changing_and_leaving_firing(state: State, input: Input) -> None:
    transition = TABLE[state][input]
    entered = state is not State.FIRING and transition.next is State.FIRING
    left = state is State.FIRING and transition.next is not State.FIRING
    assert entered == (transition.effect is Effect.RAISE)
    assert left == (transition.effect is Effect.RESOLVE)
    if transition.effect is Effect.CHANGE:
        assert (state, transition.next) == (State.FIRING, State.FIRING)


@pytest.mark.parametrize("input", Input)
def test_resolved_is_only_reached_from_firing(input: Input) -> None:
    for state in (State.INACTIVE, State.PENDING, State.RESOLVED):
        assert TABLE[state][input].next is not State.RESOLVED
    assert TABLE[State.FIRING][input].next in (State.FIRING, State.RESOLVED)
