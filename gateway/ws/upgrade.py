"""One handshake under way: its time limit, and the application's decision (ADR 0003).

It lives from the first byte of a connection until the application has decided, and takes what only a handshake needs with it.
"""

import asyncio
from collections.abc import Callable
from typing import Any

import structlog
from websockets.http11 import Request, Response

from gateway.ws.handshake import Denial, upgrade_scope
from gateway.ws.negotiation import denial_response

log = structlog.get_logger(__name__)


class Upgrade:
    """Runs the ASGI application for one upgrade request."""

    __slots__ = ("_app", "_on_denied", "_response", "_state", "_task", "_timer")

    def __init__(self, app: Any, state: dict[str, Any], on_denied: Callable[[Response], None]) -> None:
        self._app = app
        self._state = state
        self._on_denied = on_denied
        self._response: Response | None = None  # the 101, while the application decides
        self._task: asyncio.Task[None] | None = None
        self._timer: asyncio.TimerHandle | None = None

    @property
    def is_deciding(self) -> bool:
        """Whether a whole request has arrived and the application has it."""
        return self._response is not None or self._task is not None

    def start_clock(self, limit_s: float, on_late: Callable[[], None]) -> None:
        """Call `on_late` unless the handshake ends within `limit_s` seconds."""
        self._timer = asyncio.get_running_loop().call_later(limit_s, on_late)

    def decide(
        self, request: Request, response: Response, link: object, transport: asyncio.Transport
    ) -> None:
        """Let the application decide whether `response` is sent; a refusal goes to `on_denied`."""
        self._response = response
        peer, local = transport.get_extra_info("peername"), transport.get_extra_info("sockname")
        scope = upgrade_scope(
            request,
            link,
            client=(str(peer[0]), int(peer[1])) if isinstance(peer, tuple) else None,
            server=(str(local[0]), int(local[1])) if isinstance(local, tuple) else None,
            secure=transport.get_extra_info("sslcontext") is not None,
            state=self._state,
        )
        self._task = asyncio.get_running_loop().create_task(self._run(scope))

    def take_response(self) -> Response | None:
        """End the handshake, and return the response to send if the application may still accept."""
        response, self._response = self._response, None
        self.stop_clock()
        return response

    def stop_clock(self) -> None:
        """Let the handshake take any time from here on. Idempotent."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def cancel(self) -> None:
        """Stop everything: the client is gone."""
        self.stop_clock()
        if self._task is not None:
            self._task.cancel()

    async def _run(self, scope: dict[str, Any]) -> None:
        denial = Denial()

        async def receive() -> dict[str, Any]:
            return {"type": "websocket.connect"}

        async def send(event: Any) -> None:
            denial.on_event(event)

        try:
            await self._app(scope, receive, send)
        except Exception:
            # The boundary to an arbitrary ASGI application: whatever it raises is our fault, not the client's.
            log.exception("the application failed during a handshake")
            denial.status, denial.body = 500, b"Internal Server Error"
        finally:
            self._task = None
        if self._response is not None:  # nobody accepted
            self._on_denied(denial_response(denial))
