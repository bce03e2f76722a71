"""The ASGI application: every path that is served over plain HTTP, and the middleware around them.

The middleware is plain ASGI: Starlette's BaseHTTPMiddleware would hide a client's disconnect from streams.
WebSockets are not here (`gateway.ws.handshake`).
"""

import math
import time

from starlette.applications import Starlette
from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import Response
from starlette.routing import BaseRoute
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from gateway.api.pushes import Pushes
from gateway.api.responses import error_handlers, refusal_response
from gateway.auth.identity import AuthRefused
from gateway.auth.origins import ForeignOrigin, OriginPolicy
from gateway.contracts.openapi import ENDPOINTS
from gateway.dashboard import page_routes
from gateway.gateway import Gateway
from gateway.http.request_metrics import RequestMetrics
from gateway.limits import KeyedBuckets, Limit
from services.wire.codes import ErrorCode

_HEALTH = ("/healthz", "/readyz")

_PREFLIGHT = {
    "access-control-allow-methods": "GET, POST, PUT, DELETE",
    "access-control-allow-headers": "Authorization, Content-Type, X-API-Key, Last-Event-ID, Tidings-Connection",
    "access-control-max-age": "600",
}
_EXPOSED = "Link, Retry-After"

# Defaults of every answer. The dashboard brings its own content policy.
_DEFAULTS = {
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "x-frame-options": "DENY",
    "cross-origin-resource-policy": "same-origin",
    "content-security-policy": "default-src 'none'; frame-ancestors 'none'",
}


def build_app(gateway: Gateway) -> ASGIApp:
    """Return the application of a gateway."""
    pushes = Pushes(gateway.on_limit)
    routes: list[BaseRoute] = [endpoint.route(gateway, pushes) for endpoint in ENDPOINTS]
    routes += page_routes()
    app: ASGIApp = Starlette(routes=routes, exception_handlers=error_handlers())
    if gateway.settings.request_rate:
        app = RateLimit(app, gateway)
    settings = gateway.settings
    credentials = "connect" in settings.hooks and "cookie" in [
        name.lower() for name in settings.hooks_headers
    ]
    guard = BrowserGuard(app, gateway.authenticator.origins, credentials=credentials)
    return RequestMetrics(guard, gateway.counters)


class RateLimit:
    """Rate limit of HTTP requests per IP key.

    A read costs a token check and a request to a service, so one untrusted client's loop would cost others their
    answers. Servers with an API key are the operator's own and are not counted, and neither are health checks: a load
    balancer that shares an address with a flood must not see a dead gateway. Streams count as one request; WebSocket
    upgrades have the accept rate.
    """

    def __init__(self, app: ASGIApp, gateway: Gateway) -> None:
        self._app = app
        self._gateway = gateway
        self._buckets = KeyedBuckets(gateway.settings.request_rate, time.monotonic())

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, or answer 429."""
        wait_s = self._wait_s(scope) if scope["type"] == "http" else 0.0
        if not wait_s:
            await self._app(scope, receive, send)
            return
        self._gateway.on_limit(Limit.REQUEST_RATE)
        text = f"more than {self._buckets.rate:g} requests per second from this address"
        await refusal_response(ErrorCode.RATE_LIMITED, text, math.ceil(wait_s * 1000))(scope, receive, send)

    def _wait_s(self, scope: Scope) -> float:
        if scope["path"] in _HEALTH or self._gateway.authenticator.has_api_key(Headers(scope=scope)):
            return 0.0
        return self._buckets.consume(
            self._gateway.connections.proxies.ip_key_of_request(scope), time.monotonic()
        )


class BrowserGuard:
    """Refuses requests of pages that may not talk to this gateway, lets allowed ones read the answers, and adds headers.

    Only where the application decides by cookies do they mean anything, and answers allow credentials. It stands outside of Starlette, so that its 500
    page has the headers too: no sniffing, no framing, no referrer, no scripts.
    """

    def __init__(self, app: ASGIApp, policy: OriginPolicy, *, credentials: bool) -> None:
        self._app = app
        self._policy = policy
        self._credentials = {"access-control-allow-credentials": "true"} if credentials else {}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, or refuse it; answer a preflight."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        cors: dict[str, str] = {}

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                answer = MutableHeaders(scope=message)
                answer.update(cors)
                if cors:
                    answer.add_vary_header("Origin")
                for name, value in _DEFAULTS.items():
                    answer.setdefault(name, value)
            await send(message)

        app, headers = self._app, Headers(scope=scope)
        try:
            foreign = self._policy.check(headers, scope["path"])
        except AuthRefused as refusal:
            if isinstance(refusal, ForeignOrigin):
                cors["access-control-allow-origin"] = refusal.origin  # may read why
            app = refusal_response(refusal.code, refusal.message)
        else:
            if foreign is not None:
                cors |= {"access-control-allow-origin": foreign, "access-control-expose-headers": _EXPOSED}
                cors |= self._credentials
                if scope["method"] == "OPTIONS" and "access-control-request-method" in headers:
                    app = Response(status_code=204, headers=_PREFLIGHT)
        await app(scope, receive, send_with_headers)
