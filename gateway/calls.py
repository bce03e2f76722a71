"""Calls of clients: answered by the application's services on the bus, NATS micro services of role `app`.

A method without a service goes to the `rpc` hook; without that hook it is `unknown_method`. Calls run beside each other: a
slow method, a broken answer or a client that has left concerns no other call. Calls under way are limited by connection, by
method and by gateway.
"""

import asyncio
import re
import time
from collections import Counter
from collections.abc import Callable
from typing import TYPE_CHECKING

import msgspec
import structlog

from gateway.client.commands import CommandError
from gateway.delivery.counters import Counters
from gateway.delivery.publisher import Sender
from gateway.hooks.messages import (
    MAX_MESSAGE_LENGTH,
    HookAnswerInvalid,
    HookRefused,
    HookUnavailable,
    Refusal,
    RpcAnswer,
    decode_answer,
)
from gateway.limits import KeyedBuckets, Limit
from services.bus.client import Bus
from services.bus.errors import BusError, NoAnswer, NoResponders, PayloadTooLarge
from services.bus.message import BusMessage
from services.settings import Settings
from services.tasks import TaskSet
from services.telemetry import MetricName, counter, histogram
from services.wire.client import RpcCommand
from services.wire.codec import ContentReader
from services.wire.codes import ErrorCode
from services.wire.content import BadMessage, content_from_json
from services.wire.records import UnsetType
from services.wire.rpc import ServiceCall
from services.wire.subjects import SERVICES

if TYPE_CHECKING:
    from gateway.hooks.hooks import Hooks

log = structlog.get_logger(__name__)

_ERROR = "Nats-Service-Error"
_ERROR_CODE = "Nats-Service-Error-Code"
_FAILURE = re.compile(r"[5-9]\d\d")  # status codes of faults of the service, as in HTTP
MAX_ANSWER_BYTES = 65_536
_RETRY_MS = 1000
_LOGS_PER_S = 1.0
_METHOD_SHARE = 4  # one method has at most this part of the gateway's calls

NO_DATA = msgspec.Raw(b"null")

# Called once per call.
OnAnswer = Callable[[msgspec.Raw | CommandError], None]


class CallFailed(CommandError):
    """A call without an answer. `outcome` is its label in the metric."""

    def __init__(
        self, outcome: str, code: ErrorCode, message: str, retry_after_ms: int | None = None
    ) -> None:
        super().__init__(code, message, msgspec.UNSET if retry_after_ms is None else retry_after_ms)
        self.outcome = outcome


class ServiceFailed(Exception):
    """The service reports a fault of its own. Its text is for the log: it may be that of an exception."""


