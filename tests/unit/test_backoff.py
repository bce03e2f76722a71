"""Delays between attempts."""

from services.backoff import Backoff, delay_s


def test_backoff_grows_to_its_limit_and_scatters() -> None:
    backoff = Backoff()
    delays = [backoff.next_s() for _ in range(40)]
    assert 0.05 <= delays[0] <= 0.1
    assert all(1 <= delay <= 2 for delay in delays[10:])
    assert len(set(delays)) > 30
    backoff.reset()
    assert backoff.next_s() <= 0.1


def test_delays_double_up_to_a_limit() -> None:
    assert [delay_s(n, 0.2, 10.0, jitter=0) for n in (0, 1, 2, 9, 5000)] == [0.2, 0.4, 0.8, 10.0, 10.0]


def test_jitter_is_the_part_left_to_chance() -> None:
    delays = [delay_s(0, 1.0, 1.0, jitter=0.9) for _ in range(200)]
    assert all(0.1 <= delay <= 1 for delay in delays)
    assert min(delays) < 0.4
