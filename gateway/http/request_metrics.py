"""The time on the wire, and how long HTTP requests take: counted as messages over WebSocket are."""

import time

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from gateway.delivery.counters import Counters
from gateway.limits import Limit

_GATHERS = "tidings.gathers"
_LIMIT = "tidings.limit"
_COUNTED = "tidings.counted"


def exclude_from_latency(scope: Scope) -> None:
    """Exclude a scatter-gather request from latencies: it always takes its full timeout.

    A page that shows all gateways asks every few seconds, and would raise the alert about slow answers.
    """
    scope[_GATHERS] = True


def count_as_limit(scope: Scope, limit: Limit) -> None:
    """Count the refusal of this request under the limit, too: a status alone does not say which one it was."""
    scope[_LIMIT] = limit


def already_counted(scope: Scope) -> None:
    """Leave the refusal of this request out: it was counted where WebSockets' are, under the same name."""
    scope[_COUNTED] = True


class RequestMetrics:
    """Pure ASGI middleware. A stream counts when it begins: how long it lasts is the client's choice."""

    def __init__(self, app: ASGIApp, counters: Counters) -> None:
        self._app = app
        self._counters = counters

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Time one request up to the start of its answer."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        started = time.monotonic()

        async def send_timed(message: Message) -> None:
            if message["type"] == "http.response.start":
                status = message["status"]
                if status < 400 and _GATHERS in scope:
                    self._counters.request_untimed()
                elif status < 400:
                    self._counters.request_ok(started, time.monotonic())
                elif _COUNTED not in scope:
                    self._counters.request_failed(f"http_{status}", our_fault=status >= 500)
                    if _LIMIT in scope:
                        self._counters.limit_hit(scope[_LIMIT])
            await send(message)

        await self._app(scope, receive, send_timed)
