"""HTTP as uvicorn speaks it, with what it lacks: limits on how long and how large a request's head may be, and on how
long a client may take to read an answer.

Without them a client that sends one header byte a minute, or nothing at all, keeps a connection for ever
(slow-loris), one with headers without end fills our memory, and one that does not read keeps its answer there.
"""

import asyncio
import sys
from typing import Any

import httptools
from uvicorn._types import ASGI3Application
from uvicorn.config import Config
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle
from uvicorn.server import ServerState

from gateway.session.limits import Limit
from gateway.ws.protocol import WebSocketProtocol
from gateway.ws.request import UpgradeRequest
from gateway.ws.site import Site

_PER_HEADER = 4  # colon, blank and line end
_TOO_LARGE = (
    b"HTTP/1.1 431 Request Header Fields Too Large\r\nconnection: close\r\ncontent-type: text/plain\r\n"
    b"content-length: 35\r\n\r\nThe request's headers are too large"
)
_TOO_LATE = (
    b"HTTP/1.1 408 Request Timeout\r\nconnection: close\r\ncontent-type: text/plain\r\n"
    b"content-length: 30\r\n\r\nThe request took too long here"
)


class LimitedHttpProtocol(HttpToolsProtocol):
    """One HTTP connection, until it ends or becomes a WebSocket."""

    def __init__(
        self,
        config: Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
        *,
        site: Site,
    ) -> None:
        super().__init__(config, server_state, app_state, _loop)
        self._site = site
        self._settings = site.settings
        self._on_limit = site.on_limit
        self._in_head = False
        self._head_bytes = 0
        self._refused = False
        self._received = b""  # what is being parsed
        self._answering: RequestResponseCycle | None = None
        self._head_timer: asyncio.TimerHandle | None = None
        self._write_timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as uvicorn
        """Start the clock of the first request."""
        super().connection_made(transport)
        self._start_head_timer()

    def connection_lost(self, exc: Exception | None) -> None:
        """Stop all clocks, and tell every request under way: uvicorn tells only the last one that came."""
        self._stop_timers()
        for cycle in [self._answering, *(cycle for cycle, _ in self.pipeline)]:
            if cycle is not None and not cycle.response_complete:
                cycle.disconnected = True  # else it would write to a closed transport, which raises
                cycle.message_event.set()
        self.pipeline.clear()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Parse, and look at what is still unfinished afterwards."""
        if self._refused:
            return
        self._received = data
        super().data_received(data)
        self._received = b""
        if self.transport.is_closing() or self.transport.get_protocol() is not self:
            return
        if self._in_head:
            self._head_bytes += len(data)
            if self._head_bytes > self._settings.max_head_bytes:
                self._refuse(_TOO_LARGE, Limit.HEAD_BYTES)
        elif self._is_idle and self._head_timer is None:
            # Bytes that begin no request (line breaks) stop uvicorn's clock for idle connections.
            self._start_head_timer()

    def on_message_begin(self) -> None:
        """A request begins: on a kept connection, its clock does too."""
        super().on_message_begin()
        self._in_head = True
        if self._head_timer is None:
            self._start_head_timer()

    def on_headers_complete(self) -> None:
        """The head is in: what limits the rest is the application's."""
        self._in_head = False
        self._head_bytes = 0
        self._stop_head_timer()
        size = len(self.url) + sum(len(name) + len(value) + _PER_HEADER for name, value in self.headers)
        if size > self._settings.max_head_bytes:  # it came at once, and was never unfinished
            self._refuse(_TOO_LARGE, Limit.HEAD_BYTES)
        else:
            super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        """Keep no body of a request that was refused."""
        if not self._refused:
            super().on_body(body)

    def on_message_complete(self) -> None:
        """Pass over a request that was refused."""
        if not self._refused:
            super().on_message_complete()

    @property
    def _is_idle(self) -> bool:
        return self.timeout_keep_alive_task is None and (self.cycle is None or self.cycle.response_complete)

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: ASGI3Application) -> None:
        self._answering = cycle
        super()._start_asgi_task(cycle, app)

    def handle_websocket_upgrade(self) -> None:
        """Hand over: from here on the WebSocket protocol keeps the time."""
        if self._refused:
            return
        early = self._received[_parsed_bytes() :]
        if len(early) > self._settings.max_head_bytes:
            self._refuse(_TOO_LARGE, Limit.HEAD_BYTES)
            return
        if self.cycle is not None and not self.cycle.response_complete:
            # The answers before would stand inside the WebSocket: they are given, and this one never is.
            self._refused = True
            self._stop_head_timer()
            self.cycle.keep_alive = False
            return
        self._stop_timers()
        self.connections.discard(self)
        lines = [(name.decode("latin-1"), value.decode("latin-1")) for name, value in self.headers]
        version = f"HTTP/{self.parser.get_http_version()}"
        request = UpgradeRequest(
            self.scope["method"], _origin_form(self.url), lines, version=version, early=early
        )
        WebSocketProtocol(self._site, self.transport).begin(request)

    def _should_upgrade_to_ws(self) -> bool:
        return True  # by the above, whatever uvicorn has of its own

    def pause_writing(self) -> None:
        """The client does not read as fast as we answer: it has so long to catch up."""
        super().pause_writing()
        if self._write_timer is None and self._settings.write_timeout_s:
            self._write_timer = self.loop.call_later(self._settings.write_timeout_s, self._on_write_late)

    def resume_writing(self) -> None:
        """It has caught up."""
        self._stop_write_timer()
        super().resume_writing()

    def _start_head_timer(self) -> None:
        self._head_timer = self.loop.call_later(self._settings.handshake_timeout_s, self._on_head_late)

    def _stop_head_timer(self) -> None:
        if self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None

    def _stop_write_timer(self) -> None:
        if self._write_timer is not None:
            self._write_timer.cancel()
            self._write_timer = None

    def _stop_timers(self) -> None:
        self._stop_head_timer()
        self._stop_write_timer()

    def _on_head_late(self) -> None:
        self._head_timer = None
        # Browsers open connections in advance: to one that never asked, there is nothing to say.
        self._refuse(_TOO_LATE if self._in_head else b"", Limit.HEAD_TIME)

    def _on_write_late(self) -> None:
        self._write_timer = None
        self._on_limit(Limit.WRITE_TIME)
        self.transport.abort()  # closing would wait for the client to read

    def _refuse(self, answer: bytes, limit: Limit) -> None:
        self._refused = True
        self._stop_timers()
        if self.transport.is_closing():
            return
        self._on_limit(limit)
        if self.cycle is None or self.cycle.response_complete:  # else this would stand inside another answer
            self.transport.write(answer)
        self.transport.close()


def _parsed_bytes() -> int:
    """Return how much of what came was parsed when an upgrade ended it; called where uvicorn handles that."""
    ended = sys.exception()
    return ended.args[0] if isinstance(ended, httptools.HttpParserUpgrade) else sys.maxsize


def _origin_form(url: bytes) -> str:
    """Return path and query of a request's target, which may be a whole URL (RFC 9112 §3.2.2)."""
    try:
        target = httptools.parse_url(url)
    except httptools.HttpParserInvalidURLError:  # `*`, and a CONNECT's
        return url.decode("latin-1")
    path = target.path or b"/"
    return (path if target.query is None else b"%b?%b" % (path, target.query)).decode("latin-1")
