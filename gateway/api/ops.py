"""For those who run it: health, readiness, Prometheus metrics. No credentials, and nothing secret."""

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from gateway.api.deps import ApiDeps, Handler
from services import health, telemetry

_NO_STORE = {"cache-control": "no-store"}


def ops_routes(deps: ApiDeps, metrics_stream: Handler | None = None) -> list[Route]:
    """Return `/healthz`, `/readyz` and `/metrics`; `metrics_stream` answers the last to who accepts SSE."""

    async def healthz(_request: Request) -> Response:
        """Answer that the process answers."""
        return _plain(health.liveness())

    async def readyz(_request: Request) -> Response:
        """Answer 200 if new connections should come here, else 503, and which check says so."""
        checks = deps.readiness()
        return _plain(health.readiness({name: holds.__bool__ for name, holds in checks.items()}))

    async def metrics(request: Request) -> Response:
        """Answer Prometheus text, or the stream of metrics records to who accepts `text/event-stream`."""
        if metrics_stream is not None and "text/event-stream" in request.headers.get("accept", ""):
            return await metrics_stream(request)
        text, content_type = telemetry.exposition()
        return Response(text, headers={**_NO_STORE, "content-type": content_type, "vary": "Accept"})

    return [
        Route("/healthz", healthz),
        Route("/readyz", readyz),
        Route("/metrics", metrics),
    ]


def _plain(answer: health.Response) -> Response:
    return Response(answer.body, int(answer.status), _NO_STORE, answer.content_type)
