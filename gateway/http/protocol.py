"""HTTP as uvicorn speaks it, with what it lacks: limits on how long and how large a request's head may be, on how many
requests may wait behind an answer, and on how long a client may take to read one.

Without them a client that sends one header byte a minute, or nothing at all, keeps a connection for ever
(slow-loris), one with headers without end fills our memory, and one that does not read keeps its answer there.

Requests that two servers in a row may read differently are refused: no `Host` or two (RFC 9112 §3.2), no version, an
upgrade with a body. Trailers are dropped: merged into the headers they would speak for a proxy (RFC 9110 §6.5.1).
"""

import asyncio
import logging

import httptools
from starlette.types import ASGIApp
from uvicorn._types import ASGI3Application
from uvicorn.config import Config
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle
from uvicorn.server import ServerState

from gateway.limits import Limit
from gateway.ws.handshake import UpgradeHandler
from gateway.ws.negotiation import UpgradeRequest, http_response

_PER_HEADER = 4  # colon, blank and line end
# A client may ask further before it has its answer; no client that waits for answers asks this often.
_MAX_PIPELINED = 32


class LimitedHttpProtocol(HttpToolsProtocol):
    """One HTTP connection, until it ends or becomes a WebSocket."""

    def __init__(self, config: Config, state: ServerState, upgrades: UpgradeHandler) -> None:
        super().__init__(config, state, {})
        self._start_upgrade = upgrades.start
        self._settings = upgrades.context.settings
        self._on_limit = upgrades.context.on_limit
        self._in_head = False
        self._head_bytes = 0
        self._in_body = False  # of the request that `cycle` answers
        self._unfinished_bytes = 0  # of a trailer, or another part of a body that is none of its content
        self._trailer_bytes = 0
        self._parsed_some = False  # of what is being parsed
        self._refused = False  # nothing that still comes is looked at
        self._answering: RequestResponseCycle | None = None
        self._head_timer: asyncio.TimerHandle | None = None
        self._write_timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as uvicorn
        """Start the clock of the first request."""
        super().connection_made(transport)
        self._start_head_timer()

    def connection_lost(self, exc: Exception | None) -> None:
        """Stop all timers, and notify every request under way: uvicorn notifies only the newest."""
        self._stop_timers()
        for cycle in [self._answering, *(cycle for cycle, _ in self.pipeline)]:
            if cycle is not None and not cycle.response_complete:
                cycle.disconnected = True  # else it would write to a closed transport, which raises
                cycle.message_event.set()
        self.pipeline.clear()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Parse, and look at what is still unfinished. Stands for uvicorn's, which keeps no rest of an upgrade."""
        if self._refused:
            return
        self._unset_keepalive_if_required()
        self._parsed_some = False
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserUpgrade as upgrade:
            if self._should_upgrade():
                self._upgrade(data[upgrade.args[0] :])
        except httptools.HttpParserError:
            self._refuse(Limit.BAD_REQUEST, 400, "This is no HTTP request.")
        if self._refused or self.transport.is_closing() or self.transport.get_protocol() is not self:
            return
        if self._in_head:
            self._head_bytes += len(data)
            if self._head_bytes > self._settings.max_head_bytes:
                self._refuse_head()
            return
        if self._in_body:
            self._unfinished_bytes = 0 if self._parsed_some else self._unfinished_bytes + len(data)
            if self._unfinished_bytes > self._settings.max_head_bytes:
                self._refuse_head()
                return
        idle = self.timeout_keep_alive_task is None and (self.cycle is None or self.cycle.response_complete)
        if idle and self._head_timer is None:
            # Bytes that begin no request stop uvicorn's clock for idle connections: line breaks, and a body whose
            # request is answered already.
            self._start_head_timer()

    def on_message_begin(self) -> None:
        """A request begins: on a kept connection, its clock does too."""
        super().on_message_begin()
        if self._refused:
            return
        self._in_head = True
        if self._head_timer is None:
            self._start_head_timer()

    def on_header(self, name: bytes, value: bytes) -> None:
        """Keep a header. Trailers are counted and dropped."""
        if self._in_head:
            super().on_header(name, value)
            return
        self._parsed_some = True
        self._trailer_bytes += len(name) + len(value) + _PER_HEADER
        if self._trailer_bytes > self._settings.max_head_bytes:
            self._refuse_head()

    def on_headers_complete(self) -> None:
        """The head is in: what limits the rest is the application's."""
        self._in_head = False
        self._head_bytes = 0
        self._stop_head_timer()
        if self._refused:
            return
        size = len(self.url) + sum(len(name) + len(value) + _PER_HEADER for name, value in self.headers)
        if size > self._settings.max_head_bytes:  # it came at once, and was never unfinished
            self._refuse_head()
        elif why := self._fault_of_head():
            self._refuse(Limit.BAD_REQUEST, 400, why)
        elif len(self.pipeline) >= _MAX_PIPELINED:
            self._on_limit(Limit.PIPELINED)
            self._close_after_answers()
        else:
            super().on_headers_complete()
            self._in_body = True
            self._unfinished_bytes = self._trailer_bytes = 0

    def on_body(self, body: bytes) -> None:
        """Keep no body of a request that was refused."""
        self._parsed_some = True
        if not self._refused:
            super().on_body(body)

    def on_message_complete(self) -> None:
        """Pass over a request that was refused."""
        if not self._refused:
            self._in_body = False
            super().on_message_complete()

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: ASGI3Application) -> None:
        self._answering = cycle
        super()._start_asgi_task(cycle, app)

    def _fault_of_head(self) -> str:
        """Return the fault of an ambiguous or unusable request, or nothing."""
        version = self.parser.get_http_version()
        names = [name for name, _ in self.headers]
        if version not in ("1.0", "1.1"):
            return "The request names no version of HTTP that is served here."
        if names.count(b"host") > 1 or (version == "1.1" and b"host" not in names):
            return "A request has one Host header."
        # The parser passes over such a body. What a proxy takes for it would be read as frames, or as a request.
        if self.parser.should_upgrade() and any(
            name == b"transfer-encoding" or (name == b"content-length" and value.strip(b"0"))
            for name, value in self.headers
        ):
            return "An upgrade has no body."
        return ""

    def _upgrade(self, early: bytes) -> None:
        """Hand over, with what came behind the head: from here on the WebSocket protocol keeps the time."""
        if self._refused:
            return
        if len(early) > self._settings.max_head_bytes:
            self._refuse_head()
            return
        if self.cycle is not None and not self.cycle.response_complete:
            self._close_after_answers()  # they would stand inside the WebSocket
            return
        self._stop_timers()
        self.connections.discard(self)
        lines = [(name.decode("latin-1"), value.decode("latin-1")) for name, value in self.headers]
        version = f"HTTP/{self.parser.get_http_version()}"
        request = UpgradeRequest(
            self.scope["method"], _origin_form(self.url), lines, version=version, early=early
        )
        self._start_upgrade(self.transport, request)

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
        if self._in_head:
            self._refuse(Limit.HEAD_TIME, 408, "The request took too long.")
        else:
            # Browsers open connections in advance: to one that never asked, there is nothing to say.
            self._refuse(Limit.HEAD_TIME)

    def _on_write_late(self) -> None:
        self._write_timer = None
        self._on_limit(Limit.WRITE_TIME)
        self.transport.abort()  # closing would wait for the client to read

    def _refuse_head(self) -> None:
        self._refuse(Limit.HEAD_BYTES, 431, "The request's headers or trailers are too large.")

    def _refuse(self, limit: Limit, status: int = 0, why: str = "") -> None:
        """Answer with `status`, if any and where this would not stand inside another answer, and close."""
        if self._refused:
            return
        self._refused = True
        self._stop_timers()
        if self.transport.is_closing():
            return
        self._on_limit(limit)
        if status and self._may_answer():
            text = why.encode()
            headers = ((b"content-type", b"text/plain"), (b"content-length", b"%d" % len(text)))
            self.transport.write(http_response(status, headers, text))
        self.transport.close()

    def _may_answer(self) -> bool:
        """Whether the next answer is to the request that is coming in, and has not begun; then it is ours."""
        cycle = self.cycle
        if not self._in_body:
            return cycle is None or cycle.response_complete
        if cycle is not self._answering or cycle.response_started:
            return False
        cycle.disconnected = True
        cycle.message_event.set()
        return True

    def _close_after_answers(self) -> None:
        """Answer what was asked before, and nothing more: the last answer says so (RFC 9112 §9.3.2)."""
        self._refused = True
        self._stop_head_timer()
        self.cycle.keep_alive = False


