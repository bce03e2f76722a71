"""The circuit breaker's table, and a gateway's requests behind it."""

from typing import Any

import pytest
from prometheus_client import REGISTRY

from gateway.service_client import BreakerConfig, BreakerState, CircuitBreaker, CircuitOpen, ServiceClient
from services.bus import rpc
from services.bus.errors import BusError, NoAnswer, RequestRefused
from services.wire.rpc import GATEWAY_STATS, METRICS_STATE, PRESENCE_STATS, Empty
from services.wire.subjects import Subjects

CONFIG = BreakerConfig(threshold=3, open_s=1.0, max_open_s=4.0, trial_s=5.0)


def opened(now: float = 0.0) -> CircuitBreaker:
    breaker = CircuitBreaker(CONFIG)
    for _ in range(3):
        assert breaker.allow(now)
        breaker.failed(now)
    return breaker


def test_it_opens_after_failures_in_a_row_only():
    breaker = CircuitBreaker(CONFIG)
    for _ in range(5):
        breaker.failed(0)
        breaker.failed(0)
        breaker.succeeded()
    assert breaker.state is BreakerState.CLOSED
    assert opened().state is BreakerState.OPEN


def test_one_trial_passes_when_the_time_is_up():
    breaker = opened()
    assert not breaker.allow(0.99)
    assert breaker.allow(1.0)
    assert breaker.state is BreakerState.HALF_OPEN
    assert not breaker.allow(1.1)
    breaker.succeeded()
    assert breaker.state is BreakerState.CLOSED
    assert breaker.allow(1.1)


def test_a_failed_trial_doubles_the_time_up_to_the_most():
    breaker, now, waits = opened(), 1.0, []
    assert breaker.allow(now)
    for _ in range(4):
        breaker.failed(now)
        began = now
        while not breaker.allow(now):
            now += 0.5
        waits.append(now - began)
    assert waits == [2.0, 4.0, 4.0, 4.0]


def test_a_trial_without_an_answer_is_abandoned():
    breaker = opened()
    assert breaker.allow(1.0)
    assert not breaker.allow(5.9)
    assert breaker.allow(6.0)


def test_news_of_success_closes_an_open_breaker_and_late_failures_change_nothing():
    breaker = opened()
    breaker.failed(0.5)
    assert breaker.allow(1.0)
    breaker = opened()
    breaker.succeeded()
    assert breaker.state is BreakerState.CLOSED
    breaker.failed(0)
    assert breaker.state is BreakerState.CLOSED  # the count has started over


class Service:
    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.fault: BusError | None = None
        self.asked = 0
        monkeypatch.setattr(rpc, "call", self.ask)

    async def ask(self, *_: Any, **__: Any) -> str:
        self.asked += 1
        if self.fault is not None:
            raise self.fault
        return "answer"


@pytest.fixture
def service(monkeypatch: pytest.MonkeyPatch) -> Service:
    return Service(monkeypatch)


class Now:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def client_of(clock: Now) -> ServiceClient:
    return ServiceClient(None, Subjects("t"), config=CONFIG, clock=clock)  # type: ignore[arg-type]


def metric(name: str, service: str) -> float:
    return REGISTRY.get_sample_value(name, {"service": service}) or 0.0


@pytest.mark.parametrize("fault", [NoAnswer("x", "nobody"), RequestRefused("unavailable", "redis: away")])
async def test_a_service_that_does_not_answer_is_left_in_peace(service: Service, fault: BusError):
    clock = Now()
    client = client_of(clock)
    service.fault = fault
    refused = metric("tidings_breaker_refused_total", "presence")
    for _ in range(3):
        with pytest.raises(type(fault)):
            await client.call(PRESENCE_STATS, Empty())
    with pytest.raises(CircuitOpen):
        await client.call(PRESENCE_STATS, Empty())
    assert service.asked == 3
    assert client.details()["breakers"] == {"presence": "open", "metrics": "closed"}
    assert not client.is_answering("presence")
    assert metric("tidings_breaker_state", "presence") == 2
    assert metric("tidings_breaker_refused_total", "presence") == refused + 1
    service.fault = None
    assert await client.call(METRICS_STATE, Empty()) == "answer"  # others are not meant
    assert await client.call(GATEWAY_STATS, Empty()) == "answer"  # and these have none
    clock.now = 1.0
    assert await client.call(PRESENCE_STATS, Empty()) == "answer"
    assert client.details() == {"breakers": {"presence": "closed", "metrics": "closed"}}
    assert metric("tidings_breaker_state", "presence") == 0


async def test_a_refusal_for_a_reason_is_an_answer(service: Service):
    client = client_of(Now())
    service.fault = RequestRefused("invalid_name", "no such room")
    for _ in range(9):
        with pytest.raises(RequestRefused):
            await client.call(PRESENCE_STATS, Empty())
    assert client.details() == {"breakers": {"presence": "closed", "metrics": "closed"}}


async def test_a_call_that_bypasses_the_breaker_closes_it_for_all(service: Service):
    client = client_of(Now())
    service.fault = NoAnswer("x", "nobody")
    for _ in range(4):
        with pytest.raises(NoAnswer):
            await client.call(PRESENCE_STATS, Empty(), bypass_breaker=True)
    assert not client.is_answering("presence")
    service.fault = None
    assert await client.call(PRESENCE_STATS, Empty(), bypass_breaker=True) == "answer"
    assert client.is_answering("presence")
