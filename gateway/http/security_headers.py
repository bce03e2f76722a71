"""Middleware: foreign origins, and headers that keep browsers out of trouble.

Plain ASGI: Starlette's BaseHTTPMiddleware would hide a client's disconnect from streams.
WebSocket handshakes pass through untouched; they ask `Authenticator.origins` themselves.
"""

from collections.abc import Mapping

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from gateway.api.responses import refusal_response
from gateway.auth.identity import AuthRefused
from gateway.auth.origins import ForeignOrigin, OriginPolicy

_PREFLIGHT = {
    "access-control-allow-methods": "GET, POST, PUT, DELETE",
    "access-control-allow-headers": "Authorization, Content-Type, X-API-Key, Last-Event-ID, Tidings-Connection",
    "access-control-max-age": "600",
}
_EXPOSED = "Link, Retry-After"

# What an answer gets unless it says something else itself. The page brings its own content policy.
_DEFAULTS = {
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "x-frame-options": "DENY",
    "cross-origin-resource-policy": "same-origin",
    "content-security-policy": "default-src 'none'; frame-ancestors 'none'",
}


def guarded(app: ASGIApp, policy: OriginPolicy) -> ASGIApp:
    """Return the whole application behind both: outside of Starlette, so that its 500 page has the headers too."""
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
    """Adds headers that a browser needs to be told: no sniffing, no framing, no referrer, no scripts."""

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