def _origin_form(url: bytes) -> str:
    """Return path and query of a request's target, which may be an absolute URL (RFC 9112 §3.2.2)."""
    try:
        target = httptools.parse_url(url)
    except httptools.HttpParserInvalidURLError:  # `*`, and a CONNECT's
        return url.decode("latin-1")
    path = target.path or b"/"
    return (path if target.query is None else b"%b?%b" % (path, target.query)).decode("latin-1")


class HttpProtocols:
    """Makes the protocol of each HTTP connection. `requests` are those under way."""

    def __init__(self, app: ASGIApp, upgrades: UpgradeHandler) -> None:
        # uvicorn warns of every malformed request, and untrusted clients do not choose what is in our log.
        logging.getLogger("uvicorn.error").setLevel(logging.ERROR)
        self._config = Config(
            app,
            ws=asyncio.Protocol,  # any: upgrades are recognised, and end in `_upgrade`
            lifespan="off",
            log_config=None,
            access_log=False,
            proxy_headers=False,
        )
        self._config.load()
        self._state = ServerState()
        self._state.connections = upgrades.context.connections
        self._upgrades = upgrades
        self.requests: set[asyncio.Task[None]] = self._state.tasks

    def __call__(self) -> LimitedHttpProtocol:
        """Make one."""
        return LimitedHttpProtocol(self._config, self._state, self._upgrades)
