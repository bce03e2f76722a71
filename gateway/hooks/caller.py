"""Asks the application: signed, within a total time, few at once, and not while it does not answer.

```
                     a slot free?  ── no ── room in the queue? ── no ── HookUnavailable "busy"
                          │                        │ waits
breaker open? ─ yes ─ HookUnavailable "open"       │
                          │ <──────────────────────┘
                        post ── no complete answer ── HookUnavailable "timeout", "unreachable", "broken", …
                          │
                       decode ── no answer of this hook ── HookUnavailable "invalid"
                          │
             the answer, or HookRefused
```

10,000 clients that return at once: `concurrency` posts are under way and 16 times as many wait. The others are refused at once,
each with a time to return at that is its own: the times follow each other at the rate at which the application answers.
"""

import asyncio
import math
import random
import time
from collections.abc import Callable
from typing import TypeVar

import msgspec
import structlog

from gateway.hooks.http_client import Answer, HttpClient, PostFailed
from gateway.hooks.messages import HookAnswerInvalid, HookRefused, HookRequest, HookUnavailable
from gateway.service_client import BreakerConfig, BreakerState, CircuitBreaker
from services.settings import Settings
from services.telemetry import MetricName, counter, gauge, histogram
from services.webhooks import SIGNATURE_HEADER, TIMESTAMP_HEADER, signature

log = structlog.get_logger(__name__)

T = TypeVar("T")

WAITING_PER_SLOT = 16
BREAKER = BreakerConfig(threshold=5, open_s=1.0, max_open_s=10.0)
_MAX_RETRY_S = 30.0
_LOG_EVERY_S = 10.0
_ANSWERED = 200
# Not the application as a whole: it is there, and what it says to this one request is no answer.
_OF_ONE_REQUEST = ("malformed", "too_large")

_encode = msgspec.json.Encoder().encode


