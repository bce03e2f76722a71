"""The asyncio protocol of one WebSocket.

uvicorn makes one per upgrade request. RFC 6455 is the `websockets` sans-IO core's work; the ASGI application
decides about the handshake; afterwards messages go straight to a handler: no task, queue or coroutine per connection.
What is sent bypasses the sans-IO core: frames are built once and shared (`gateway.delivery.outbound`).
"""

import asyncio
import http
import logging
from collections.abc import Callable, Sequence
from typing import Any, Protocol, cast

import structlog
from uvicorn.server import ServerState
from websockets.datastructures import Headers
from websockets.extensions.permessage_deflate import ServerPerMessageDeflateFactory
from websockets.frames import Frame, Opcode
from websockets.http11 import Request, Response
from websockets.protocol import State
from websockets.server import ServerProtocol
from websockets.typing import Subprotocol

from gateway.ws.handshake import Denial, upgrade_scope
from gateway.ws.keepalive import Keepalive
from services.settings import Settings
from services.wire.codec import CODECS
from services.wire.codes import CloseCode

log = structlog.get_logger(__name__)

# The core logs every frame when debugging; strangers' bytes do not belong into our log.
_core_logger = logging.getLogger("tidings.websocket.core")
_core_logger.disabled = True

_CLOSE_GRACE_S = 5.0  # for the peer to answer a close frame, and for what is queued to leave


_TEXT, _BINARY, _CONT = Opcode.TEXT, Opcode.BINARY, Opcode.CONT


class Handler(Protocol):
    """Who receives a connection's messages. `write` is set by the link and takes whole frames."""

    write: Callable[[bytes], None]

    def on_message(self, data: bytes, binary: bool) -> None:
        """Take one complete message."""

    def on_slow(self) -> None:
        """Decide what becomes of a client with more bytes waiting than allowed: close the link."""

    def on_close(self, code: int, *, by_client: bool) -> None:
        """Learn, once, that the connection is gone; `code` is 1006 where no close frame came."""


def _discard(_data: bytes) -> None:
    """Take what is written to a connection that is closed or closing."""


