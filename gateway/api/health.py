"""For those who run it: health, readiness, Prometheus metrics. No credentials, and nothing secret."""

import re
from typing import Literal

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from gateway.api.declarations import Access, Operation
from gateway.api.deps import ApiDeps, Handler
from services import health, telemetry
from services.wire.records import Record

_VERSIONS = re.compile(rb"^(?:# (?:HELP|TYPE) )?(?:python_info|tidings_build_info)\b")
_NO_STORE = {"cache-control": "no-store"}


def ops_routes(deps: ApiDeps, metrics_stream: Handler | None = None) -> list[Route]:
    """Return `/healthz`, `/readyz` and `/metrics`; `metrics_stream` answers the last to who accepts SSE."""

    async def healthz(_request: Request) -> Response:
        """Answer that the process answers."""
        return _plain(health.liveness())

    async def readyz(_request: Request) -> Response:
        """Answer 200 if new connections should come here, else 503, and which check says so."""
        checks = deps.readiness()
        return _plain(
            health.readiness({name: holds.__bool__ for name, holds in checks.items()}, deps.details)
        )

    async def metrics(request: Request) -> Response:
        """Answer Prometheus text, or the stream of metrics records to who accepts `text/event-stream`."""
        if metrics_stream is not None and "text/event-stream" in request.headers.get("accept", ""):
            return await metrics_stream(request)
        text, content_type = telemetry.exposition()
        if not deps.authenticator.is_known(request.headers):
            text = _without_versions(text)
        return Response(text, headers={**_NO_STORE, "content-type": content_type, "vary": "Accept"})

    return [
        Route("/healthz", healthz),
        Route("/readyz", readyz),
        Route("/metrics", metrics),
    ]


def _without_versions(text: bytes) -> bytes:
    """Return the metrics without those that name versions: they tell a stranger which faults to look for."""
    return b"\n".join(line for line in text.split(b"\n") if not _VERSIONS.search(line))


def _plain(answer: health.Response) -> Response:
    return Response(answer.body, int(answer.status), _NO_STORE, answer.content_type)


class Liveness(Record, frozen=True, kw_only=True):
    """That the process answers is the whole answer."""

    status: Literal["ok"]


class Readiness(Record, frozen=True, kw_only=True):
    """Whether new connections should come here (200) or not (503), and what each check says.

    `details` do not count: `breakers` says of each service whether it answers (`closed`) or not (`open`).
    """

    status: Literal["ready", "not ready"]
    checks: dict[str, bool]
    details: dict[str, dict[str, str]]


OPERATIONS = (
    Operation(
        method="GET",
        path="/healthz",
        name="healthz",
        summary="Whether the process answers",
        access=Access.ANYONE,
        answer=Liveness,
    ),
    Operation(
        method="GET",
        path="/readyz",
        name="readyz",
        summary="Whether new connections should come here",
        access=Access.ANYONE,
        answer=Readiness,
    ),
    Operation(
        method="GET",
        path="/metrics",
        name="prometheusMetrics",
        summary="Prometheus text; a stream of metrics records where `Accept` names `text/event-stream`",
        access=Access.ANYONE,
        answer=str,
        media_type="text/plain",
    ),
)
