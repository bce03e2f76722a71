"""How many HTTP requests one place may send in a second.

A read costs a token check and a question to a service, so a stranger's loop would cost others their answers. Servers
with a key are the operator's own and are not counted, and health checks are not either: who shares an address with a
flood must not look dead. Streams count as one request; WebSocket upgrades have the accept rate.
"""

import math
import time
from collections.abc import Callable

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

from gateway.api.responses import refusal_response
from gateway.auth.authenticator import Authenticator
from gateway.limits import KeyedBuckets, Limit
from services.wire.codes import ErrorCode

_HEALTH = ("/healthz", "/readyz")


class RequestRate:
    """Pure ASGI middleware. `place_of` tells where a request comes from."""

    def __init__(
        self,
        app: ASGIApp,
        rate: float,
        authenticator: Authenticator,
        place_of: Callable[[Scope], str],
        on_limit: Callable[[Limit], object],
    ) -> None:
        self._app = app
        self._buckets = KeyedBuckets(rate, time.monotonic())
        self._authenticator = authenticator
        self._place_of = place_of
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
        return self._buckets.take(self._place_of(scope), time.monotonic())