class HookCaller:
    """Asks one application. Times are in seconds of `clock`, which is monotonic."""

    def __init__(self, settings: Settings, clock: Callable[[], float] = time.monotonic) -> None:
        self._client = HttpClient(settings.hooks_url)
        self._secrets = [secret.get_secret_value() for secret in settings.hooks_secrets]
        self._timeout_s = settings.hooks_timeout_s
        self._slots = asyncio.Semaphore(settings.hooks_concurrency)
        self._concurrency = settings.hooks_concurrency
        self._waiting = 0
        self._clock = clock
        self._breaker = CircuitBreaker(BREAKER)
        self._answer_s = 0.05  # a moving average
        self._booked_until = 0.0  # the times to return at that were given away
        self._logged_at: dict[tuple[str, str], float] = {}
        self._show_breaker()

    async def ask(self, request: HookRequest, decode: Callable[[bytes], T]) -> T:
        """Send a request and return its decoded answer. `decode` raises HookAnswerInvalid or HookRefused.

        Raises:
            HookRefused: the application refused.
            HookUnavailable: there is no answer, or none that can be used.
        """
        started, outcome = self._clock(), "cancelled"
        try:
            answer = await self._answer_to(request)
            decoded = decode(answer.body)
            outcome = "answered"
        except HookRefused:
            outcome = "refused"
            raise
        except HookUnavailable as fault:
            outcome = fault.reason
            self._log(request.hook, fault.reason, str(fault))
            raise
        except HookAnswerInvalid as fault:
            outcome = "invalid"
            self._log(request.hook, "invalid", str(fault))
            raise HookUnavailable("invalid", self._retry_ms(), str(fault)) from None
        finally:
            counter(MetricName.HOOK_REQUESTS).labels(request.hook, outcome).inc()
            histogram(MetricName.HOOK_DURATION).labels(request.hook).observe(self._clock() - started)
        return decoded

    def close(self) -> None:
        """Close the connections."""
        self._client.close()

    async def _answer_to(self, request: HookRequest) -> Answer:
        """Return an answer of status 200. Raises HookUnavailable."""
        sent_at: float | None = None
        try:
            async with asyncio.timeout(self._timeout_s):
                await self._acquire_slot()
                try:
                    self._require_closed_breaker()
                    sent_at = self._clock()
                    answer = await self._post(request)
                finally:
                    self._slots.release()
        except TimeoutError:
            if sent_at is None:
                raise HookUnavailable("busy", self._book_return()) from None
            # Where most of the time went by in the queue, the application is not to blame.
            if self._clock() - sent_at > self._timeout_s / 2:
                self._record(answered=False, took_s=self._timeout_s)
            raise HookUnavailable("timeout", self._retry_ms()) from None
        except PostFailed as fault:
            self._record(answered=fault.reason in _OF_ONE_REQUEST)
            raise HookUnavailable(fault.reason, self._retry_ms(), str(fault)) from None
        self._record(answered=answer.status < 500, took_s=self._clock() - sent_at)
        if answer.status != _ANSWERED:
            raise HookUnavailable(f"{answer.status // 100}xx", self._retry_ms(), f"HTTP {answer.status}")
        return answer

    async def _post(self, request: HookRequest) -> Answer:
        body, timestamp = _encode(request), int(time.time())
        headers = [
            (TIMESTAMP_HEADER, str(timestamp)),
            (SIGNATURE_HEADER, signature(self._secrets, timestamp, body)),
        ]
        return await self._client.post(headers, body)

    async def _acquire_slot(self) -> None:
        """Wait for one of the slots, if few enough wait already. Raises HookUnavailable."""
        if not self._slots.locked():
            await self._slots.acquire()
            return
        if self._breaker.state is BreakerState.OPEN:
            raise self._open()
        if self._waiting >= WAITING_PER_SLOT * self._concurrency:
            raise HookUnavailable("busy", self._book_return())
        self._waiting += 1
        gauge(MetricName.HOOK_WAITING).set(self._waiting)
        try:
            await self._slots.acquire()
        finally:
            self._waiting -= 1
            gauge(MetricName.HOOK_WAITING).set(self._waiting)

    # --- the breaker ---

    def _require_closed_breaker(self) -> None:
        if not self._breaker.allow(self._clock()):
            raise self._open()

    def _open(self) -> HookUnavailable:
        return HookUnavailable("open", self._retry_ms(self._breaker.wait_s(self._clock())))

    def _record(self, *, answered: bool, took_s: float | None = None) -> None:
        """Let the breaker know; `took_s` also counts for the time that an answer takes."""
        if took_s is not None:
            self._answer_s += (took_s - self._answer_s) / 16
        before = self._breaker.state
        if answered:
            self._breaker.succeeded()
        else:
            self._breaker.failed(self._clock())
        if before is self._breaker.state:
            return
        self._show_breaker()
        if self._breaker.state is BreakerState.CLOSED:
            log.info("the application answers hooks again")
        elif before is BreakerState.CLOSED:
            log.warning("the application does not answer hooks; it is asked now and then")

    def _show_breaker(self) -> None:
        gauge(MetricName.HOOK_BREAKER_OPEN).set(self._breaker.state is not BreakerState.CLOSED)

    # --- when to return ---

    def _retry_ms(self, wait_s: float = 0.0) -> int:
        return math.ceil(1000 * (wait_s + random.uniform(0.5, 1.5)))

    def _book_return(self) -> int:
        """Return the ms after which to return: behind the queue, and behind those that were sent away before."""
        now, each_s = self._clock(), self._answer_s / self._concurrency
        self._booked_until = max(self._booked_until, now + self._waiting * each_s) + each_s
        wait_s = min(self._booked_until - now, _MAX_RETRY_S)
        return math.ceil(1000 * (wait_s + random.uniform(0.0, max(self._answer_s, 0.1))))

    def _log(self, hook: str, kind: str, detail: str) -> None:
        """Log a failure, but not each of many that are alike."""
        now = self._clock()
        if now - self._logged_at.get((hook, kind), -math.inf) >= _LOG_EVERY_S:
            self._logged_at[hook, kind] = now
            log.warning("a hook failed", hook=hook, reason=detail)