class Calls:
    """Passes calls on, and bounds those under way."""

    def __init__(
        self, bus: Bus, settings: Settings, tasks: TaskSet, counters: Counters, hooks: "Hooks | None" = None
    ) -> None:
        self._bus = bus
        self._hooks = hooks if hooks is not None and "rpc" in hooks.asks else None
        self._settings = settings
        self._tasks = tasks
        self._counters = counters
        # By method: clients call what fails at any rate.
        self._log_rates = KeyedBuckets(_LOGS_PER_S, time.monotonic())
        self._running = 0
        # Of what is under way only: a connection that calls nothing costs nothing.
        self._by_caller: Counter[str] = Counter()
        self._by_method: Counter[str] = Counter()

    def start(self, sender: Sender, command: RpcCommand, read: ContentReader, on_answer: OnAnswer) -> None:
        """Call a method for a connection, and call back with the answer, maybe after the connection has closed.

        Raises:
            BadMessage: as `read`, the codec's.
            CommandError: too many calls are under way.
        """
        method, data, settings = command.method, NO_DATA, self._settings
        if not isinstance(command.data, UnsetType):
            data = read(command.data, settings.max_json_depth, settings.max_message_bytes)
        self._admit(sender.connection_id, method)

        async def call() -> None:
            outcome: msgspec.Raw | CommandError
            try:
                outcome = await self._answer(sender, method, data)
                self._counters.request_untimed()  # the time is the application's
            except CommandError as error:
                outcome = error
            on_answer(outcome)

        task = self._tasks.spawn(call(), "call")
        task.add_done_callback(lambda _: self._end(sender.connection_id, method))

    async def call(self, sender: Sender, method: str, data: msgspec.Raw) -> msgspec.Raw:
        """Call a method for a user without a connection, whose calls under way are counted as one connection's.

        Raises:
            CommandError: too many calls are under way, the application refused, or there is no answer.
        """
        caller = f"user {sender.user_id}"  # no connection id has a blank
        self._admit(caller, method)
        try:
            return await self._answer(sender, method, data)
        finally:
            self._end(caller, method)

    # --- bounds ---

    def _admit(self, caller: str, method: str) -> None:
        settings = self._settings
        if self._by_caller[caller] >= settings.rpc_per_connection:
            text = f"{settings.rpc_per_connection} calls of this connection are under way"
            raise self._limited(Limit.CONNECTION_CALLS, ErrorCode.RATE_LIMITED, text)
        if self._by_method[method] >= max(1, settings.rpc_concurrency // _METHOD_SHARE):
            text = "too many calls of this method are under way"
            raise self._limited(Limit.METHOD_CALLS, ErrorCode.UNAVAILABLE, text)
        if self._running >= settings.rpc_concurrency:
            raise self._limited(Limit.CALLS, ErrorCode.UNAVAILABLE, "too many calls are under way")
        self._running += 1
        self._by_caller[caller] += 1
        self._by_method[method] += 1

    def _end(self, caller: str, method: str) -> None:
        self._running -= 1
        for counts, key in ((self._by_caller, caller), (self._by_method, method)):
            counts[key] -= 1
            if not counts[key]:
                del counts[key]

    def _limited(self, limit: Limit, code: ErrorCode, text: str) -> CallFailed:
        self._counters.limit_hit(limit)
        counter(MetricName.RPC_REQUESTS).labels("limited").inc()
        return CallFailed("limited", code, text, _RETRY_MS)

    # --- asking ---

    async def _answer(self, sender: Sender, method: str, data: msgspec.Raw) -> msgspec.Raw:
        """Return the answer, and count the call. Raises CommandError."""
        began, outcome = time.perf_counter(), "cancelled"
        try:
            answer = await self._ask(sender, method, data)
        except CallFailed as failure:
            outcome = failure.outcome
            raise
        except HookRefused as refusal:
            outcome = "refused"
            raise CommandError(refusal.spec, refusal.message) from None
        else:
            outcome = "ok"
            return answer
        finally:
            counter(MetricName.RPC_REQUESTS).labels(outcome).inc()
            histogram(MetricName.RPC_DURATION).observe(time.perf_counter() - began)

    async def _ask(self, sender: Sender, method: str, data: msgspec.Raw) -> msgspec.Raw:
        """Return the answer of a service, else of the hook. Raises CallFailed, HookRefused."""
        if method.partition(".")[0] in SERVICES:  # where version 0.1 asks our own services
            raise _unknown(method)
        settings = self._settings
        call = ServiceCall(
            user_id=sender.user_id,
            username=sender.username,
            connection_id=sender.connection_id,
            method=method,
            data=data,
        )
        try:
            answer = await self._bus.request(
                settings.subjects.rpc(method), msgspec.json.encode(call), timeout_s=settings.rpc_timeout_s
            )
        except NoResponders:
            return await self._ask_hook(sender, method, data)
        except NoAnswer:
            raise self._timeout() from None
        except PayloadTooLarge as fault:
            text = f"the call is larger than {fault.limit} bytes"
            raise CallFailed("too_large", ErrorCode.TOO_LARGE, text) from None
        except BusError as fault:
            self._log("call failed", method, fault)
            text = "calls cannot be passed on now; the call may have been carried out"
            raise CallFailed("unavailable", ErrorCode.UNAVAILABLE, text, _RETRY_MS) from None
        try:
            return _read_answer(answer, settings.max_json_depth)
        except ServiceFailed as fault:
            self._log("call failed in the service", method, fault)
            raise CallFailed("failed", ErrorCode.UNAVAILABLE, "the application failed") from None
        except HookAnswerInvalid as fault:
            self._log("call answered with no answer", method, fault)
            text = "the application's answer cannot be passed on"
            raise CallFailed("invalid", ErrorCode.UNAVAILABLE, text) from None

    async def _ask_hook(self, sender: Sender, method: str, data: msgspec.Raw) -> msgspec.Raw:
        """Return the answer of the hook. Raises CallFailed, HookRefused."""
        if self._hooks is None:
            raise _unknown(method)
        try:
            async with asyncio.timeout(self._settings.rpc_timeout_s):
                return await self._hooks.rpc(sender, method, data)
        except TimeoutError:
            raise self._timeout() from None
        except HookUnavailable as fault:
            raise CallFailed(
                "hook_failed", ErrorCode.UNAVAILABLE, fault.message, fault.retry_after_ms
            ) from None

    def _log(self, event: str, method: str, fault: Exception) -> None:
        if not self._log_rates.consume(method, time.monotonic()):
            log.warning(event, method=method, reason=str(fault))

    def _timeout(self) -> CallFailed:
        text = f"no answer within {self._settings.rpc_timeout_s:g} s; the call may have been carried out"
        return CallFailed("timeout", ErrorCode.UNAVAILABLE, text)


def _read_answer(answer: BusMessage, max_depth: int) -> msgspec.Raw:
    """Return `data` of a service's answer, as JSON that every client can be sent.

    The error headers of micro services (ADR-32): a number of 500 or more is a fault of the service, another one or none a
    refusal, and a word is the client's code.

    Raises:
        HookRefused: the service refused.
        HookAnswerInvalid: over 64 KiB, no JSON object with `data`, or nested deeper than `max_depth`.
        ServiceFailed: the service reports a fault.
    """
    code, description = answer.header(_ERROR_CODE), answer.header(_ERROR)
    if code is not None or description is not None:
        if code is not None and _FAILURE.fullmatch(code):
            raise ServiceFailed(f"{code}: {(description or '')[:MAX_MESSAGE_LENGTH]}")
        word = None if code is None or code.isdigit() else code
        raise Refusal(message=description, code=word).as_error()
    if len(answer.data) > MAX_ANSWER_BYTES:
        raise HookAnswerInvalid(f"it has {len(answer.data)} bytes, the limit is {MAX_ANSWER_BYTES}")
    said, _ = decode_answer(answer.data, RpcAnswer)
    if isinstance(said, HookRefused):
        raise said
    try:
        return content_from_json(said.data, max_depth)
    except BadMessage as fault:
        raise HookAnswerInvalid(fault.message, "data") from None


def _unknown(method: str) -> CallFailed:
    return CallFailed("unknown_method", ErrorCode.UNKNOWN_METHOD, f"nothing answers {method}")
