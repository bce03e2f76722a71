"""The asyncio protocol of one open WebSocket.

Messages go straight to a handler: no task, queue or coroutine per connection. Frames to many clients are built once and shared
(`gateway.delivery.encoded_message`). Writing is unchecked while the client keeps up, bounded while the transport
buffers, and discarded after the close (ADR 0004).
"""

import asyncio
import os
from collections.abc import Callable
from typing import Any, Protocol

from websockets.protocol import State

from gateway.delivery.fd_table import NO_FD, acquire, direct_generation
from gateway.http.client_address import UNKNOWN
from gateway.limits import Limit, TokenBucket
from gateway.ws.frames import BINARY, PING, PING_FRAME, PONG, TEXT, FrameReader, frame, message_frame
from gateway.ws.tcp import bytes_of
from gateway.ws.timers import Keepalive
from services.settings import Settings
from services.wire.codes import CloseCode

CLOSE_GRACE_S = 5.0  # for the peer to answer a close frame, and for what is queued to leave
# What is parsed in one go: 64 KiB of empty frames would block the loop for many milliseconds.
_SLICE_BYTES = 8192
# After so many bytes at once, others go first: uvloop reads 32 times from one socket before it looks at the next.
_FAIR_BYTES = 65_536
_CLOSE_CODES = {code.number: code for code in CloseCode}


class ServerContext:
    """What all connections of one server share: created once, and referred to by each."""

    def __init__(self, settings: Settings, on_limit: Callable[[Limit], object]) -> None:
        self.settings = settings
        self.on_limit = on_limit
        self.keepalive = Keepalive(settings.heartbeat_interval_ms / 1000, settings.idle_timeout_s)
        self.connections: set[Any] = set()  # open protocols, of every kind: `shutdown` closes one
        self.loop = asyncio.get_running_loop()
        self.now = self.loop.time


class Handler(Protocol):
    """Receives a connection's messages. `write` is set by the protocol and takes complete frames."""

    write: Callable[[bytes], None]

    def on_message(self, data: bytes, binary: bool) -> None:
        """Handle one complete message."""

    def on_slow(self) -> None:
        """Close the connection of a client with more bytes buffered than allowed."""

    def disconnect_frame(self, code: CloseCode) -> bytes:
        """Return the frames to send before the close frame, where the server closes."""

    def on_close(self, code: int, *, by_client: bool) -> None:
        """Release the connection, once; `code` is 1006 where no close frame came."""


def discard(_data: bytes) -> None:
    """Drop what is written to a connection that is not open yet, closing or closed."""


