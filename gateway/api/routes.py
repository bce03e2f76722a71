"""All paths of the HTTP surface."""

from starlette.routing import Route

from gateway.api.alerts import alert_routes
from gateway.api.deps import ApiDeps, Handler
from gateway.api.gateways import gateway_routes
from gateway.api.logs import log_routes
from gateway.api.metrics import metric_routes
from gateway.api.ops import ops_routes
from gateway.api.presence import presence_routes
from gateway.api.publish import publish_routes
from gateway.api.rooms import room_routes
from gateway.api.tickets import ticket_routes
from gateway.api.users import user_routes


def api_routes(deps: ApiDeps, metrics_stream: Handler | None = None) -> list[Route]:
    """Return the routes; `metrics_stream` answers `/metrics` where `text/event-stream` is asked for."""
    return [
        *presence_routes(deps),
        *metric_routes(deps),
        *alert_routes(deps),
        *log_routes(deps),
        *publish_routes(deps),
        *room_routes(deps),
        *gateway_routes(deps),
        *user_routes(deps),
        *ticket_routes(deps),
        *ops_routes(deps, metrics_stream),
    ]
