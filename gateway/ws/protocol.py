"""The asyncio protocol of one WebSocket, from its upgrade request to its end.

RFC 6455 is the `websockets` sans-IO core's work, but for the ordinary cases (`gateway.ws.frames`): a core exists only while
there is something for it to remember. Messages go straight to a handler: no task, queue or coroutine per connection. What is
sent bypasses the core: frames are built once and shared (`gateway.delivery.encoded_message`).
"""

import asyncio
from collections.abc import Iterable

from websockets.frames import Frame, Opcode
from websockets.protocol import State

from gateway.delivery.encoded_message import PING_FRAME, frame, message_frame
from gateway.limits import Limit, TokenBucket
from gateway.ws.context import ServerContext
from gateway.ws.fallback import FallbackParser
from gateway.ws.frames import BINARY, PING, TEXT, parse_complete_frames
from gateway.ws.handshake import Accepted, Rejected, http_answer, negotiate
from gateway.ws.request import UpgradeRequest
from gateway.ws.writer import FrameWriter, Handler
from services.tasks import start_eagerly
from services.wire.codes import CloseCode

_TEXT, _BINARY, _CONT, _PING = Opcode.TEXT, Opcode.BINARY, Opcode.CONT, Opcode.PING
_MESSAGES = (_TEXT, _BINARY)
_PONG_FIRST = 0x8A
# What is parsed in one go: 64 KiB of empty frames would hold everybody up for many milliseconds.
_SLICE_BYTES = 8192
# After so many bytes at once, others go first: uvloop reads 32 times from one socket before it looks at the next.
_TURN_BYTES = 65_536
_CLOSE_CODES = {code.number: code for code in CloseCode}


