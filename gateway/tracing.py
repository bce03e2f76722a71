"""Traces of published messages and HTTP requests. Needs the optional part `tracing`; not loaded without it."""

from typing import Any

from opentelemetry.trace import Span, SpanKind
from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from gateway.delivery.publisher import OnDone, Publisher, PublishRefused
from gateway.gateway import Gateway
from services.bus.streams import DurableLog
from services.tracing.spans import UNRECORDED, Traces, failed, shape
from services.wire import server
from services.wire.records import UnsetType

# Frequent, and of no interest in traces.
_UNTRACED = frozenset({"/healthz", "/readyz", "/metrics"})
_STREAM = b"text/event-stream"


def trace(gateway: Gateway, app: ASGIApp, traces: Traces) -> ASGIApp:
    """Trace the publisher of a gateway that does not serve yet; return its application, which traces requests."""
    gateway.set_publisher(TracingPublisher(gateway, traces))
    return TracingRequests(app, traces)


class TracingPublisher(Publisher):
    """Publisher with a span for each message, up to its acknowledgement; the span's context is sent along."""

    def __init__(self, gateway: Gateway, traces: Traces) -> None:
        super().__init__(gateway.bus, gateway.streams, gateway.settings, gateway.counters.limit_hit)
        self._traces = traces

    def _store(
        self,
        durable_log: DurableLog,
        subject: str,
        payload: bytes,
        unique_id: str,
        timestamp: int,
        id: str | UnsetType,
        on_done: OnDone,
    ) -> None:
        if not self._traces.wanted():
            super()._store(durable_log, subject, payload, unique_id, timestamp, id, on_done)
            return
        span = self._start_span(subject, payload, stored=True)
        with self._traces.within(span):
            super()._store(durable_log, subject, payload, unique_id, timestamp, id, _ending(span, on_done))

    def _send(
        self, subject: str, payload: bytes, timestamp: int, id: str | UnsetType, on_done: OnDone
    ) -> None:
        if not self._traces.wanted():
            super()._send(subject, payload, timestamp, id, on_done)
            return
        span = self._start_span(subject, payload, stored=False)
        with self._traces.within(span):
            super()._send(subject, payload, timestamp, id, _ending(span, on_done))

    def _start_span(self, subject: str, payload: bytes, *, stored: bool) -> Span:
        attributes: dict[str, str | int | bool] = {
            "messaging.system": "nats",
            "messaging.operation.name": "publish",
            "messaging.operation.type": "send",
            "messaging.destination.name": subject,
            "messaging.message.body.size": len(payload),
            "tidings.stored": stored,
        }
        return self._traces.start(f"publish {shape(subject)}", SpanKind.PRODUCER, attributes)


def _ending(span: Span, on_done: OnDone) -> OnDone:
    """Return a callback that ends the span before it calls `on_done`."""

    def done(outcome: server.Ack | PublishRefused) -> None:
        if isinstance(outcome, PublishRefused):
            failed(span, f"{outcome.code.code}: {outcome.message}")
        elif isinstance(outcome.seq, int):
            span.set_attribute("tidings.seq", outcome.seq)
        span.end()
        on_done(outcome)

    return done


class TracingRequests:
    """ASGI middleware: a span for each HTTP request, up to its answer or the start of a stream."""

    def __init__(self, app: ASGIApp, traces: Traces) -> None:
        self._app = app
        self._traces = traces

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] != "http" or scope["path"] in _UNTRACED:
            await self._app(scope, receive, send)
            return
        method = scope["method"]
        parent = self._traces.parent_of_request(Headers(scope=scope).get)
        if not self._traces.wanted(parent):
            with self._traces.within(UNRECORDED):
                await self._app(scope, receive, send)
            return
        span = self._traces.start(method, SpanKind.SERVER, {"http.request.method": method}, parent)

        async def send_and_record(message: Message) -> None:
            if message["type"] == "http.response.start":
                _record_answer(span, scope, message)
            await send(message)

        try:
            with self._traces.within(span):
                await self._app(scope, receive, send_and_record)
        finally:
            span.end()  # without effect if it has ended


def _record_answer(span: Span, scope: Scope, answer: Message) -> None:
    """Name the span by its route, record the status, and end the span of a stream."""
    status, route = answer["status"], _route(scope)
    span.update_name(f"{scope['method']} {route}")
    span.set_attribute("http.route", route)
    span.set_attribute("http.response.status_code", status)
    if status >= 500:
        failed(span, f"HTTP {status}")
    headers: list[tuple[bytes, Any]] = answer.get("headers", [])
    if any(name.lower() == b"content-type" and _STREAM in value for name, value in headers):
        span.end()


def _route(scope: Scope) -> str:
    """Return the declared path: the requested one contains names of rooms and users."""
    if "endpoint" not in scope:  # no route matched
        return "*"
    names = {str(value): f"{{{name}}}" for name, value in scope.get("path_params", {}).items()}
    return "/".join(names.get(part, part) for part in scope["path"].split("/"))
