"""The asyncio protocol of one WebSocket.

uvicorn makes one per upgrade request. RFC 6455 is the `websockets` sans-IO core's work; the ASGI application
decides about the handshake; afterwards messages go straight to a handler: no task, queue or coroutine per connection.
What is sent bypasses the sans-IO core: frames are built once and shared (`gateway.delivery.outbound`).
"""

import asyncio
import http
import logging
import os
from collections.abc import Callable
from typing import Any, Protocol, cast

import structlog
from uvicorn.server import ServerState
from websockets.frames import Frame, Opcode
from websockets.http11 import Request, Response
from websockets.protocol import State
from websockets.server import ServerProtocol

from gateway.delivery.outbound import message_frame
from gateway.session.limits import Limit, TokenBucket
from gateway.ws.keepalive import Keepalive
from gateway.ws.negotiation import extensions, select_subprotocol
from gateway.ws.upgrade import Upgrade
from gateway.ws.whole import whole_messages
from services.settings import Settings
from services.wire.codes import CloseCode

log = structlog.get_logger(__name__)

# The core logs every frame when debugging; strangers' bytes do not belong into our log.
_core_logger = logging.getLogger("tidings.websocket.core")
_core_logger.disabled = True

_CLOSE_GRACE_S = 5.0  # for the peer to answer a close frame, and for what is queued to leave

_TEXT, _BINARY, _CONT, _PING = Opcode.TEXT, Opcode.BINARY, Opcode.CONT, Opcode.PING
_MESSAGES = (_TEXT, _BINARY)
# What is parsed in one go: 64 KiB of empty frames would hold everybody up for many milliseconds.
_SLICE_BYTES = 8192
_CLOSE_CODES = {code.number: code for code in CloseCode}


class Handler(Protocol):
    """Who receives a connection's messages. `write` is set by the link and takes whole frames."""

    write: Callable[[bytes], None]

    def on_message(self, data: bytes, binary: bool) -> None:
        """Take one complete message."""

    def on_slow(self) -> None:
        """Decide what becomes of a client with more bytes waiting than allowed: close the link."""

    def farewell(self, code: CloseCode) -> bytes:
        """Return the frames to send before the close frame, where the server closes."""

    def on_close(self, code: int, *, by_client: bool) -> None:
        """Learn, once, that the connection is gone; `code` is 1006 where no close frame came."""


def _discard(_data: bytes) -> None:
    """Take what is written to a connection that is closed or closing."""