class WebSocketProtocol(FrameWriter):
    """One connection; the `link` that a handler writes to and closes."""

    __slots__ = (
        "_core", "_deciding", "_fragments", "_fragments_binary", "_frames", "_handshake", "_waits", "last_received",
    )  # fmt: skip

    def __init__(self, context: ServerContext, transport: asyncio.Transport) -> None:
        super().__init__(context, transport)
        self._handshake: Accepted | None = None  # what will be answered, until it is
        self._deciding: asyncio.Task[None] | None = None
        self._waits = False  # for the entrance, reading nothing
        # Made for what is not ordinary, and let go of when nothing of it is left (`rest`).
        self._core: FallbackParser | None = None
        self._fragments: bytearray | None = None
        self._fragments_binary = False
        self._frames: TokenBucket | None = None  # made with the first frame that is no whole message
        self.last_received = context.now()

    # --- the handshake ---

    def begin(self, request: UpgradeRequest) -> None:
        """Take over the transport, and let the entrance decide."""
        context = self._context
        self._transport.set_protocol(self)
        context.connections.add(self)
        accepted = negotiate(request, context.settings)
        if isinstance(accepted, Rejected):
            self._answer_and_close(accepted.answer)
            return
        self._handshake = accepted
        deciding = start_eagerly(context.entrance.decide(self, request))
        if not deciding.done():
            self._deciding = deciding
        if self._handshake is not None:  # not answered yet
            self._waits = True
            context.handshakes.add(self)
            # A client must wait for the answer (RFC 6455 §4.1). What one sends before that waits in the kernel.
            self._transport.pause_reading()

    def accept(self, handler: Handler, first: bytes = b"") -> bool:
        """Accept the upgrade and hand the connection to `handler`; `first` leaves in the same write.

        Return False where the client is gone already.
        """
        accepted = self._end_handshake()
        if accepted is None:
            return False
        self._deciding = None
        self._core = accepted.core
        self._transport.write(accepted.answer + first)
        self._handler = handler
        self._begin_writing()
        self._context.keepalive.add(self)
        if accepted.early:  # after what the handler does first, and before the loop reads on
            self._context.loop.call_soon(self.data_received, accepted.early)
        return True

    def refuse(self, status: int, headers: Iterable[tuple[bytes, bytes]], body: bytes) -> None:
        """Answer the upgrade with an HTTP response, and close. Who was let in before is told so and sent away."""
        if self._end_handshake() is not None:
            self._answer_and_close(http_answer(status, headers, body))
        elif self._handler is not None:  # a fault came up behind the answer
            self.close(CloseCode.INTERNAL)

    def on_handshake_late(self) -> None:
        """Give up a handshake that the entrance could not decide in time."""
        self._context.on_limit(Limit.HANDSHAKE_TIME)
        self.refuse(408, ((b"content-type", b"text/plain"),), b"The handshake took too long.\n")

    def _end_handshake(self) -> Accepted | None:
        """Return what was agreed on; None where the client is gone, or was answered before."""
        accepted, self._handshake = self._handshake, None
        if self._waits:
            self._waits = False
            self._context.handshakes.discard(self)
            if not self._closing:
                self._transport.resume_reading()
        return None if self._closing else accepted

    def _answer_and_close(self, answer: bytes) -> None:
        self._transport.write(answer)
        self._stop_writing()
        self._transport.close()

    # --- what asyncio calls ---

    def data_received(self, data: bytes) -> None:
        """Act on what the bytes are, in their order."""
        self.last_received = self._context.now()
        if len(data) <= _SLICE_BYTES:
            self._feed(data)
            return
        for at in range(0, len(data), _SLICE_BYTES):
            self._feed(data[at : at + _SLICE_BYTES])
            if not self._transport.is_reading() and self._closing:
                return  # whoever floods is not read to the end
        if len(data) >= _TURN_BYTES and self._transport.is_reading():
            self._transport.pause_reading()
            self._context.loop.call_soon(self._read_on)

    def _read_on(self) -> None:
        if not self._closing and not self._waits and not self._transport.is_closing():
            self._transport.resume_reading()

    def eof_received(self) -> bool:
        """Let the core note that the peer will send no more; asyncio closes the transport."""
        if self._handler is not None:
            core = self._with_core()
            core.receive_eof()
            self._follow(core, core.data_to_send())
        return False

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002  # asyncio names it
        """Tell the handler, once."""
        context = self._context
        context.connections.discard(self)
        context.keepalive.discard(self)
        context.handshakes.discard(self)
        self._stop_writing()
        self._stop_timers()
        if self._deciding is not None:
            self._deciding.cancel()
        handler, self._handler = self._handler, None
        if handler is not None:
            core = self._core
            received, sent = (core.close_rcvd, core.close_sent) if core is not None else (None, None)
            by_client = received is not None and (
                sent is None or (core is not None and bool(core.close_rcvd_then_sent))
            )
            handler.on_close(received.code if received else 1006, by_client=by_client)

    def shutdown(self) -> None:
        """Close at once: uvicorn's last call, for connections that the drain did not reach."""
        if self._handler is None:
            self._transport.close()
        else:
            self.close(CloseCode.DRAIN)

    # --- what the entrance and the handler call ---

    @property
    def client_address(self) -> str:
        """The peer's address, empty where there is none (a Unix socket)."""
        peer = self._transport.get_extra_info("peername")
        return str(peer[0]) if isinstance(peer, tuple) else ""

    @property
    def deflate(self) -> bool:
        """Whether permessage-deflate was negotiated."""
        core = self._handshake.core if self._handshake is not None else self._core
        return core is not None and bool(core.extensions)

    @property
    def subprotocol(self) -> str | None:
        """The subprotocol agreed on, if the client asked for one we speak; known until the upgrade is accepted."""
        return self._handshake.subprotocol if self._handshake is not None else None

    def send_message(self, data: bytes, binary: bool) -> None:
        """Send one message of this connection alone."""
        self.write(message_frame(data, binary=binary, deflate=self.deflate))

    def ping(self) -> None:
        """Ask for a sign of life. A core that has nothing to remember is let go of."""
        if self._core is not None and self._core.is_idle:
            self._core = None
        self.write(PING_FRAME)

    def close(self, code: CloseCode, last: bytes | None = None) -> None:
        """Start the closing handshake, after `last` or else the handler's disconnect_frame.

        The connection ends without the peer if that takes too long.
        """
        if self._closing or self._handler is None:
            return
        core = self._with_core()
        if core.state is not State.OPEN:
            return
        if last is None:
            last = self._handler.disconnect_frame(code)
        core.send_close(code.number, code.value.reason)
        self._transport.write(last + b"".join(core.data_to_send()))
        self._stop_writing()
        if code is CloseCode.FLOODING:
            self._transport.pause_reading()  # its answer to the close would stand behind all the rest
        elif code is CloseCode.IDLE_TIMEOUT:
            self._context.on_limit(Limit.IDLE)

    def abort(self) -> None:
        """End the connection now, with nothing more sent."""
        self._stop_writing()
        self._transport.abort()

    # --- what came ---

    def _feed(self, data: bytes) -> None:
        if self._handler is None:
            return  # the answer was no, and the connection closes
        core = self._core
        if core is None or core.is_idle:
            frames, rest = parse_complete_frames(data, self._context.settings.max_message_bytes)
            for first, payload in frames:
                if first < PING:
                    if first == TEXT and not payload.isascii() and not self._is_utf8(payload):
                        return
                    self._on_message(payload, first == BINARY)
                elif self._is_flooding():
                    return
                elif first == PING:
                    self.write(frame(_PONG_FIRST, payload))
            if rest == len(data):
                return
            data = data[rest:]
            core = self._with_core()
        self._feed_core(core, data)

    def _feed_core(self, core: FallbackParser, data: bytes) -> None:
        core.receive_data(data)
        answers = core.data_to_send()
        for event in core.events_received():
            if not isinstance(event, Frame):
                continue
            if (not event.fin or event.opcode not in _MESSAGES) and self._is_flooding():
                if self._closing:
                    return
                break  # the core has closed already, over what stands later in these bytes
            if event.opcode is _PING:
                # Its pong; what closes the connection stands after all of them.
                self.write(answers.pop(0))
            else:
                self._on_frame(event)
        if core.state is not State.OPEN:
            self._follow(core, answers)

    def _with_core(self) -> FallbackParser:
        if self._core is None:
            self._core = FallbackParser(self._context.settings)
        return self._core

    def _on_frame(self, frame: Frame) -> None:
        opcode = frame.opcode
        if opcode is _TEXT or opcode is _BINARY:
            if frame.fin:
                self._on_message(bytes(frame.data), opcode is _BINARY)
            else:
                self._fragments = bytearray(frame.data)
                self._fragments_binary = opcode is _BINARY
        elif opcode is _CONT and self._fragments is not None:
            # One buffer: a list would keep some fifty bytes more for every fragment of one byte.
            self._fragments += frame.data
            if frame.fin:
                data, self._fragments = bytes(self._fragments), None
                self._on_message(data, self._fragments_binary)
        # Closes were answered by the core; a pong has done its work by arriving.

    def _is_flooding(self) -> bool:
        """Count a frame that is no whole message; close, and return True, where there are too many.

        What limits messages does not see them, and each costs us as much as a message.
        """
        now = self._context.now()
        if self._frames is None:
            self._frames = TokenBucket(self._context.settings.frame_rate, now)
        if not self._frames.take(now):
            return False
        if not self._closing:
            self._context.on_limit(Limit.FRAME_RATE)
            self.close(CloseCode.FLOODING)
        return True

    def _is_utf8(self, text: bytes) -> bool:
        """Whether a text message is what it says; otherwise it is the last one."""
        try:
            text.decode()
        except UnicodeDecodeError as fault:
            core = self._with_core()
            if core.state is State.OPEN:
                core.fail(CloseCode.INVALID_DATA.number, fault.reason)
                self._follow(core, core.data_to_send())
            return False
        return True

    def _on_message(self, data: bytes, binary: bool) -> None:
        if not self._closing and self._handler is not None:
            self._handler.on_message(data, binary)

    def _follow(self, core: FallbackParser, answers: list[bytes]) -> None:
        """Send the core's last words where it is done with the connection, and see that it ends."""
        transport = self._transport
        if (
            not self._closing and (closed := core.close_sent) is not None
        ):  # what comes behind is no further fault
            if closed.code == CloseCode.TOO_BIG.number:
                self._context.on_limit(Limit.MESSAGE_BYTES)
            if self._handler is not None and not core.close_rcvd:
                # The client broke the protocol. A closing handshake that it began needs no explanation.
                transport.write(self._handler.disconnect_frame(_CLOSE_CODES[closed.code]))
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
