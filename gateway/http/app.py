"""The ASGI application: every path that is served over plain HTTP, in one place (WebSockets: `gateway.ws.handshake`)."""

from starlette.applications import Starlette
from starlette.routing import BaseRoute
from starlette.types import ASGIApp

from gateway.api.pushes import Pushes
from gateway.api.responses import error_handlers
from gateway.contracts.openapi import ENDPOINTS
from gateway.dashboard import page_routes
from gateway.gateway import Gateway
from gateway.http.middleware import RateLimit, with_security_headers
from gateway.http.request_metrics import RequestMetrics


def build_app(gateway: Gateway) -> ASGIApp:
    """Return the application of a gateway."""
    settings = gateway.settings
    pushes = Pushes(gateway.on_limit)
    routes: list[BaseRoute] = [
        *(endpoint.route(gateway, pushes) for endpoint in ENDPOINTS),
        *page_routes(),
    ]
    app = Starlette(routes=routes, exception_handlers=error_handlers())
    limited: ASGIApp = app
    if settings.request_rate:
        limited = RateLimit(
            app,
            settings.request_rate,
            gateway.authenticator,
            gateway.connections.proxies.ip_key_of_request,
            gateway.on_limit,
        )
    return RequestMetrics(with_security_headers(limited, gateway.authenticator.origins), gateway.counters)