class FrameWriter(asyncio.Protocol):
    """Writes to one client. `write` never blocks and never raises."""

    __slots__ = (
        "_close_timer", "_context", "_handler", "_transport", "_write_limit", "_write_timer", "closing", "fd_ref", "write",
    )  # fmt: skip

    def __init__(self, context: ServerContext, transport: asyncio.Transport, handler: Handler) -> None:
        self._context = context
        self._transport = transport
        self._handler = handler  # until the connection is lost
        self.closing = False  # or closed
        self._close_timer: asyncio.TimerHandle | None = None
        self._write_timer: asyncio.TimerHandle | None = None
        self._write_limit = 0  # set while the transport buffers
        sock = transport.get_extra_info("socket")
        in_clear = sock is not None and transport.get_extra_info("sslcontext") is None
        # The socket, where direct writes are possible.
        self.fd_ref = acquire(sock.fileno()) if in_clear else NO_FD
        self.write: Callable[[bytes], None] = discard
        self._set_writer(self._free_writer)

    @property
    def backlog(self) -> int:
        """Bytes that were written and have not left yet."""
        return self._transport.get_write_buffer_size()

    def write_soon(self, data: bytes) -> None:
        """Write together with whatever else this turn of the loop brings: answers come in bursts."""
        if self.write == self._free_writer:
            direct_generation[self.fd_ref[0]] = 0
            self._transport.write(data)
        else:
            self.write(data)

    def bytes_counted(self) -> tuple[int, int] | None:
        """Return the bytes received and sent, of the TCP connection (`gateway.ws.tcp`)."""
        return bytes_of(self._transport.get_extra_info("socket"))

    @property
    def peer_address(self) -> str:
        """The address of the socket's other end."""
        peer = self._transport.get_extra_info("peername")
        return peer[0] if isinstance(peer, tuple) else UNKNOWN

    def pause_writing(self) -> None:
        """Check every write from here on: the client reads slower than we write (ADR 0004).

        The limit counts from what is buffered now: one large answer (a recovery) may exceed it by itself, and a client
        that is still reading it is not slow.
        """
        if not self.closing:
            settings = self._context.settings
            self._write_limit = self._transport.get_write_buffer_size() + settings.write_buffer_bytes
            self._set_writer(self._write_checked)
            if self._write_timer is None and settings.write_timeout_s:
                self._write_timer = self._context.loop.call_later(
                    settings.write_timeout_s, self._on_write_late
                )

    def resume_writing(self) -> None:
        """Write freely again: the client has caught up."""
        if self._write_timer is not None:
            self._write_timer.cancel()
            self._write_timer = None
        if not self.closing:
            self._set_writer(self._free_writer)

    def _stop_writing(self) -> None:
        """Discard writes (a closed transport raises, and one member must not stop a fan-out); end in time."""
        if not self.closing:
            self.closing = True
            self._set_writer(discard)
            self._close_timer = self._context.loop.call_later(CLOSE_GRACE_S, self._transport.abort)

    def _set_writer(self, write: Callable[[bytes], None]) -> None:
        # The handler has a copy: a fan-out calls it for every member, and a look-up through the protocol each time
        # would cost as much as the rest. Both are set only here.
        direct_generation[self.fd_ref[0]] = 0
        self.write = self._handler.write = write

    @property
    def _free_writer(self) -> Callable[[bytes], None]:
        return self._transport.write if self.fd_ref is NO_FD else self._write_direct

    def _write_direct(self, data: bytes) -> None:
        """Write past the transport while its buffer is empty.

        The descriptor is the transport's own. It is closed after `connection_lost`, which ends our writing first, so
        it never belongs to another connection.
        """
        transport, (descriptor, generation) = self._transport, self.fd_ref
        if not transport.get_write_buffer_size():
            try:
                sent = os.write(descriptor, data)
            except BlockingIOError:
                sent = 0  # the kernel takes no more: from here on the transport watches
            except OSError:
                sent = 0  # the peer is gone: the transport meets the same fault, and reports it
            if sent == len(data):
                direct_generation[descriptor] = generation
                return
            data = data[sent:]
        direct_generation[descriptor] = 0
        transport.write(data)

    def _write_checked(self, data: bytes) -> None:
        """Write while the client is behind; past the limit it is disconnected, and no other client waits for it."""
        transport = self._transport
        waiting = transport.get_write_buffer_size() + len(data)
        if waiting <= self._write_limit:
            transport.write(data)
        else:
            self._context.on_limit(Limit.WRITE_BYTES)
            self._handler.on_slow()

    def _on_write_late(self) -> None:
        """Disconnect a client that has been behind for too long, however little it is behind."""
        self._write_timer = None
        if not self.closing:
            self._context.on_limit(Limit.WRITE_TIME)
            self._handler.on_slow()


