"""Health endpoints of a process that serves no other HTTP.

- `/healthz`: 200 while the event loop turns. Checks no dependency: a restart of ours does not repair them.
- `/readyz`: 200 when every check holds, else 503; the JSON body names each check.
- `/metrics`: Prometheus text.

One request per connection, GET and HEAD only, size and time limited: for probes and scrapers. The gateway answers the
same paths with its own HTTP stack, from the same `readiness`.
"""

import asyncio
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any

import msgspec
import structlog
from prometheus_client import REGISTRY
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from services import telemetry
from services.bus.stats import BusStats
from services.settings import Settings
from services.telemetry import MetricName

log = structlog.get_logger(__name__)

Checks = Mapping[str, Callable[[], bool]]
Details = Callable[[], Mapping[str, Any]]

_MAX_HEAD_BYTES = 8192
_REQUEST_S = 5.0
_JSON = "application/json"
_TEXT = "text/plain; charset=utf-8"


@dataclass(frozen=True, slots=True)
class Response:
    """What is answered, before it is bytes."""

    status: HTTPStatus
    body: bytes
    content_type: str = _TEXT

    def encode(self, *, with_body: bool = True) -> bytes:
        """Return the HTTP/1.1 response (RFC 9112)."""
        head = (
            f"HTTP/1.1 {self.status} {self.status.phrase}\r\n"
            f"content-type: {self.content_type}\r\n"
            f"content-length: {len(self.body)}\r\n"
            "cache-control: no-store\r\n"
            "connection: close\r\n\r\n"
        )
        return head.encode() + (self.body if with_body else b"")


def readiness(checks: Checks, details: Details | None = None) -> Response:
    """Return the answer to `/readyz`: 200 or 503, with each check's outcome and, if given, details."""
    outcome = {name: check() for name, check in checks.items()}
    ready = all(outcome.values())
    body: dict[str, Any] = {"status": "ready" if ready else "not ready", "checks": outcome}
    if details is not None:
        body["details"] = dict(details())
    status = HTTPStatus.OK if ready else HTTPStatus.SERVICE_UNAVAILABLE
    return Response(status, msgspec.json.encode(body), _JSON)


def liveness() -> Response:
    """Return the answer to `/healthz`: always 200."""
    return Response(HTTPStatus.OK, b'{"status":"ok"}', _JSON)


# The outcomes and faults among `BusStats`, as labels.
_PUBLISHES = {"stored": "stored", "not_stored": "not_stored", "refused": "publish_refused"}
_FAULTS = (
    "unanswered",
    "disconnects",
    "rebuilds",
    "discarded",
    "callback_errors",
    "permission_violations",
    "slow_consumers",
    "client_errors",
    "probes_lost",
)


class ProcessCollector(Collector):
    """Readiness and the bus's counts for Prometheus, read when scraped."""

    def __init__(self, checks: Checks, bus: BusStats) -> None:
        self._checks = checks
        self._bus = bus

    def collect(self) -> Iterator[Metric]:
        """Yield all families."""
        declared = MetricName.READY.value
        ready = GaugeMetricFamily(declared.name, declared.help, labels=declared.labels)
        for name, check in self._checks.items():
            ready.add_metric([name], int(check()))
        yield ready
        for metric, counts in (
            (MetricName.BUS_PUBLISHES, _PUBLISHES),
            (MetricName.BUS_FAULTS, {name: name for name in _FAULTS}),
        ):
            declared = metric.value
            family = CounterMetricFamily(declared.name, declared.help, labels=declared.labels)
            for label, field in counts.items():
                family.add_metric([label], getattr(self._bus, field))
            yield family


def export_process(checks: Checks, bus: BusStats) -> None:
    """Add the readiness checks and the bus's counts of this process to its Prometheus metrics."""
    REGISTRY.register(ProcessCollector(checks, bus))


class HealthServer:
    """A small HTTP server on `health_port` (0: a free one, see `port`).

    Args:
        settings: `health_host` (else `host`) and `health_port` say where.
        kind: the service, for the build metric.
        checks: by name, whether the thing works now; cheap and without I/O, as each probe calls them.
        details: more for a reader of `/readyz`.
    """

    def __init__(self, settings: Settings, kind: str, checks: Checks, details: Details | None = None) -> None:
        self._host = settings.health_host or settings.host
        self._port = settings.health_port
        self._checks = checks
        self._details = details
        self._server: asyncio.Server | None = None
        telemetry.announce_build(kind)

    async def start(self) -> None:
        """Begin to listen. Raises OSError when the port is taken."""
        self._server = await asyncio.start_server(
            self._serve, self._host, self._port, limit=_MAX_HEAD_BYTES, backlog=32
        )
        log.info("health server listens", host=self._host, port=self.port)

    @property
    def port(self) -> int:
        """The port in use; 0 before `start`."""
        if self._server is None:
            return 0
        port: int = self._server.sockets[0].getsockname()[1]
        return port

    async def close(self) -> None:
        """Stop listening. Idempotent; answers on their way have their own time limit."""
        server, self._server = self._server, None
        if server is not None:
            server.close()

    def respond(self, head: bytes) -> bytes:
        """Return the answer to a request head: pure but for the checks."""
        request_line = head.split(b"\r\n", 1)[0].split(b" ")
        if len(request_line) != 3 or not request_line[2].startswith(b"HTTP/1."):
            return Response(HTTPStatus.BAD_REQUEST, b"bad request\n").encode()
        method, target, _ = request_line
        if method not in (b"GET", b"HEAD"):
            return Response(HTTPStatus.METHOD_NOT_ALLOWED, b"GET or HEAD only\n").encode()
        return self._route(target.split(b"?", 1)[0]).encode(with_body=method == b"GET")

    def _route(self, path: bytes) -> Response:
        if path == b"/healthz":
            return liveness()
        if path == b"/readyz":
            return readiness(self._checks, self._details)
        if path == b"/metrics":
            return Response(HTTPStatus.OK, *telemetry.exposition())
        return Response(HTTPStatus.NOT_FOUND, b"/healthz, /readyz or /metrics\n")

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            async with asyncio.timeout(_REQUEST_S):
                writer.write(await self._answer(reader))
                await writer.drain()
        except (TimeoutError, ConnectionError, asyncio.IncompleteReadError):
            log.debug("health request given up")
        finally:
            writer.close()

    async def _answer(self, reader: asyncio.StreamReader) -> bytes:
        try:
            head = await reader.readuntil(b"\r\n\r\n")
        except asyncio.LimitOverrunError:
            too_large = HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE
            return Response(too_large, b"request head too large\n").encode()
        return self.respond(head)
