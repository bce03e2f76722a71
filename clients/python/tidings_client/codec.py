"""Encodes messages to frames, and decodes frames."""

from collections.abc import Callable
from typing import Any, Literal, get_args

import msgspec

from tidings_client.generated.wire import ClientMessage, ServerMessage

CodecName = Literal["json", "msgpack"]


# Exceptions of encoding for values that JSON has not: of another type, too deep, too large, not Unicode.
UNENCODABLE = (TypeError, ValueError, OverflowError, RecursionError)


class Unreadable(Exception):
    """A frame is not a message of any version of the protocol."""


class _Head(msgspec.Struct):
    type: str


_KNOWN = {str(kind.__struct_config__.tag) for kind in get_args(ServerMessage)}


class Codec:
    """One encoding. `decode` returns None for a message type that this version does not know."""

    def __init__(
        self,
        subprotocol: str,
        encode: Callable[[ClientMessage], str | bytes],
        message: Callable[[str | bytes], ServerMessage],
        head: Callable[[str | bytes], _Head],
        frame: type[str] | type[bytes],
    ) -> None:
        self.subprotocol = subprotocol
        self.encode = encode
        self._message = message
        self._head = head
        self._frame = frame

    def decode(self, frame: str | bytes) -> ServerMessage | None:
        """Return the message, or None if its type is unknown. Raises Unreadable."""
        if not isinstance(frame, self._frame):
            raise Unreadable("a frame of the other kind")
        try:
            return self._message(frame)
        except (msgspec.DecodeError, RecursionError, UnicodeDecodeError) as fault:
            try:
                kind = self._head(frame).type
            except (msgspec.DecodeError, RecursionError, UnicodeDecodeError):
                raise Unreadable("a frame could not be read") from fault
            if kind in _KNOWN:
                raise Unreadable(f"a message of type {kind} could not be read: {fault}") from fault
            return None


def _json() -> Codec:
    encoder = msgspec.json.Encoder()
    message: msgspec.json.Decoder[Any] = msgspec.json.Decoder(ServerMessage)
    head = msgspec.json.Decoder(_Head)
    return Codec(
        "tidings.v1.json", lambda each: encoder.encode(each).decode(), message.decode, head.decode, str
    )


def _msgpack() -> Codec:
    encoder = msgspec.msgpack.Encoder()
    message: msgspec.msgpack.Decoder[Any] = msgspec.msgpack.Decoder(ServerMessage)
    head = msgspec.msgpack.Decoder(_Head)

    def binary(decode: Callable[[bytes], Any]) -> Callable[[str | bytes], Any]:
        return lambda frame: decode(frame if isinstance(frame, bytes) else frame.encode())

    def encode(each: ClientMessage) -> bytes:
        # Only the values of JSON: MessagePack's own types for times and bytes are not in the protocol.
        return encoder.encode(msgspec.to_builtins(each, str_keys=True))

    return Codec("tidings.v1.msgpack", encode, binary(message.decode), binary(head.decode), bytes)


JSON = _json()
MSGPACK = _msgpack()
CODECS = {"json": JSON, "msgpack": MSGPACK}
