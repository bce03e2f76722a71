"""All paths of the HTTP surface."""

from starlette.routing import Route

from gateway.api import (
    alerts,
    gateways,
    health,
    logs,
    maintenance_windows,
    messages,
    metrics,
    presence,
    publish,
    revocations,
    rooms,
    rules,
    tickets,
    users,
)
from gateway.api.alerts import alert_routes
from gateway.api.declarations import Operation
from gateway.api.deps import ApiDeps, Handler
from gateway.api.gateways import gateway_routes
from gateway.api.health import ops_routes
from gateway.api.label_sets import LabelSets
from gateway.api.logs import log_routes
from gateway.api.maintenance_windows import window_routes
from gateway.api.messages import message_routes
from gateway.api.metric_items import ReportNumbers
from gateway.api.metrics import metric_routes
from gateway.api.otlp import export as otlp
from gateway.api.otlp.export import otlp_routes
from gateway.api.presence import presence_routes
from gateway.api.publish import publish_routes
from gateway.api.revocations import revocation_routes
from gateway.api.rooms import room_routes
from gateway.api.rules import rule_routes
from gateway.api.tickets import ticket_routes
from gateway.api.users import user_routes

_AREAS = (
    presence,
    metrics,
    otlp,
    alerts,
    rules,
    maintenance_windows,
    logs,
    publish,
    messages,
    rooms,
    gateways,
    users,
    revocations,
    tickets,
    health,
)

API_OPERATIONS: tuple[Operation, ...] = tuple(operation for area in _AREAS for operation in area.OPERATIONS)


def api_routes(deps: ApiDeps, metrics_stream: Handler | None = None) -> list[Route]:
    """Return the routes; `metrics_stream` answers `/metrics` where `text/event-stream` is asked for."""
    numbers, label_sets = ReportNumbers(), LabelSets()  # of a source, whichever way its metrics are pushed
    return [
        *presence_routes(deps),
        *metric_routes(deps, numbers, label_sets),
        *otlp_routes(deps, numbers, label_sets),
        *alert_routes(deps),
        *rule_routes(deps),
        *window_routes(deps),
        *log_routes(deps),
        *publish_routes(deps),
        *message_routes(deps),
        *room_routes(deps),
        *gateway_routes(deps),
        *user_routes(deps),
        *revocation_routes(deps),
        *ticket_routes(deps),
        *ops_routes(deps, metrics_stream),
    ]
