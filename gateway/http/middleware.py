"""Middleware: request rate, foreign origins, and headers that protect browsers.

Plain ASGI: Starlette's BaseHTTPMiddleware would hide a client's disconnect from streams.
WebSocket handshakes pass through untouched; they check `Authenticator.origins` themselves.
"""

import math
import time
from collections.abc import Callable, Mapping

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from gateway.api.responses import refusal_response
from gateway.auth.authenticator import Authenticator
from gateway.auth.identity import AuthRefused
from gateway.auth.origins import ForeignOrigin, OriginPolicy
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


class RateLimit:
    """Rate limit of HTTP requests per IP key.

    A read costs a token check and a request to a service, so one untrusted client's loop would cost others their
    answers. Servers with an API key are the operator's own and are not counted, and neither are health checks: a load
    balancer that shares an address with a flood must not see a dead gateway. Streams count as one request; WebSocket
    upgrades have the accept rate.
    """

    def __init__(
        self,
        app: ASGIApp,
        rate: float,
        authenticator: Authenticator,
        ip_key_of: Callable[[Scope], str],
        on_limit: Callable[[Limit], object],
    ) -> None:
        self._app = app
        self._buckets = KeyedBuckets(rate, time.monotonic())
        self._authenticator = authenticator
        self._ip_key_of = ip_key_of
        self._on_limit = on_limit

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, or answer 429."""
        wait_s = self._wait_s(scope) if scope["type"] == "http" else 0.0
        if not wait_s:
            await self._app(scope, receive, send)
            return
        self._on_limit(Limit.REQUEST_RATE)
        text = f"more than {self._buckets.rate:g} requests per second from this address"
        await refusal_response(ErrorCode.RATE_LIMITED, text, math.ceil(wait_s * 1000))(scope, receive, send)

    def _wait_s(self, scope: Scope) -> float:
        if scope["path"] in _HEALTH or self._authenticator.has_api_key(Headers(scope=scope)):
            return 0.0
        return self._buckets.consume(self._ip_key_of(scope), time.monotonic())


def with_security_headers(app: ASGIApp, policy: OriginPolicy) -> ASGIApp:
    """Return the application behind both: outside of Starlette, so that its 500 page has the headers too."""
    return SecurityHeaders(OriginGuard(app, policy))


class OriginGuard:
    """Refuses requests of pages that may not talk to this gateway, and lets allowed ones read the answers.

    No cookie means anything here, so answers never allow credentials.
    """

    def __init__(self, app: ASGIApp, policy: OriginPolicy) -> None:
        self._app = app
        self._policy = policy

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        try:
            foreign = self._policy.check(headers, scope["path"])
        except AuthRefused as refusal:
            readable = None
            if isinstance(refusal, ForeignOrigin):
                readable = {"access-control-allow-origin": refusal.origin, "vary": "Origin"}
            await refusal_response(refusal.code, refusal.message, headers=readable)(scope, receive, send)
            return
        if foreign is None:
            await self._app(scope, receive, send)
            return
        cors = {"access-control-allow-origin": foreign, "access-control-expose-headers": _EXPOSED}
        if scope["method"] == "OPTIONS" and "access-control-request-method" in headers:
            await _send_empty(send, 204, cors | _PREFLIGHT | {"vary": "Origin"})
            return

        async def send_with_cors(message: Message) -> None:
            if message["type"] == "http.response.start":
                answer = MutableHeaders(scope=message)
                answer.update(cors)
                answer.add_vary_header("Origin")
            await send(message)

        await self._app(scope, receive, send_with_cors)


class SecurityHeaders:
    """Adds headers for browsers: no sniffing, no framing, no referrer, no scripts."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return

        async def send_with_defaults(message: Message) -> None:
            if message["type"] == "http.response.start":
                answer = MutableHeaders(scope=message)
                for name, value in _DEFAULTS.items():
                    answer.setdefault(name, value)
            await send(message)

        await self._app(scope, receive, send_with_defaults)


async def _send_empty(send: Send, status: int, headers: Mapping[str, str]) -> None:
    raw = [(name.encode("latin-1"), value.encode("latin-1")) for name, value in headers.items()]
    await send({"type": "http.response.start", "status": status, "headers": raw})
    await send({"type": "http.response.body", "body": b""})
