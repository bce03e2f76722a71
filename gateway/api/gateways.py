"""How each gateway is doing."""

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from gateway.api.access import require_channel
from gateway.api.declarations import Access, Operation
from gateway.api.deps import ApiDeps
from gateway.api.responses import JsonResponse
from gateway.http.request_metrics import takes_its_time
from services.bus import rpc
from services.wire.records import GatewayStats
from services.wire.rpc import GATEWAY_STATS, Empty


def gateway_routes(deps: ApiDeps) -> list[Route]:
    """Return `GET /api/gateways`."""

    async def gateways(request: Request) -> Response:
        """Answer an array of what every gateway that answers in time says of itself, by name."""
        await require_channel(deps, request, "metrics")
        takes_its_time(request.scope)
        answers: list[GatewayStats] = await rpc.ask_all(deps.bus, deps.subjects, GATEWAY_STATS, Empty())
        by_name = {stats.gateway: stats for stats in (*answers, deps.stats())}
        return JsonResponse([by_name[name] for name in sorted(by_name)])

    return [Route("/api/gateways", gateways)]


OPERATIONS = (
    Operation(
        method="GET",
        path="/api/gateways",
        name="gateways",
        summary="What every gateway says of itself, by name",
        access=Access.READER,
        answer=list[GatewayStats],
    ),
)
