"""The ASGI application: every path that is served over plain HTTP, in one place (WebSockets: `gateway.ws.entrance`)."""

from functools import partial

from starlette.applications import Starlette
from starlette.routing import BaseRoute
from starlette.types import ASGIApp

from gateway.api.errors import error_handlers
from gateway.api.headers import guarded
from gateway.api.routes import api_routes
from gateway.contracts.serving import contract_routes
from gateway.core import Gateway
from gateway.page import page_routes
from gateway.request_rate import RequestRate
from gateway.sse.endpoints import metrics_stream, sse_routes
from gateway.timing import RequestTiming


def build_app(gateway: Gateway) -> ASGIApp:
    """Return the application of a gateway."""
    settings = gateway.settings
    routes: list[BaseRoute] = [
        *sse_routes(gateway),
        *api_routes(gateway, partial(metrics_stream, gateway)),
        *contract_routes(),
        *page_routes(),
    ]
    app = Starlette(routes=routes, exception_handlers=error_handlers())
    limited: ASGIApp = app
    if settings.request_rate:
        limited = RequestRate(
            app, settings.request_rate, gateway.authenticator, gateway.place_of, gateway.on_limit
        )
    return RequestTiming(guarded(limited, gateway.authenticator.origins), gateway.traffic)
