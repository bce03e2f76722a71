"""The context of a trace: from clients, on the bus, and left out."""

from collections.abc import Iterator

import pytest
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF, ALWAYS_ON, ParentBased
from opentelemetry.trace import SpanKind

from services.bus.message import BusMessage, encode_headers, find_header
from services.tracing.spans import UNRECORDED, Traces, shape

_PARENT = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"


@pytest.fixture
def exported() -> InMemorySpanExporter:
    return InMemorySpanExporter()


@pytest.fixture
def traces(exported: InMemorySpanExporter) -> Iterator[Traces]:
    provider = TracerProvider(sampler=ParentBased(ALWAYS_ON), shutdown_on_exit=False)
    provider.add_span_processor(SimpleSpanProcessor(exported))
    yield Traces(provider.get_tracer("test"))
    provider.shutdown()


def _parent(exported: InMemorySpanExporter) -> str:
    (span,) = exported.get_finished_spans()
    return f"{span.parent.span_id:016x}" if span.parent else ""


def test_a_header_block_keeps_what_was_in_it(traces: Traces) -> None:
    with traces.span("publish", SpanKind.PRODUCER, {}):
        for before in (b"", encode_headers({"Nats-Msg-Id": "a1"})):
            block = traces.header_block(before)
            message = BusMessage("s", "", b"", block)
            assert (message.header("traceparent") or "").startswith("00-")
            assert message.header("Nats-Msg-Id") == ("a1" if before else None)
            assert block.startswith(b"NATS/1.0\r\n")
            assert block.endswith(b"\r\n\r\n")
            assert block.count(b"\r\n\r\n") == 1


def test_the_ratio_decides_where_no_parent_does(traces: Traces) -> None:
    tracer = traces._tracer
    rarely, always = Traces(tracer, ratio=0.0), Traces(tracer, ratio=1.0)
    assert (rarely.wanted(), always.wanted()) == (False, True)
    recorded = rarely.parent_of_request({"traceparent": _PARENT}.get)
    unrecorded = rarely.parent_of_request({"traceparent": f"{_PARENT[:-2]}00"}.get)
    assert (rarely.wanted(recorded), always.wanted(unrecorded)) == (True, False)
    with always.within(UNRECORDED):
        assert always.wanted() is False
        assert always.headers() == {}
    some = Traces(tracer, ratio=0.25)
    assert 150 < sum(some.wanted() for _ in range(1000)) < 350


def test_what_is_not_recorded_sends_nothing() -> None:
    traces = Traces(TracerProvider(sampler=ALWAYS_OFF, shutdown_on_exit=False).get_tracer("test"))
    with traces.span("publish", SpanKind.PRODUCER, {}):
        assert traces.header_block(b"") == b""
        assert traces.headers() == {}
    assert traces.header_block(b"NATS/1.0\r\n\r\n") == b"NATS/1.0\r\n\r\n"


@pytest.mark.parametrize(
    ("traceparent", "parent"),
    [
        (_PARENT, "00f067aa0ba902b7"),
        ("", ""),
        ("00-nonsense", ""),
        (f"{_PARENT}\x00", ""),
        (_PARENT.replace("4bf92f3577b34da6a3ce929d0e0e4736", "0" * 32), ""),
        ("ff" + _PARENT[2:], ""),
        ("9" * 10_000, ""),
    ],
)
def test_a_clients_context(
    traces: Traces, exported: InMemorySpanExporter, traceparent: str, parent: str
) -> None:
    context = traces.parent_of_request({"traceparent": traceparent}.get)
    traces.start("GET", SpanKind.SERVER, {}, context).end()
    assert _parent(exported) == parent


@pytest.mark.parametrize(
    ("state", "kept"), [("vendor=1", "vendor=1"), ("v=" + "x" * 600, None), ("ä=1", None)]
)
def test_a_clients_state_is_short_or_left_out(traces: Traces, state: str, kept: str | None) -> None:
    headers = {"traceparent": _PARENT, "tracestate": state}
    with traces.span("GET", SpanKind.SERVER, {}, traces.parent_of_request(headers.get)):
        assert find_header(traces.header_block(b""), "tracestate") == kept


def test_a_context_that_has_ended_begins_a_trace_of_its_own(
    traces: Traces, exported: InMemorySpanExporter
) -> None:
    request = traces.start("GET", SpanKind.SERVER, {})
    with traces.within(request):
        with traces.span("ask", SpanKind.CLIENT, {}):
            pass
        request.end()
        with traces.span("later", SpanKind.CLIENT, {}):
            pass
    by_name = {span.name: span for span in exported.get_finished_spans()}
    assert by_name["ask"].context.trace_id == by_name["GET"].context.trace_id
    assert by_name["later"].parent is None


@pytest.mark.parametrize(
    ("subject", "name"),
    [
        ("tidings.out.room.default.kitchen", "tidings.out.room.default.*"),
        ("tidings.in.user.ada", "tidings.in.user.*"),
        ("tidings.out.broadcast", "tidings.out.broadcast"),
    ],
)
def test_names_of_spans_name_no_user(subject: str, name: str) -> None:
    assert shape(subject) == name
