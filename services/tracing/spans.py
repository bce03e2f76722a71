"""The spans of a process. Needs the optional part `tracing`.

| span | kind | from | to |
|---|---|---|---|
| `publish SUBJECT` | producer | a message was taken | it is stored, or on the bus where nothing is stored |
| `deliver SUBJECT` | consumer | a gateway got it from the bus | it is written to the members there |
| `ask SERVICE.ENDPOINT` | client | a request to a service | its answer |
| `answer SERVICE.ENDPOINT` | server | the service's handler began | it ended |
| `METHOD ROUTE` | server | an HTTP request | its answer, or the start of a stream |

A message on the bus without `traceparent` belongs to no trace: it is only sent by processes that record.
"""

import random
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

from opentelemetry import context as contexts
from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.trace import (
    NonRecordingSpan,
    Span,
    SpanContext,
    SpanKind,
    Status,
    StatusCode,
    Tracer,
)
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator
from structlog.contextvars import bound_contextvars

TRACEPARENT = "traceparent"
_TRACESTATE = "tracestate"
_MAX_TRACESTATE = 512
_LEAST_TOKENS = 4  # PREFIX.out.user.USER
_propagator = TraceContextTextMapPropagator()
# Stands where something is decided not to be recorded, so that nothing within it is either.
UNRECORDED = NonRecordingSpan(SpanContext(trace_id=1, span_id=1, is_remote=False))

Attributes = Mapping[str, str | int | bool]


class Traces:
    """Makes spans, and reads and writes their context."""

    def __init__(self, tracer: Tracer, *, ratio: float = 1.0, follow_clients: bool = True) -> None:
        self._tracer = tracer
        self._ratio = ratio
        self._follow_clients = follow_clients

    def wanted(self, parent: Context | None = None) -> bool:
        """Whether to record a new span: as its parent is, or without one by the ratio.

        Called first: most spans are not recorded, and a discarded one costs as much as ten of these calls.
        """
        about = trace.get_current_span(parent or _open_context()).get_span_context()
        if about.is_valid:
            return about.trace_flags.sampled
        return random.random() < self._ratio

    # --- context ---

    @property
    def recording(self) -> bool:
        """Whether what is being done now is recorded."""
        return trace.get_current_span().is_recording()

    def headers(self) -> dict[str, str]:
        """Return the headers that carry the current span to another process; none where it is not recorded."""
        carrier: dict[str, str] = {}
        if self.recording:
            _propagator.inject(carrier)
        return carrier

    def header_block(self, headers: bytes) -> bytes:
        """Return an encoded NATS header block with the current span's context added."""
        if not self.recording:
            return headers
        added = b"".join(b"%b: %b\r\n" % (k.encode(), v.encode()) for k, v in self.headers().items())
        return headers[:-2] + added + b"\r\n" if headers else b"NATS/1.0\r\n" + added + b"\r\n"

    # --- spans ---

    def start(self, name: str, kind: SpanKind, attributes: Attributes, parent: Context | None = None) -> Span:
        """Start a span of what is `wanted`; the caller ends it."""
        return self._tracer.start_span(name, parent or _open_context(), kind, dict(attributes))

    @contextmanager
    def within(self, span: Span) -> Iterator[Span]:
        """Make a span the current one. It is not ended."""
        token = contexts.attach(trace.set_span_in_context(span))
        try:
            if not span.is_recording():
                yield span
                return
            # Log lines that are written meanwhile can be found by it.
            with bound_contextvars(trace_id=trace.format_trace_id(span.get_span_context().trace_id)):
                yield span
        finally:
            contexts.detach(token)

    @contextmanager
    def span(
        self, name: str, kind: SpanKind, attributes: Attributes, parent: Context | None = None
    ) -> Iterator[Span]:
        """Measure what is done inside; what it raises is noted."""
        span = self.start(name, kind, attributes, parent)
        try:
            with self.within(span):
                yield span
        except Exception as fault:
            failed(span, f"{type(fault).__name__}: {fault}")
            raise
        finally:
            span.end()

    def delivering(self, subject: str, traceparent: str, tracestate: str | None) -> Span:
        """Begin the span of a message that came from the bus."""
        carrier = {TRACEPARENT: traceparent} | ({_TRACESTATE: tracestate} if tracestate else {})
        return self.start(
            f"deliver {shape(subject)}",
            SpanKind.CONSUMER,
            {
                "messaging.system": "nats",
                "messaging.operation.name": "deliver",
                "messaging.operation.type": "process",
                "messaging.destination.name": subject,
            },
            _propagator.extract(carrier, Context()),
        )

    def parent_of_request(self, headers: Callable[[str], str | None]) -> Context:
        """Return the context that an HTTP request brings, by a function that looks up a header."""
        carrier: dict[str, str] = {}
        if self._follow_clients and (traceparent := headers(TRACEPARENT)):
            carrier[TRACEPARENT] = traceparent
            # It travels, and is stored, with each message: no longer than every receiver has to accept (W3C §3.3.1.5).
            if (state := headers(_TRACESTATE)) and len(state) <= _MAX_TRACESTATE:
                carrier[_TRACESTATE] = state
        return _propagator.extract(carrier, Context())

    def parent_of_rpc(self, headers: Mapping[str, str] | None) -> Context | None:
        """Return the context that a request on the bus brings; None where it belongs to no trace."""
        if not headers or TRACEPARENT not in headers:
            return None
        return _propagator.extract(dict(headers), Context())


def _open_context() -> Context:
    """Return the current context, or an empty one if its span has ended.

    A task that outlives the request that started it (a feed, a room) inherits its context, but not its trace.
    """
    span = trace.get_current_span()
    ended = span.get_span_context().trace_flags.sampled and not span.is_recording()
    return Context() if ended else contexts.get_current()


def failed(span: Span, reason: str) -> None:
    """Note that what a span measured did not succeed."""
    span.set_status(Status(StatusCode.ERROR, reason))


def shape(subject: str) -> str:
    """Return a subject without what names a room or a user, its fourth token or later: spans have few names."""
    tokens = subject.split(".")
    return subject if len(tokens) < _LEAST_TOKENS else ".".join([*tokens[:-1], "*"])
