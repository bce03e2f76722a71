"""Whether a process traces, and where its spans go."""

import asyncio
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import structlog

from services import __version__
from services.bus.client import Bus
from services.lifecycle import CannotStart, Lifecycle
from services.settings import Settings

if TYPE_CHECKING:
    from services.tracing.spans import Traces

_log = structlog.get_logger(__name__)

_EXPORT_S = 5
_LAST_EXPORT_S = 1.0  # what stopping may take to hand over the last spans
_PATH = "/v1/traces"


def traces_url(endpoint: str) -> str:
    """Return the URL for spans: with `/v1/traces` if the endpoint names no path (OTLP/HTTP)."""
    url = urlsplit(endpoint)
    return endpoint if url.path.strip("/") else f"{url.scheme}://{url.netloc}{_PATH}"


def open_traces(settings: Settings, kind: str, instance: str, lifecycle: Lifecycle) -> "Traces | None":
    """Return the source of this process's spans, flushed when it stops; None where traces are off.

    Raises:
        CannotStart: traces are asked for, and the optional part `tracing` is not installed.
    """
    if not settings.traces_endpoint:
        return None
    url = traces_url(settings.traces_endpoint)
    try:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
        from opentelemetry.sdk.resources import Resource
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor
        from opentelemetry.sdk.trace.sampling import ALWAYS_ON, ParentBased

        from services.tracing.spans import Traces
    except ImportError as fault:
        raise CannotStart(
            "TIDINGS_TRACES_ENDPOINT is set, and OpenTelemetry is not installed: "
            "install tidings[tracing], or leave the setting empty"
        ) from fault

    provider = TracerProvider(
        # What OTEL_RESOURCE_ATTRIBUTES says comes on top.
        resource=Resource.create(
            {
                "service.name": f"tidings-{kind}",
                "service.namespace": settings.prefix,
                "service.instance.id": instance,
                "service.version": __version__,
            }
        ),
        sampler=ParentBased(ALWAYS_ON),  # `Traces.wanted` is asked before
        shutdown_on_exit=False,
    )
    # Spans wait in a queue of limited length (OTEL_BSP_*), and a thread sends them; what is too much is dropped.
    # Credentials come from OTEL_EXPORTER_OTLP_HEADERS.
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter(endpoint=url, timeout=_EXPORT_S)))

    lifecycle.on_stop("traces", lambda: _hand_over(provider.shutdown), timeout_s=2 * _LAST_EXPORT_S)
    return Traces(
        provider.get_tracer("tidings", __version__),
        ratio=settings.traces_ratio,
        follow_clients=settings.traces_follow_clients,
    )


async def _hand_over(shutdown: Callable[[], None]) -> None:
    """Send the last spans, without waiting for a collector that does not take them."""
    loop = asyncio.get_running_loop()
    done = asyncio.Event()

    def hand_over() -> None:
        shutdown()
        with suppress(RuntimeError):  # too late: the loop is closed
            loop.call_soon_threadsafe(done.set)

    # Not the loop's own executor: its end waits for every thread of it.
    threading.Thread(target=hand_over, name="last traces", daemon=True).start()
    try:
        await asyncio.wait_for(done.wait(), _LAST_EXPORT_S)
    except TimeoutError:
        _log.warning("last traces not taken", within_s=_LAST_EXPORT_S)


def bus_class(traces: "Traces | None") -> type[Bus]:
    """Return the bus to connect with."""
    if traces is None:
        return Bus
    from services.tracing.bus import TracingBus

    # A class of its own, because connecting subscribes before anyone could hand in the traces.
    return type("TracingBus", (TracingBus,), {"traces": traces})
