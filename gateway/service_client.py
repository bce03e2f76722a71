"""RPC client for presence_svc and metrics_svc, each behind a circuit breaker.

A service that does not answer costs every caller its timeout. After a few timeouts, calls fail at once with
`unavailable`, and a trial call now and then finds out whether the service is back. Other services have no breaker.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum

import structlog

from services.bus import rpc
from services.bus.client import Bus
from services.bus.errors import RequestRefused, Unavailable
from services.telemetry import MetricName, counter, gauge
from services.wire.codes import ErrorCode
from services.wire.rpc import ReplyT, RequestT, RpcEndpoint
from services.wire.subjects import Subjects

log = structlog.get_logger(__name__)

GUARDED = ("presence", "metrics")


class BreakerState(Enum):
    """The values are those of the metric."""

    CLOSED = 0
    HALF_OPEN = 1
    OPEN = 2


@dataclass(frozen=True, slots=True)
class BreakerConfig:
    """Thresholds of a circuit breaker."""

    threshold: int = 3  # failures in a row
    open_s: float = 0.5
    max_open_s: float = 2.0
    trial_s: float = 5.0  # without an outcome for so long, a trial is given up and another one allowed


class CircuitBreaker:
    """Circuit breaker of one service. Pure: `now` (seconds of any monotonic clock) is passed in.

    ```
    state      event            next
    closed     failure          closed; open after `threshold` in a row
    open       time is up       half open: one trial request is allowed
    half open  failure          open for twice as long, at most `max_open_s`
    any        success          closed, and the failures start over
    open       failure          open: a late one changes nothing
    ```
    """

    __slots__ = ("_config", "_failures", "_open_s", "_until", "state")

    def __init__(self, config: BreakerConfig) -> None:
        self.state = BreakerState.CLOSED
        self._config = config
        self._failures = 0
        self._open_s = config.open_s
        self._until = 0.0

    def allow(self, now: float) -> bool:
        """Whether a request may be sent now."""
        if self.state is BreakerState.CLOSED:
            return True
        if now < self._until:
            return False
        self.state = BreakerState.HALF_OPEN
        self._until = now + self._config.trial_s
        return True

    def wait_s(self, now: float) -> float:
        """Return the seconds until another request may be sent, as far as is known; 0.0 while closed."""
        return 0.0 if self.state is BreakerState.CLOSED else max(0.0, self._until - now)

    def succeeded(self) -> None:
        """Record an answer."""
        self.state = BreakerState.CLOSED
        self._failures = 0
        self._open_s = self._config.open_s

    def failed(self, now: float) -> None:
        """Record a request without an answer, or with the answer `unavailable`."""
        self._failures += 1
        if self.state is BreakerState.OPEN:
            return
        if self.state is BreakerState.CLOSED and self._failures < self._config.threshold:
            return
        if self.state is BreakerState.HALF_OPEN:
            self._open_s = min(2 * self._open_s, self._config.max_open_s)
        self.state = BreakerState.OPEN
        self._until = now + self._open_s


class CircuitOpen(Unavailable):
    """Not sent: the service has not answered lately."""

    def __init__(self, service: str) -> None:
        super().__init__(f"{service} has not answered lately")
        self.service = service


class ServiceClient:
    """Calls services on behalf of this gateway, and knows which of them answer."""

    def __init__(
        self,
        bus: Bus,
        subjects: Subjects,
        *,
        config: BreakerConfig | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._bus = bus
        self._subjects = subjects
        self._clock = clock
        self._breakers = {name: CircuitBreaker(config or BreakerConfig()) for name in GUARDED}
        for name in GUARDED:
            gauge(MetricName.BREAKER_STATE).labels(name).set(BreakerState.CLOSED.value)

    def details(self) -> dict[str, object]:
        """Return the state of each breaker in words, for `/readyz`."""
        return {"breakers": {name: breaker.state.name.lower() for name, breaker in self._breakers.items()}}

    def is_answering(self, service: str) -> bool:
        """Whether the service's breaker is closed."""
        return self._breakers[service].state is BreakerState.CLOSED

    async def call(
        self,
        endpoint: RpcEndpoint[RequestT, ReplyT],
        request: RequestT,
        *,
        timeout_s: float | None = None,
        bypass_breaker: bool = False,
    ) -> ReplyT:
        """Send a request and return the reply. `bypass_breaker` is for rare calls that must be tried.

        Raises:
            CircuitOpen: the breaker is open, and the request was not sent.
            BusError: as `rpc.call`.
        """
        breaker = self._breakers.get(endpoint.service)
        if breaker is None:
            return await rpc.call(self._bus, self._subjects, endpoint, request, timeout_s=timeout_s)
        if not bypass_breaker and not breaker.allow(self._clock()):
            counter(MetricName.BREAKER_REFUSED).labels(endpoint.service).inc()
            raise CircuitOpen(endpoint.service)
        try:
            reply = await rpc.call(self._bus, self._subjects, endpoint, request, timeout_s=timeout_s)
        except Unavailable:
            self._record(endpoint.service, answered=False)
            raise
        except RequestRefused as refusal:
            self._record(endpoint.service, answered=refusal.code != ErrorCode.UNAVAILABLE.code)
            raise
        self._record(endpoint.service, answered=True)
        return reply

    def _record(self, service: str, *, answered: bool) -> None:
        breaker = self._breakers[service]
        before = breaker.state
        if answered:
            breaker.succeeded()
        else:
            breaker.failed(self._clock())
        gauge(MetricName.BREAKER_STATE).labels(service).set(breaker.state.value)
        if breaker.state is BreakerState.CLOSED and before is not BreakerState.CLOSED:
            log.info("service answers again", asked=service)
        elif breaker.state is not BreakerState.CLOSED and before is BreakerState.CLOSED:
            log.warning("service does not answer; requests to it fail at once", asked=service)
