"""One message, encoded and framed once for all members with the same encoding.

A room of a thousand members costs one encoding and a thousand writes of the same bytes object.
"""

from enum import IntEnum

import msgspec

from gateway.ws.frames import TEXT, frame, message_frame
from services.wire import server

_encode_json = msgspec.json.Encoder().encode
_encode_msgpack = msgspec.msgpack.Encoder().encode
# Content was checked on arrival; msgspec's own conversion takes 12 µs for a number like `9e307`.
_decode_json = msgspec.json.Decoder(float_hook=float).decode


class Encoding(IntEnum):
    """The format of one member's bytes; members with the same encoding share them."""

    JSON = 0
    MSGPACK = 1
    JSON_DEFLATE = 2
    MSGPACK_DEFLATE = 3
    SSE = 4

    @property
    def packed(self) -> bool:
        return self in (Encoding.MSGPACK, Encoding.MSGPACK_DEFLATE)


class EncodedMessage(msgspec.Struct, eq=False):
    """A message to clients. `topic` and `seq` are set for messages of a durable log."""

    message: server.ServerMessage
    topic: str = ""
    seq: int = 0
    _json: bytes | None = None
    _packed: bytes | None = None
    _frames: dict[Encoding, bytes] = {}

    @property
    def json(self) -> bytes:
        if self._json is None:
            self._json = _encode_json(self.message)
        return self._json

    @property
    def msgpack(self) -> bytes:
        if self._packed is None:
            self._packed = self._pack()
        return self._packed

    def encode(self, encoding: Encoding) -> bytes:
        """Return the bytes for members with `encoding`."""
        data = self._frames.get(encoding)
        if data is None:
            if encoding is Encoding.JSON:  # most members, without further calls
                if self._json is None:
                    self._json = _encode_json(self.message)
                data = frame(TEXT, self._json)
            else:
                data = self._build(encoding)
            self._frames[encoding] = data
        return data

    def _build(self, encoding: Encoding) -> bytes:
        match encoding:
            case Encoding.JSON | Encoding.JSON_DEFLATE:
                return message_frame(self.json, binary=False, deflate=True)
            case Encoding.MSGPACK | Encoding.MSGPACK_DEFLATE:
                return message_frame(self.msgpack, binary=True, deflate=encoding is Encoding.MSGPACK_DEFLATE)
            case Encoding.SSE:
                return sse_event(str(self.message.__struct_config__.tag), self.json)

    def _pack(self) -> bytes:
        # Through JSON: `content` is raw JSON text inside the message, and MessagePack needs values.
        return _encode_msgpack(_decode_json(self.json))


class RecoveryAnswer(EncodedMessage, eq=False):
    """An answer with stored messages in `field`. Each is encoded as MessagePack by itself, some of them before."""

    stored: list[EncodedMessage] = []
    field: str = "missed"

    def _pack(self) -> bytes:
        fields = _decode_json(_encode_json(msgspec.structs.replace(self.message, **{self.field: []})))
        fields[self.field] = [msgspec.Raw(stored.msgpack) for stored in self.stored]
        return _encode_msgpack(fields)


def sse_event(event: str, data: bytes, event_id: str = "") -> bytes:
    """Return one Server-Sent Event. `data` is one line: JSON has no raw line breaks."""
    head = f"id: {event_id}\nevent: {event}\ndata: " if event_id else f"event: {event}\ndata: "
    return head.encode() + data + b"\n\n"
