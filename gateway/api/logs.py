"""The fleet's recent log lines."""

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from gateway.api.access import require_server
from gateway.api.deps import ApiDeps
from gateway.api.query import integer
from gateway.api.responses import JsonResponse
from services.bus import rpc
from services.wire.rpc import LOGS_RECENT, LogPage, LogQuery


def log_routes(deps: ApiDeps) -> list[Route]:
    """Return `GET /api/logs`."""

    async def recent(request: Request) -> Response:
        """Answer an array of the newest `limit` log lines, oldest first."""
        await require_server(deps, request)
        limit = integer(request, "limit", 100, low=1, high=1000)
        found: LogPage = await rpc.ask(deps.bus, deps.subjects, LOGS_RECENT, LogQuery(limit=limit))
        return JsonResponse(found.entries)

    return [Route("/api/logs", recent)]
