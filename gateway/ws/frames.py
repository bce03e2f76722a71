"""WebSocket frames: complete ones parsed directly, all others by the `websockets` sans-IO parser, and frames to send.

Nearly all frames that clients send are complete, masked and not a close, and the library spends most of a small message's time
on the other cases. Whatever else stands in the bytes (fragments, a close, reserved bits, a frame cut in two) goes to the
library's parser, which exists only while it has something to remember.

Three rules are added to the library: a text message is rejected at the first byte that is not UTF-8 and not at its end
(RFC 6455 §8.1), a length stands in its shortest form (§5.2), and a close may come between the fragments of a message (§5.4).
"""

import logging
import zlib
from codecs import utf_8_decode

from websockets.exceptions import ProtocolError
from websockets.frames import Frame, Opcode
from websockets.protocol import State
from websockets.server import ServerProtocol

try:
    from websockets.speedups import apply_mask as apply_mask
except ImportError:  # a platform without the compiled part
    from websockets.utils import apply_mask as apply_mask

from services.wire.codes import CloseCode

# The library logs every frame when debugging; bytes of untrusted clients do not belong in our log.
SILENT = logging.getLogger("tidings.websocket.parser")
SILENT.disabled = True

# FIN and the opcode (RFC 6455 §5.2)
TEXT = 0x81
BINARY = 0x82
PING = 0x89
PONG = 0x8A
PARTIAL = 0  # an event only: a frame that is no complete message and asks for no answer

_RSV1 = 0x40  # "this message is compressed" (RFC 7692 §6)
_RESERVED = 0x70
_MASKED = 0x80
_SHORTEST = 6  # two bytes and the mask
_LONGEST_HEAD = 14  # two bytes, a length of eight, the mask

PING_FRAME = b"\x89\x00"

# Below this size deflate saves little, above it takes long; RFC 7692 §6 lets each message choose.
MIN_COMPRESSED_BYTES = 512
MAX_COMPRESSED_BYTES = 262_144

Event = tuple[int, bytes]  # TEXT, BINARY, PING, PONG or PARTIAL, and the payload


def frame(first_byte: int, payload: bytes) -> bytes:
    """Return an unfragmented, unmasked WebSocket frame (RFC 6455 §5.2)."""
    size = len(payload)
    if size < 126:
        return bytes((first_byte, size)) + payload
    if size < 65_536:
        return bytes((first_byte, 126)) + size.to_bytes(2, "big") + payload
    return bytes((first_byte, 127)) + size.to_bytes(8, "big") + payload


def message_frame(payload: bytes, *, binary: bool, deflate: bool) -> bytes:
    """Return the frame of one complete message, compressed where `deflate` was negotiated and is worth it.

    Without context takeover (RFC 7692 §7.2.1), so that all clients can share the frame.
    """
    first_byte = BINARY if binary else TEXT
    if not deflate or not MIN_COMPRESSED_BYTES <= len(payload) <= MAX_COMPRESSED_BYTES:
        return frame(first_byte, payload)
    compressor = zlib.compressobj(level=1, wbits=-15)
    data = compressor.compress(payload) + compressor.flush(zlib.Z_SYNC_FLUSH)
    return frame(first_byte | _RSV1, data[:-4])


class FrameReader:
    """Turns the bytes of one connection into events."""

    __slots__ = ("_fragments", "_fragments_kind", "_max_bytes", "last_words", "parser", "rest")

    def __init__(self, max_bytes: int, parser: "FallbackParser | None" = None) -> None:
        self.parser = parser  # created on demand, dropped by `drop_idle_parser`
        self.rest = b""  # behind the events of the last `feed`, to be fed when they have been handled
        self.last_words: list[bytes] = []  # of a parser that is closing; empty bytes end the stream
        self._max_bytes = max_bytes
        self._fragments: bytearray | None = None
        self._fragments_kind = TEXT

    @property
    def deflate(self) -> bool:
        """Whether permessage-deflate was negotiated."""
        return self.parser is not None and bool(self.parser.extensions)

    def feed(self, data: bytes) -> list[Event]:
        """Return the events of `data`, up to the first frame that is not complete and ordinary; keep the `rest`."""
        parser = self.parser
        if parser is not None and not parser.is_idle:
            return self._feed_parser(parser, data)
        events: list[Event] = []
        at, end, max_bytes = 0, len(data), self._max_bytes
        while end - at >= _SHORTEST:
            first, length = data[at], data[at + 1]
            if first not in (TEXT, BINARY, PONG, PING) or not length & _MASKED:
                break
            length &= ~_MASKED
            mask = at + 2
            if length >= 126:
                if length == 127 or first >= PING:
                    break  # over 65,535 bytes, or a control frame that is too long
                mask = at + 4
                length = data[at + 2] << 8 | data[at + 3]
                if length < 126:
                    break  # not the shortest form: the parser decides
            start = mask + 4
            if length > max_bytes or start + length > end:
                break
            payload = apply_mask(data[start : start + length], data[mask:start])
            if first == TEXT and not payload.isascii():
                try:
                    payload.decode()
                except UnicodeDecodeError:
                    break  # the parser says so, and closes
            events.append((first, payload))
            at = start + length
        if at < end:
            if events:
                self.rest = data[at:]
            else:
                return self._feed_parser(self._with_parser(), data)
        return events

    def drop_idle_parser(self) -> None:
        """Free the parser if it has nothing to remember."""
        if self.parser is not None and self.parser.is_idle:
            self.parser = None

    def start_close(self, code: CloseCode) -> bytes | None:
        """Return the close frame; None where the connection is closing already."""
        parser = self._with_parser()
        if parser.state is not State.OPEN:
            return None
        parser.send_close(code.number, code.value.reason)
        return b"".join(parser.data_to_send())

    def receive_eof(self) -> None:
        """Note that the client will send no more."""
        parser = self._with_parser()
        parser.receive_eof()
        self.last_words = parser.data_to_send()

    def close_code(self) -> tuple[int, bool]:
        """Return the code of the client's close frame, 1006 where none came; and whether the client closed first."""
        parser = self.parser
        if parser is None or parser.close_rcvd is None:
            return 1006, False
        return parser.close_rcvd.code, parser.close_sent is None or bool(parser.close_rcvd_then_sent)

    def _with_parser(self) -> "FallbackParser":
        if self.parser is None:
            self.parser = FallbackParser(self._max_bytes)
        return self.parser

    def _feed_parser(self, parser: "FallbackParser", data: bytes) -> list[Event]:
        parser.receive_data(data)
        # Pongs are sent by the connection, in the order of its events.
        self.last_words = [answer for answer in parser.data_to_send() if answer[:1] != b"\x8a"]
        events: list[Event] = []
        for event in parser.events_received():
            if not isinstance(event, Frame):
                continue
            opcode, kind = event.opcode, TEXT if event.opcode is Opcode.TEXT else BINARY
            if opcode is Opcode.PING:
                events.append((PING, bytes(event.data)))
            elif opcode is Opcode.TEXT or opcode is Opcode.BINARY:
                if event.fin:
                    events.append((kind, bytes(event.data)))
                else:
                    events.append((PARTIAL, b""))
                    self._fragments, self._fragments_kind = bytearray(event.data), kind
            else:
                # A close was answered by the parser; a pong has done its work by arriving.
                events.append((PARTIAL, b""))
                if opcode is Opcode.CONT and self._fragments is not None:
                    # One buffer: a list would keep some fifty bytes more for every fragment of one byte.
                    self._fragments += event.data
                    if event.fin:
                        events.append((self._fragments_kind, bytes(self._fragments)))
                        self._fragments = None
        return events