class WebSocketProtocol(FrameWriter):
    """One open connection: reads frames, pings, and closes. `accept` of a pending upgrade creates it."""

    __slots__ = ("_frame_bucket", "_reader", "last_received")

    def __init__(
        self, context: ServerContext, transport: asyncio.Transport, handler: Handler, reader: FrameReader
    ) -> None:
        super().__init__(context, transport, handler)
        self._reader = reader
        self._frame_bucket: TokenBucket | None = None  # until a frame is no complete message
        self.last_received = context.now()
        context.connections.add(self)
        context.keepalive.add(self)

    # --- what asyncio calls ---

    def data_received(self, data: bytes) -> None:
        """Handle the frames in `data`, in their order."""
        self.last_received = self._context.now()
        if len(data) > _SLICE_BYTES:
            self._receive_slices(data)
            return
        reader = self._reader
        for kind, payload in reader.feed(data):
            if kind in (TEXT, BINARY):
                if not self.closing:
                    self._handler.on_message(payload, kind == BINARY)
            elif self._is_flooding():
                reader.rest = b""
                break
            elif kind == PING:
                self.write(frame(PONG, payload))
        if reader.rest:
            rest, reader.rest = reader.rest, b""
            self.data_received(rest)
        elif reader.parser is not None and reader.parser.state is not State.OPEN:
            self._finish_close()  # a close came, or the client broke the protocol

    def _receive_slices(self, data: bytes) -> None:
        for at in range(0, len(data), _SLICE_BYTES):
            self.data_received(data[at : at + _SLICE_BYTES])
            if not self._transport.is_reading() and self.closing:
                return  # a flood is not read to the end
        if len(data) >= _FAIR_BYTES and self._transport.is_reading():
            self._transport.pause_reading()
            self._context.loop.call_soon(self._read_on)

    def _read_on(self) -> None:
        if not self.closing and not self._transport.is_closing():
            self._transport.resume_reading()

    def eof_received(self) -> bool:
        """Note that the peer will send no more; asyncio closes the transport."""
        self._reader.receive_eof()
        self._finish_close()
        return False

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002  # asyncio names it
        """Notify the handler, once."""
        context = self._context
        context.connections.discard(self)
        context.keepalive.discard(self)
        self._stop_writing()
        for timer in (self._close_timer, self._write_timer):
            if timer is not None:
                timer.cancel()
        code, by_client = self._reader.close_code()
        self._handler.on_close(code, by_client=by_client)
        del self._handler  # nothing calls it any more, and two objects that refer to each other live on

    def shutdown(self) -> None:
        """Close: the server stops, and its drain did not reach this connection."""
        self.close(CloseCode.DRAIN)

    # --- what the handler calls ---

    def send_message(self, data: bytes, binary: bool) -> None:
        """Send one message of this connection alone."""
        self.write(message_frame(data, binary=binary, deflate=self._reader.deflate))

    def ping(self) -> None:
        """Ping the client. A parser that has nothing to remember is freed."""
        self._reader.drop_idle_parser()
        self.write(PING_FRAME)

    def close(self, code: CloseCode, last: bytes | None = None) -> None:
        """Start the closing handshake, after `last` or else the handler's disconnect frame.

        The connection ends without the peer if that takes too long.
        """
        if self.closing or (closing := self._reader.start_close(code)) is None:
            return
        if last is None:
            last = self._handler.disconnect_frame(code)
        self._transport.write(last + closing)
        self._stop_writing()
        if code is CloseCode.FLOODING:
            self._transport.pause_reading()  # its answer to the close would stand behind all the rest
        elif code is CloseCode.IDLE_TIMEOUT:
            self._context.on_limit(Limit.IDLE)

    def abort(self) -> None:
        """End the connection now, without sending more."""
        self._stop_writing()
        self._transport.abort()

    def _is_flooding(self) -> bool:
        """Count a frame that is no complete message; close, and return True, where there are too many.

        Rates of messages do not count it, and it costs us as much as a message.
        """
        now = self._context.now()
        if self._frame_bucket is None:
            self._frame_bucket = TokenBucket(self._context.settings.frame_rate, now)
        if not self._frame_bucket.consume(now):
            return False
        if not self.closing:
            self._context.on_limit(Limit.FRAME_RATE)
            self.close(CloseCode.FLOODING)
        return True

    def _finish_close(self) -> None:
        """Send the parser's last words where it is done with the connection, and make sure that it ends."""
        transport, parser = self._transport, self._reader.parser
        if parser is None:
            return
        if not self.closing and (closed := parser.close_sent) is not None:  # later faults do not count
            if closed.code == CloseCode.TOO_BIG.number:
                self._context.on_limit(Limit.MESSAGE_BYTES)
            if not parser.close_rcvd:
                # The client broke the protocol. A closing handshake that it began needs no explanation.
                transport.write(self._handler.disconnect_frame(_CLOSE_CODES[closed.code]))
        self._stop_writing()
        answers, self._reader.last_words = self._reader.last_words, []
        for answer in answers:
            if answer:
                transport.write(answer)
            elif transport.can_write_eof():
                transport.write_eof()
        # After a failure the client may still be sending: closing at once would reset the connection, and our
        # close frame could be lost with it. So what arrives is read and discarded until it closes or time is up.
        lingers = parser.state is State.CLOSING and not parser.close_rcvd and transport.can_write_eof()
        if parser.eof_sent and not lingers:
            transport.close()
