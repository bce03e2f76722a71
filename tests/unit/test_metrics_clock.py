"""The fleet's clock follows Redis and never runs backwards."""

from itertools import pairwise

import pytest

from metrics_svc.leader_lease import MAX_CORRECTION_S, FleetClock
from tests.support.metrics import T0, ManualTime


@pytest.fixture
def monotonic() -> ManualTime:
    return ManualTime(100.0)


@pytest.fixture
def clock(monotonic: ManualTime) -> FleetClock:
    return FleetClock(lambda: T0, monotonic)


def test_before_the_first_look_it_is_this_machines(clock: FleetClock, monotonic: ManualTime) -> None:
    assert clock.now() == T0
    monotonic.now += 2
    assert clock.now() == T0 + 2


def test_the_first_look_sets_it(clock: FleetClock, monotonic: ManualTime) -> None:
    clock.now()
    clock.observe(T0 - 3600, 100.0, 100.0)
    assert clock.now() == pytest.approx(T0 - 3600)


def test_a_difference_within_the_round_trip_is_ignored(clock: FleetClock) -> None:
    clock.observe(T0 + 0.15, 100.0, 100.4)  # half way, it was T0 + 0.2 here
    assert clock.now() == T0


def test_later_corrections_are_small_and_never_backwards(clock: FleetClock, monotonic: ManualTime) -> None:
    clock.observe(T0 + 10, 100.0, 100.0)
    told = [clock.now()]
    for _ in range(20):
        monotonic.now += 0.01
        clock.observe(0.0, monotonic.now, monotonic.now)
        told.append(clock.now())
    assert told == sorted(told)
    monotonic.now += 100
    assert clock.now() == pytest.approx(T0 + 10 + 0.2 + 100 - 20 * MAX_CORRECTION_S)


@pytest.mark.parametrize("step_s", [-5.0, 5.0])
def test_a_step_of_the_stores_clock_is_slewed_also_when_the_first_look_agreed(
    clock: FleetClock, monotonic: ManualTime, step_s: float
) -> None:
    """A replica beside its Redis: the same clock, until NTP sets it."""
    told = [clock.now()]
    for _ in range(10):
        monotonic.now += 0.7
        clock.observe(T0 + monotonic.now - 100.0, monotonic.now - 0.001, monotonic.now + 0.001)
        told.append(clock.now())
    for _ in range(200):
        monotonic.now += 0.7
        clock.observe(T0 + step_s + monotonic.now - 100.0, monotonic.now, monotonic.now)
        told.append(clock.now())
    moved = [later - earlier for earlier, later in pairwise(told)]
    assert min(moved) >= 0.7 - MAX_CORRECTION_S - 1e-6
    assert max(moved) <= 0.7 + MAX_CORRECTION_S + 1e-6
    assert told[-1] == pytest.approx(T0 + step_s + monotonic.now - 100.0)
