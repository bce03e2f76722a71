"""The `websockets` sans-IO core, as one connection uses it, and whether it has anything to remember.

Three rules are added to it: a text message is refused at the first byte that is not UTF-8 and not at its end (RFC 6455 §8.1),
a length stands in its shortest form (§5.2), and a close may come between the fragments of a message (§5.4).
"""

import logging
from codecs import utf_8_decode

from websockets.exceptions import ProtocolError
from websockets.frames import Frame, Opcode
from websockets.protocol import State
from websockets.server import ServerProtocol

from gateway.ws.frames import apply_mask
from services.settings import Settings
from services.wire.codes import CloseCode

# The core logs every frame when debugging; strangers' bytes do not belong into our log.
SILENT = logging.getLogger("tidings.websocket.core")
SILENT.disabled = True

_LONGEST_HEAD = 14  # two bytes, a length of eight, the mask (RFC 6455 §5.2)
_RESERVED = 0x70


class FallbackParser(ServerProtocol):
    """RFC 6455 for one connection."""

    def __init__(self, settings: Settings, state: State = State.OPEN) -> None:
        super().__init__(
            state=state,
            max_size=settings.max_message_bytes,
            logger=SILENT,
        )
        self._begun = b""  # the first bytes of the frame that is not whole yet, its head among them
        self._cut: bytes | None = None  # of a text message that is not whole yet: the character at its end
        self._checked = 0  # bytes of the frame's payload

    def receive_data(self, data: bytes | bytearray) -> None:
        """See ServerProtocol."""
        self._begin(data)
        super().receive_data(data)
        if self._begun and self.state is State.OPEN and not self.extensions:
            try:
                self._check_ahead()
            except UnicodeDecodeError as fault:
                self.fail(CloseCode.INVALID_DATA.number, fault.reason)

    def recv_frame(self, frame: Frame) -> None:
        """See ServerProtocol: a whole frame has come, and its extensions are undone."""
        length = self._begun[1] & 0x7F
        if (length == 126 and int.from_bytes(self._begun[2:4], "big") < 126) or (
            length == 127 and int.from_bytes(self._begun[2:10], "big") < 65_536
        ):
            raise ProtocolError("a length is not in its shortest form")
        self._begun = b""
        self._begin(self.reader.buffer)
        if self.state is State.OPEN:
            self._check_frame(frame)
        if frame.opcode is Opcode.CLOSE:
            self.current_size = None  # the library would call the rest of the message missing
        super().recv_frame(frame)

    @property
    def is_idle(self) -> bool:
        """Whether the next byte begins a frame, of no message begun before, in which no extension has a say."""
        return (
            not self._begun and self.current_size is None and self.state is State.OPEN and not self.extensions
        )

    def _begin(self, data: bytes | bytearray) -> None:
        if (missing := _LONGEST_HEAD - len(self._begun)) > 0:
            self._begun += bytes(data[:missing])

    def _check_frame(self, frame: Frame) -> None:
        """Check a whole frame of a text message, or what was not checked of it.

        Raises:
            UnicodeDecodeError: the library fails the connection with 1007.
        """
        if self._is_text(frame.opcode):
            data = frame.data[self._checked :] if self._checked else frame.data
            self._check(bytes(data), frame.fin)
            self._checked = 0

    def _check_ahead(self) -> None:
        """Check what has come of a frame of a text message.

        Raises:
            UnicodeDecodeError: it is not UTF-8, whatever follows.
        """
        begun = self._begun
        if begun[0] & _RESERVED or len(begun) < 2:
            return
        length = begun[1] & 0x7F
        payload = 6 + (2 if length == 126 else 8 if length == 127 else 0)
        if len(begun) >= payload and self._is_text(begun[0] & 0x0F):
            # The library has read the head: what it waits with is the payload.
            came = self.reader.buffer[self._checked :]
            turn = self._checked % 4
            mask = begun[payload - 4 : payload]
            self._check(apply_mask(came, mask[turn:] + mask[:turn]), final=False)
            self._checked += len(came)

    def _is_text(self, opcode: int) -> bool:
        """Whether a frame belongs to a text message. Begins it with the first one."""
        if opcode == Opcode.TEXT and self.current_size is None:
            self._cut = self._cut or b""
            return True
        return opcode == Opcode.CONT and self._cut is not None

    def _check(self, text: bytes, final: bool) -> None:
        if self._cut or not text.isascii():
            text = (self._cut or b"") + text
            _, whole = utf_8_decode(text, "strict", final)
            self._cut = text[whole:]
        if final:
            self._cut = None