class FallbackParser(ServerProtocol):
    """The `websockets` sans-IO parser of one connection."""

    def __init__(self, max_bytes: int) -> None:
        super().__init__(state=State.OPEN, max_size=max_bytes, logger=SILENT)
        self._head = b""  # the first bytes of the incomplete frame, its head among them
        self._cut: bytes | None = None  # the incomplete character at the end of an incomplete text message
        self._checked = 0  # bytes of the frame's payload

    def receive_data(self, data: bytes | bytearray) -> None:
        """See ServerProtocol."""
        self._collect_head(data)
        super().receive_data(data)
        if self._head and self.state is State.OPEN and not self.extensions:
            try:
                self._check_ahead()
            except UnicodeDecodeError as fault:
                self.fail(CloseCode.INVALID_DATA.number, fault.reason)

    def recv_frame(self, frame: Frame) -> None:
        """See ServerProtocol: a complete frame arrived, and its extensions are undone.

        Raises:
            ProtocolError, UnicodeDecodeError: the library fails the connection with 1002 or 1007.
        """
        length = self._head[1] & 0x7F
        if (length == 126 and int.from_bytes(self._head[2:4], "big") < 126) or (
            length == 127 and int.from_bytes(self._head[2:10], "big") < 65_536
        ):
            raise ProtocolError("a length is not in its shortest form")
        self._head = b""
        self._collect_head(self.reader.buffer)
        if self.state is State.OPEN and self._is_text(frame.opcode):
            data = frame.data[self._checked :] if self._checked else frame.data
            self._check(bytes(data), frame.fin)
            self._checked = 0
        if frame.opcode is Opcode.CLOSE:
            self.current_size = None  # the library would call the rest of the message missing
        super().recv_frame(frame)

    @property
    def is_idle(self) -> bool:
        """Whether the next byte starts a frame and a message, without extensions."""
        if self._head or self.extensions:
            return False
        return self.current_size is None and self.state is State.OPEN

    def _collect_head(self, data: bytes | bytearray) -> None:
        if (missing := _LONGEST_HEAD - len(self._head)) > 0:
            self._head += bytes(data[:missing])

    def _check_ahead(self) -> None:
        """Check what has arrived of an incomplete frame of a text message.

        Raises:
            UnicodeDecodeError: it is not UTF-8, whatever follows.
        """
        head = self._head
        if head[0] & _RESERVED or len(head) < 2:
            return
        length = head[1] & 0x7F
        payload = 6 + (2 if length == 126 else 8 if length == 127 else 0)
        if len(head) >= payload and self._is_text(head[0] & 0x0F):
            # The library has read the head: what it waits with is the payload.
            arrived = self.reader.buffer[self._checked :]
            shift = self._checked % 4
            mask = head[payload - 4 : payload]
            self._check(apply_mask(arrived, mask[shift:] + mask[:shift]), final=False)
            self._checked += len(arrived)

    def _is_text(self, opcode: int) -> bool:
        """Whether a frame belongs to a text message, which the first one starts."""
        if opcode == Opcode.TEXT and self.current_size is None:
            self._cut = self._cut or b""
            return True
        return opcode == Opcode.CONT and self._cut is not None

    def _check(self, text: bytes, final: bool) -> None:
        if self._cut or not text.isascii():
            text = (self._cut or b"") + text
            _, complete = utf_8_decode(text, "strict", final)
            self._cut = text[complete:]
        if final:
            self._cut = None
