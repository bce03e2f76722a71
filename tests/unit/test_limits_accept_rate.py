"""The accept rate: the number of accepted connections, and the retry time of the others."""

import pytest
from structlog.testing import capture_logs

from gateway.limits import AcceptRateLimiter


def test_a_burst_of_twice_the_rate_is_accepted_and_the_rest_retries_spread_out() -> None:
    limiter = AcceptRateLimiter(10.0, now=0.0)
    waits = [limiter.retry_after_s(0.0) for _ in range(25)]
    assert waits[:20] == [0.0] * 20
    assert waits[20:] == pytest.approx([1.1, 1.2, 1.3, 1.4, 1.5])


def test_retries_after_the_given_time_are_accepted() -> None:
    limiter = AcceptRateLimiter(10.0, now=0.0)
    arrivals = [0.0] * 500
    let_in: list[float] = []
    attempts = 0
    while arrivals:
        now = min(arrivals)
        arrivals.remove(now)
        attempts += 1
        wait = limiter.retry_after_s(now)
        if wait:
            arrivals.append(now + wait)
        else:
            let_in.append(now)
    assert len(let_in) == 500
    for second in range(int(let_in[-1])):
        assert sum(second <= at < second + 1 for at in let_in) <= 30  # a burst of 20, and 10 more
    assert attempts < 1500


def test_retry_after_is_at_most_half_a_minute() -> None:
    limiter = AcceptRateLimiter(1.0, now=0.0)
    assert max(limiter.retry_after_s(0.0) for _ in range(100)) == 30.0


def test_a_rate_of_zero_accepts_all_until_closed() -> None:
    limiter = AcceptRateLimiter(0.0, now=0.0)
    assert [limiter.retry_after_s(0.0) for _ in range(1000)] == [0.0] * 1000
    limiter.close()
    assert limiter.retry_after_s(0.0) == 1.0


def test_refusals_are_logged_once_a_second() -> None:
    limiter = AcceptRateLimiter(1.0, now=0.0)
    with capture_logs() as logged:
        for step in range(100):
            limiter.retry_after_s(step / 50)
    assert [entry["refused"] for entry in logged] == [1, 49]