class WebSocketProtocol(asyncio.Protocol):
    """One connection from its upgrade request to its end; the `link` that a handler writes to and closes."""

    __slots__ = (
        "_close_timer", "_closing", "_core", "_fd", "_fragments", "_fragments_binary", "_frames", "_handler",
        "_keepalive", "_loop", "_on_limit", "_server_state", "_settings", "_transport", "_upgrade", "_write_limit",
        "_write_timer", "last_received", "write",
    )  # fmt: skip

    def __init__(
        self,
        app: Any,
        server_state: ServerState,
        app_state: dict[str, Any],
        settings: Settings,
        keepalive: Keepalive,
        on_limit: Callable[[Limit], object],
    ) -> None:
        self._on_limit = on_limit
        self._server_state = server_state
        self._upgrade: Upgrade | None = Upgrade(app, app_state, self._refuse)
        self._settings = settings
        self._keepalive = keepalive
        self._loop = asyncio.get_running_loop()
        self._core = ServerProtocol(
            extensions=extensions(settings),
            select_subprotocol=select_subprotocol,
            max_size=settings.max_message_bytes,
            logger=_core_logger,
        )
        self._transport: asyncio.Transport = cast(asyncio.Transport, None)  # set by connection_made, first
        self._fd = -1  # the socket's, where it may be written to beside the transport
        self._handler: Handler | None = None
        self._close_timer: asyncio.TimerHandle | None = None
        self._closing = False
        self._fragments: bytearray | None = None
        self._fragments_binary = False
        self._frames: TokenBucket | None = None  # made with the first frame that is no whole message
        self._write_timer: asyncio.TimerHandle | None = None
        self._write_limit = settings.write_buffer_bytes
        self.last_received = self._loop.time()
        self.write: Callable[[bytes], None] = _discard

    # --- what asyncio calls ---

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Start the clock of the handshake."""
        self._transport = cast(asyncio.Transport, transport)
        self._server_state.connections.add(cast(Any, self))
        if self._upgrade is not None:
            self._upgrade.start_clock(self._settings.handshake_timeout_s, self._on_handshake_late)

    def data_received(self, data: bytes) -> None:
        """Feed the sans-IO core and act on what it makes of the bytes, in their order."""
        self.last_received = self._loop.time()
        if len(data) <= _SLICE_BYTES:
            self._feed(data)
            return
        for at in range(0, len(data), _SLICE_BYTES):
            self._feed(data[at : at + _SLICE_BYTES])
            if not self._transport.is_reading() and self._closing:
                return  # whoever floods is not read to the end

    def _feed(self, data: bytes) -> None:
        core = self._core
        if self._between_frames():
            messages, rest = whole_messages(data, self._settings.max_message_bytes)
            for payload, binary in messages:
                if not self._on_message(payload, binary):
                    return
            if rest == len(data):
                return
            data = data[rest:]
        core.receive_data(data)
        answers = core.data_to_send()
        for event in core.events_received():
            if isinstance(event, Frame):
                flooding = (not event.fin or event.opcode not in _MESSAGES) and self._is_flooding()
                if not flooding and event.opcode is _PING:
                    # Its pong; what closes the connection stands after all of them.
                    self.write(answers.pop(0))
                elif flooding or not self._on_frame(event):
                    if self._closing:
                        return
                    break  # the core has closed already, over what stands later in these bytes
            elif isinstance(event, Request):
                self._on_request(event)
        if core.state is not State.OPEN:
            self._follow_core(answers)

    def _between_frames(self) -> bool:
        """Whether the next byte begins a frame of its own, and no extension has a say in it."""
        core = self._core
        return (
            core.state is State.OPEN
            and core.current_size is None
            and not core.reader.buffer
            and not core.extensions
            and not self._closing
        )

    def eof_received(self) -> bool:
        """Let the core note that the peer will send no more; asyncio closes the transport."""
        self._core.receive_eof()
        self._follow_core(self._core.data_to_send())
        return False

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002  # asyncio names it
        """Tell the handler, once."""
        self._server_state.connections.discard(cast(Any, self))
        self._keepalive.discard(self)
        self._stop_writing()
        for timer in (self._close_timer, self._write_timer):
            if timer is not None:
                timer.cancel()
        if self._upgrade is not None:
            self._upgrade.cancel()
        handler, self._handler = self._handler, None
        if handler is not None:
            received, sent = self._core.close_rcvd, self._core.close_sent
            by_client = received is not None and (sent is None or bool(self._core.close_rcvd_then_sent))
            handler.on_close(received.code if received else 1006, by_client=by_client)

    def pause_writing(self) -> None:
        """Watch every write from here on: the client reads slower than we write (ADR 0004).

        The limit counts from what waits now: one large answer (a recovery) may exceed it by itself, and a client
        that is still reading it is not slow.
        """
        if not self._closing:
            self._write_limit = self._transport.get_write_buffer_size() + self._settings.write_buffer_bytes
            self._set_writer(self._write_watched)
            if self._write_timer is None and self._settings.write_timeout_s:
                self._write_timer = self._loop.call_later(self._settings.write_timeout_s, self._on_write_late)

    def resume_writing(self) -> None:
        """Write freely again: the client has caught up."""
        if self._write_timer is not None:
            self._write_timer.cancel()
            self._write_timer = None
        if not self._closing and self._handler is not None:
            self._set_writer(self._free_writer)

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
        response = self._upgrade.take_response() if self._upgrade is not None else None
        if self._closing or response is None:
            return False
        self._upgrade = None
        self._core.send_response(response)
        self._transport.write(b"".join(self._core.data_to_send()) + first)
        self._handler = handler
        sock = self._transport.get_extra_info("socket")
        if sock is not None and self._transport.get_extra_info("sslcontext") is None:
            self._fd = sock.fileno()
        self._set_writer(self._free_writer)
        self._keepalive.add(self)
        self._transport.resume_reading()
        return True

    def write_soon(self, data: bytes) -> None:
        """Write together with whatever else this turn of the loop brings: answers come in bursts."""
        if self.write == self._free_writer:
            self._transport.write(data)
        else:
            self.write(data)

    def send_message(self, data: bytes, binary: bool) -> None:
        """Send one message of this connection alone."""
        self.write(message_frame(data, binary=binary, deflate=self.deflate))

    def close(self, code: CloseCode, last: bytes | None = None) -> None:
        """Start the closing handshake, after `last` or else the handler's farewell.

        The connection ends without the peer if that takes too long.
        """
        if self._closing or self._core.state is not State.OPEN:
            return
        if last is None:
            last = self._handler.farewell(code) if self._handler is not None else b""
        self._core.send_close(code.number, code.value.reason)
        self._transport.write(last + b"".join(self._core.data_to_send()))
        self._stop_writing()
        if code is CloseCode.FLOODING:
            self._transport.pause_reading()  # its answer to the close would stand behind all the rest
        elif code is CloseCode.IDLE_TIMEOUT:
            self._on_limit(Limit.IDLE)

    def abort(self) -> None:
        """End the connection now, with nothing more sent."""
        self._stop_writing()
        self._transport.abort()

    # --- the handshake ---

    def _on_request(self, request: Request) -> None:
        response = self._core.accept(request)
        if response.status_code != http.HTTPStatus.SWITCHING_PROTOCOLS or self._upgrade is None:
            self._refuse(response)
            return
        # A client must wait for the answer (RFC 6455 §4.1). What one sends before that waits in the kernel.
        self._transport.pause_reading()
        self._upgrade.decide(request, response, self, self._transport)

    def _refuse(self, response: Response) -> None:
        if self._closing:
            return
        if self._upgrade is not None:
            self._upgrade.take_response()
        self._core.send_response(response)
        self._transport.write(b"".join(self._core.data_to_send()))
        self._stop_writing()
        self._transport.close()

    def _on_handshake_late(self) -> None:
        self._on_limit(Limit.HANDSHAKE_TIME)
        if self._upgrade is not None and self._upgrade.is_deciding:
            text = "The handshake took too long.\n"
            self._refuse(self._core.reject(http.HTTPStatus.REQUEST_TIMEOUT, text))
        else:
            self._transport.abort()

    # --- messages ---

    def _on_frame(self, frame: Frame) -> bool:
        """Take a frame; False where it ends the connection, and nothing after it counts."""
        opcode = frame.opcode
        if opcode is _TEXT or opcode is _BINARY:
            if frame.fin:
                return self._on_message(bytes(frame.data), opcode is _BINARY)
            else:
                self._fragments = bytearray(frame.data)
                self._fragments_binary = opcode is _BINARY
        elif opcode is _CONT and self._fragments is not None:
            # One buffer: a list would keep some fifty bytes more for every fragment of one byte.
            self._fragments += frame.data
            if frame.fin:
                data, self._fragments = bytes(self._fragments), None
                return self._on_message(data, self._fragments_binary)
        # Closes were answered by the core; a pong has done its work by arriving.
        return True

    def _is_flooding(self) -> bool:
        """Count a frame that is no whole message; close, and return True, where there are too many.

        What limits messages does not see them, and each costs us as much as a message.
        """
        now = self._loop.time()
        if self._frames is None:
            self._frames = TokenBucket(self._settings.frame_rate, now)
        if not self._frames.take(now):
            return False
        if not self._closing:
            self._on_limit(Limit.FRAME_RATE)
            self.close(CloseCode.FLOODING)
        return True

    def _on_message(self, data: bytes, binary: bool) -> bool:
        if self._closing or self._handler is None:
            return True
        if not binary and not data.isascii():
            try:
                data.decode()
            except UnicodeDecodeError:
                if self._core.state is State.OPEN:
                    self._core.fail(CloseCode.INVALID_DATA.number, "a text message is not UTF-8")
                    self._follow_core(self._core.data_to_send())
                return False
        self._handler.on_message(data, binary)
        return True

    def _follow_core(self, answers: list[bytes]) -> None:
        """Send the core's last words where it is done with the connection, and see that it ends."""
        core, transport = self._core, self._transport
        if core.state is State.CONNECTING and not core.eof_sent:
            return  # the application is deciding
        if core.close_sent is not None and core.close_sent.code == CloseCode.TOO_BIG.number:
            self._on_limit(Limit.MESSAGE_BYTES)
        if not self._closing and self._handler is not None and core.close_sent and not core.close_rcvd:
            # The client broke the protocol. A closing handshake that it began needs no explanation.
            transport.write(self._handler.farewell(_CLOSE_CODES[core.close_sent.code]))
        self._stop_writing()
        for answer in answers:
            if answer:
                transport.write(answer)
            elif transport.can_write_eof():
                transport.write_eof()
        # After a failure the client may still be sending: closing at once would reset the connection, and our
        # close frame could be lost with it. So what comes is read and discarded until it closes or time is up.
        lingers = core.state is State.CLOSING and not core.close_rcvd and transport.can_write_eof()
        if core.eof_sent and not lingers:
            transport.close()

    # --- writing ---

    def _set_writer(self, write: Callable[[bytes], None]) -> None:
        self.write = write
        if self._handler is not None:
            self._handler.write = write

    def _stop_writing(self) -> None:
        """Write nothing more (a closed transport raises, and one member must not stop a fan-out); end in time."""
        self._closing = True
        self._set_writer(_discard)
        if self._close_timer is None:
            self._close_timer = self._loop.call_later(_CLOSE_GRACE_S, self._transport.abort)

    @property
    def _free_writer(self) -> Callable[[bytes], None]:
        return self._transport.write if self._fd < 0 else self._write_direct

    def _write_direct(self, data: bytes) -> None:
        """Write past the transport while it holds nothing back: a tenth less time per member of a large room.

        The descriptor is the transport's own. It is closed after `connection_lost`, which ends our writing first, so
        it can never belong to somebody else.
        """
        transport = self._transport
        if not transport.get_write_buffer_size():
            try:
                sent = os.write(self._fd, data)
            except BlockingIOError:
                sent = 0  # the kernel takes no more: from here on the transport watches
            except OSError:
                sent = 0  # the peer is gone: the transport meets the same fault, and reports it
            if sent == len(data):
                return
            data = data[sent:]
        transport.write(data)

    def _write_watched(self, data: bytes) -> None:
        """Write while the client is behind; past the limit it is sent away, and nobody else waits for it."""
        transport = self._transport
        waiting = transport.get_write_buffer_size() + len(data)
        if waiting <= self._write_limit:
            transport.write(data)
        elif self._handler is not None:
            self._on_limit(Limit.WRITE_BYTES)
            self._handler.on_slow()

    def _on_write_late(self) -> None:
        """Send a client away that has been behind for too long, however little it is behind."""
        self._write_timer = None
        if not self._closing and self._handler is not None:
            self._on_limit(Limit.WRITE_TIME)
            self._handler.on_slow()
