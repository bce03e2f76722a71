"""Questions to presence_svc and metrics_svc, each behind a circuit breaker.

A service that does not answer costs every asker its time limit; after a few of those, askers are told `unavailable`
at once, and one question now and then finds out whether it is back. Other services are asked as they are.
"""

import time
from collections.abc import Callable, Mapping

import structlog

from gateway.circuit_breaker import Breaker, State, Tolerance
from services.bus import rpc
from services.bus.client import Bus
from services.bus.errors import RequestRefused, Unavailable
from services.telemetry import MetricName, counter, gauge
from services.wire.codes import ErrorCode
from services.wire.rpc import Endpoint, ReplyT, RequestT
from services.wire.subjects import Subjects

log = structlog.get_logger(__name__)

GUARDED = ("presence", "metrics")


class CircuitOpen(Unavailable):
    """Not asked: the service has not answered lately."""

    def __init__(self, service: str) -> None:
        super().__init__(f"{service} has not answered lately")
        self.service = service


class Asking:
    """Asks services on behalf of this gateway, and knows which of them answer."""

    def __init__(
        self,
        bus: Bus,
        subjects: Subjects,
        *,
        tolerance: Tolerance | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._bus = bus
        self._subjects = subjects
        self._clock = clock
        self._breakers = {name: Breaker(tolerance or Tolerance()) for name in GUARDED}
        for name in GUARDED:
            gauge(MetricName.BREAKER_STATE).labels(name).set(State.CLOSED.value)

    def states(self) -> Mapping[str, str]:
        """Return each breaker's state in words, for health details."""
        return {name: breaker.state.name.lower() for name, breaker in self._breakers.items()}

    def is_open(self, service: str) -> bool:
        """Whether the service is known not to answer."""
        return self._breakers[service].state is not State.CLOSED

    async def ask(
        self,
        endpoint: Endpoint[RequestT, ReplyT],
        request: RequestT,
        *,
        timeout_s: float | None = None,
        insist: bool = False,
    ) -> ReplyT:
        """Ask, if the breaker permits it. `insist` asks in any case: for who asks seldom and must.

        Raises:
            CircuitOpen: the service has not answered lately, and was not asked.
            BusError: as `rpc.ask`.
        """
        breaker = self._breakers.get(endpoint.service)
        if breaker is None:
            return await rpc.ask(self._bus, self._subjects, endpoint, request, timeout_s=timeout_s)
        if not insist and not breaker.permits(self._clock()):
            counter(MetricName.BREAKER_REFUSED).labels(endpoint.service).inc()
            raise CircuitOpen(endpoint.service)
        try:
            reply = await rpc.ask(self._bus, self._subjects, endpoint, request, timeout_s=timeout_s)
        except Unavailable:
            self._report(endpoint.service, breaker, answered=False)
            raise
        except RequestRefused as refusal:
            self._report(endpoint.service, breaker, answered=refusal.code != ErrorCode.UNAVAILABLE.code)
            raise
        self._report(endpoint.service, breaker, answered=True)
        return reply

    def _report(self, service: str, breaker: Breaker, *, answered: bool) -> None:
        was = breaker.state
        if answered:
            breaker.succeeded()
        else:
            breaker.failed(self._clock())
        gauge(MetricName.BREAKER_STATE).labels(service).set(breaker.state.value)
        if was is breaker.state:
            return
        if breaker.state is State.CLOSED:
            log.info("service answers again", asked=service)
        elif was is State.CLOSED:
            log.warning("service does not answer; askers are told so at once", asked=service)