class WebSocketProtocol(asyncio.Protocol):
    """One connection from its upgrade request to its end; the `link` that a handler writes to and closes."""

    __slots__ = (
        "_app", "_close_timer", "_closing", "_core", "_fragments", "_fragments_binary", "_handler", "_handshake",
        "_handshake_timer", "_keepalive", "_loop", "_response", "_server_state", "_settings", "_state",
        "_transport", "last_received", "write",
    )  # fmt: skip

    def __init__(
        self,
        app: Any,
        server_state: ServerState,
        app_state: dict[str, Any],
        settings: Settings,
        keepalive: Keepalive,
    ) -> None:
        self._app = app
        self._server_state = server_state
        self._state = app_state
        self._settings = settings
        self._keepalive = keepalive
        self._loop = asyncio.get_running_loop()
        self._core = ServerProtocol(
            extensions=_extensions(settings),
            select_subprotocol=select_subprotocol,
            max_size=settings.max_message_bytes,
            logger=_core_logger,
        )
        self._transport: asyncio.Transport = cast(asyncio.Transport, None)  # set by connection_made, first
        self._handler: Handler | None = None
        self._handshake: asyncio.Task[None] | None = None
        self._response: Response | None = None  # the 101, while the application decides
        self._handshake_timer: asyncio.TimerHandle | None = None
        self._close_timer: asyncio.TimerHandle | None = None
        self._closing = False
        self._fragments: list[bytes] | None = None
        self._fragments_binary = False
        self.last_received = self._loop.time()
        self.write: Callable[[bytes], None] = _discard

    # --- what asyncio calls ---

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Start the clock of the handshake."""
        self._transport = cast(asyncio.Transport, transport)
        self._server_state.connections.add(cast(Any, self))
        self._handshake_timer = self._loop.call_later(
            self._settings.handshake_timeout_s, self._on_handshake_late
        )

    def data_received(self, data: bytes) -> None:
        """Feed the sans-IO core and act on what it makes of the bytes."""
        self.last_received = self._loop.time()
        core = self._core
        core.receive_data(data)
        for event in core.events_received():
            if isinstance(event, Frame):
                self._on_frame(event)
            elif isinstance(event, Request):
                self._on_request(event)
        self._send_core_output()

    def eof_received(self) -> bool:
        """Let the core note that the peer will send no more."""
        self._core.receive_eof()
        self._send_core_output()
        return False

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002  # asyncio names it
        """Tell the handler, once."""
        self._server_state.connections.discard(cast(Any, self))
        self._keepalive.discard(self)
        self._set_writer(_discard)
        self._closing = True
        for timer in (self._handshake_timer, self._close_timer):
            if timer is not None:
                timer.cancel()
        if self._handshake is not None:
            self._handshake.cancel()
        handler, self._handler = self._handler, None
        if handler is not None:
            received, sent = self._core.close_rcvd, self._core.close_sent
            by_client = received is not None and (sent is None or bool(self._core.close_rcvd_then_sent))
            handler.on_close(received.code if received else 1006, by_client=by_client)

    def pause_writing(self) -> None:
        """Watch every write from here on: the client reads slower than we write (ADR 0004)."""
        if not self._closing:
            self._set_writer(self._write_watched)

    def resume_writing(self) -> None:
        """Write freely again: the client has caught up."""
        if not self._closing and self._handler is not None:
            self._set_writer(self._transport.write)

    def shutdown(self) -> None:
        """Close at once: uvicorn's last call, for connections that the drain did not reach."""
        if self._handler is None:
            self._transport.close()
        else:
            self.close(CloseCode.DRAIN)

    # --- what the application and the handler call ---

    @property
    def closing(self) -> bool:
        """Whether the connection is closed or about to be."""
        return self._closing

    @property
    def client_address(self) -> str:
        """The peer's address, empty where there is none (a Unix socket)."""
        peer = self._transport.get_extra_info("peername")
        return str(peer[0]) if isinstance(peer, tuple) else ""

    @property
    def deflate(self) -> bool:
        """Whether permessage-deflate was negotiated."""
        return bool(self._core.extensions)

    @property
    def subprotocol(self) -> str | None:
        """The subprotocol agreed on, if the client asked for one we speak."""
        return self._core.subprotocol

    def accept(self, handler: Handler, first: bytes = b"") -> bool:
        """Accept the upgrade and hand the connection to `handler`; `first` leaves in the same write.

        Return False where the client is gone already.
        """
        response, self._response = self._response, None
        if self._closing or response is None:
            return False
        self._stop_handshake_timer()
        self._core.send_response(response)
        self._transport.write(b"".join(self._core.data_to_send()) + first)
        self._handler = handler
        self._set_writer(self._transport.write)
        self._keepalive.add(self)
        return True

    def send_message(self, data: bytes, binary: bool) -> None:
        """Send one message of this connection alone, as the core frames it."""
        if not self._closing:
            (self._core.send_binary if binary else self._core.send_text)(data)
            self.write(b"".join(self._core.data_to_send()))

    def close(self, code: CloseCode, last: bytes = b"") -> None:
        """Start the closing handshake, after sending `last`; end without the peer if it takes too long."""
        if self._closing or self._core.state is not State.OPEN:
            return
        self._closing = True
        self._core.send_close(code.number, code.value.reason)
        self._transport.write(last + b"".join(self._core.data_to_send()))
        self._set_writer(_discard)
        self._close_timer = self._loop.call_later(_CLOSE_GRACE_S, self._transport.abort)

    def abort(self) -> None:
        """End the connection now, with nothing more sent."""
        self._transport.abort()

    # --- the handshake ---

    def _on_request(self, request: Request) -> None:
        response = self._core.accept(request)
        if response.status_code != http.HTTPStatus.SWITCHING_PROTOCOLS:
            self._refuse(response)
            return
        self._response = response
        transport = self._transport
        peer, local = transport.get_extra_info("peername"), transport.get_extra_info("sockname")
        scope = upgrade_scope(
            request,
            self,
            client=(str(peer[0]), int(peer[1])) if isinstance(peer, tuple) else None,
            server=(str(local[0]), int(local[1])) if isinstance(local, tuple) else None,
            secure=transport.get_extra_info("sslcontext") is not None,
            state=self._state,
        )
        self._handshake = self._loop.create_task(self._run_application(scope))

    async def _run_application(self, scope: dict[str, Any]) -> None:
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
            self._handshake = None
        if self._handler is None and not self._closing:
            self._refuse(_denial_response(denial))

    def _refuse(self, response: Response) -> None:
        self._response = None
        self._stop_handshake_timer()
        self._closing = True
        self._core.send_response(response)
        self._transport.write(b"".join(self._core.data_to_send()))
        self._transport.close()

    def _on_handshake_late(self) -> None:
        text = "The handshake took too long.\n"
        if self._response is not None or self._handshake is not None:
            self._refuse(self._core.reject(http.HTTPStatus.REQUEST_TIMEOUT, text))
        else:
            self._transport.abort()

    def _stop_handshake_timer(self) -> None:
        if self._handshake_timer is not None:
            self._handshake_timer.cancel()
            self._handshake_timer = None

    # --- messages ---

    def _on_frame(self, frame: Frame) -> None:
        opcode = frame.opcode
        if opcode is _TEXT or opcode is _BINARY:
            if frame.fin:
                self._on_message(bytes(frame.data), opcode is _BINARY)
            else:
                self._fragments = [bytes(frame.data)]
                self._fragments_binary = opcode is _BINARY
        elif opcode is _CONT and self._fragments is not None:
            self._fragments.append(bytes(frame.data))
            if frame.fin:
                data, self._fragments = b"".join(self._fragments), None
                self._on_message(data, self._fragments_binary)
        # Pings and closes were answered by the core; a pong has done its work by arriving.

    def _on_message(self, data: bytes, binary: bool) -> None:
        if self._closing or self._handler is None:
            return
        if not binary and not data.isascii():
            try:
                data.decode()
            except UnicodeDecodeError:
                self.close(CloseCode.INVALID_DATA)
                return
        self._handler.on_message(data, binary)

    def _send_core_output(self) -> None:
        """Send what the core answered: pongs, close frames, the end of the stream."""
        for chunk in self._core.data_to_send():
            if chunk:
                self._transport.write(chunk)
            elif self._transport.can_write_eof():
                self._transport.write_eof()
        if self._core.close_expected() and self._core.state is not State.CONNECTING:
            self._closing = True
            self._set_writer(_discard)
            if self._core.eof_sent:
                self._transport.close()
            elif self._close_timer is None:
                self._close_timer = self._loop.call_later(_CLOSE_GRACE_S, self._transport.abort)

    # --- writing ---

    def _set_writer(self, write: Callable[[bytes], None]) -> None:
        self.write = write
        if self._handler is not None:
            self._handler.write = write

    def _write_watched(self, data: bytes) -> None:
        """Write while the client is behind; past the limit it is sent away, and nobody else waits for it."""
        transport = self._transport
        waiting = transport.get_write_buffer_size() + len(data)
        if waiting <= self._settings.write_buffer_bytes:
            transport.write(data)
        elif self._handler is not None:
            self._handler.on_slow()


def _extensions(settings: Settings) -> list[ServerPerMessageDeflateFactory] | None:
    if not settings.compression:
        return None
    # Without context takeover a compressed frame is the same for everyone, and a connection keeps no window.
    return [
        ServerPerMessageDeflateFactory(
            server_no_context_takeover=True,
            client_no_context_takeover=True,
            server_max_window_bits=15,
            client_max_window_bits=12,
            compress_settings={"memLevel": 5},
        )
    ]


def select_subprotocol(_core: ServerProtocol, offered: Sequence[Subprotocol]) -> Subprotocol | None:
    """Return the first offered subprotocol that we speak; none is no reason to refuse (JSON is the default)."""
    return next((name for name in offered if name in CODECS), None)


def _denial_response(denial: Denial) -> Response:
    status = http.HTTPStatus(denial.status)
    headers = Headers()
    for name, value in denial.headers:
        headers[name.decode("latin-1")] = value.decode("latin-1")
    headers["Connection"] = "close"
    if "Content-Length" not in headers:
        headers["Content-Length"] = str(len(denial.body))
    return Response(status.value, status.phrase, headers, denial.body)
