"""The circuit breaker's table, and a gateway's questions behind it."""

from typing import Any

import pytest
from prometheus_client import REGISTRY

from gateway.circuit_breaker import TRANSITIONS, Breaker, Event, State, Tolerance
from gateway.service_client import Asking, CircuitOpen
from services.bus import rpc
from services.bus.errors import BusError, NoAnswer, RequestRefused
from services.wire.rpc import GATEWAY_STATS, METRICS_STATE, PRESENCE_STATS, Empty
from services.wire.subjects import Subjects

TOLERANCE = Tolerance(threshold=3, open_s=1.0, max_open_s=4.0, trial_s=5.0)


def opened(now: float = 0.0) -> Breaker:
    breaker = Breaker(TOLERANCE)
    for _ in range(3):
        assert breaker.permits(now)
        breaker.failed(now)
    return breaker


def test_it_opens_after_failures_in_a_row_only():
    breaker = Breaker(TOLERANCE)
    for _ in range(5):
        breaker.failed(0)
        breaker.failed(0)
        breaker.succeeded()
    assert breaker.state is State.CLOSED
    assert opened().state is State.OPEN


def test_one_trial_passes_when_the_time_is_up():
    breaker = opened()
    assert not breaker.permits(0.99)
    assert breaker.permits(1.0)
    assert breaker.state is State.HALF_OPEN
    assert not breaker.permits(1.1)
    breaker.succeeded()
    assert breaker.state is State.CLOSED
    assert breaker.permits(1.1)


def test_a_failed_trial_doubles_the_time_up_to_the_most():
    breaker, now, waits = opened(), 1.0, []
    assert breaker.permits(now)
    for _ in range(4):
        breaker.failed(now)
        began = now
        while not breaker.permits(now):
            now += 0.5
        waits.append(now - began)
    assert waits == [2.0, 4.0, 4.0, 4.0]


def test_a_trial_not_heard_of_is_given_up():
    breaker = opened()
    assert breaker.permits(1.0)
    assert not breaker.permits(5.9)
    assert breaker.permits(6.0)


def test_news_of_success_closes_an_open_breaker_and_late_failures_change_nothing():
    breaker = opened()
    breaker.failed(0.5)
    assert breaker.permits(1.0)
    breaker = opened()
    breaker.succeeded()
    assert breaker.state is State.CLOSED
    breaker.failed(0)
    assert breaker.state is State.CLOSED  # the count has started over


def test_the_table_names_every_state_and_leads_out_of_each():
    assert {state for state, _ in TRANSITIONS} == set(State)
    for state in State:
        assert TRANSITIONS[state, Event.SUCCEEDED] is State.CLOSED


class Service:
    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.fault: BusError | None = None
        self.asked = 0
        monkeypatch.setattr(rpc, "ask", self.ask)

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


def asking(clock: Now) -> Asking:
    return Asking(None, Subjects("t"), tolerance=TOLERANCE, clock=clock)  # type: ignore[arg-type]


def metric(name: str, service: str) -> float:
    return REGISTRY.get_sample_value(name, {"service": service}) or 0.0


@pytest.mark.parametrize("fault", [NoAnswer("x", "nobody"), RequestRefused("unavailable", "redis: away")])
async def test_a_service_that_does_not_answer_is_left_in_peace(service: Service, fault: BusError):
    clock = Now()
    asks = asking(clock)
    service.fault = fault
    refused = metric("tidings_breaker_refused_total", "presence")
    for _ in range(3):
        with pytest.raises(type(fault)):
            await asks.ask(PRESENCE_STATS, Empty())
    with pytest.raises(CircuitOpen):
        await asks.ask(PRESENCE_STATS, Empty())
    assert service.asked == 3
    assert asks.states() == {"presence": "open", "metrics": "closed"}
    assert asks.is_open("presence")
    assert metric("tidings_breaker_state", "presence") == 2
    assert metric("tidings_breaker_refused_total", "presence") == refused + 1
    service.fault = None
    assert await asks.ask(METRICS_STATE, Empty()) == "answer"  # others are not meant
    assert await asks.ask(GATEWAY_STATS, Empty()) == "answer"  # and these have none
    clock.now = 1.0
    assert await asks.ask(PRESENCE_STATS, Empty()) == "answer"
    assert asks.states()["presence"] == "closed"
    assert metric("tidings_breaker_state", "presence") == 0


async def test_a_refusal_for_a_reason_is_an_answer(service: Service):
    asks = asking(Now())
    service.fault = RequestRefused("invalid_name", "no such room")
    for _ in range(9):
        with pytest.raises(RequestRefused):
            await asks.ask(PRESENCE_STATS, Empty())
    assert asks.states()["presence"] == "closed"


async def test_who_insists_is_let_through_and_closes_it_for_all(service: Service):
    asks = asking(Now())
    service.fault = NoAnswer("x", "nobody")
    for _ in range(4):
        with pytest.raises(NoAnswer):
            await asks.ask(PRESENCE_STATS, Empty(), insist=True)
    assert asks.is_open("presence")
    service.fault = None
    assert await asks.ask(PRESENCE_STATS, Empty(), insist=True) == "answer"
    assert not asks.is_open("presence")
