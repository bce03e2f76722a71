"""The fleet's clock follows Redis and never runs backwards."""

import pytest

from metrics_svc.clock import MAX_CORRECTION_S, FleetClock
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


def test_a_difference_within_the_round_trip_says_nothing(clock: FleetClock) -> None:
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
