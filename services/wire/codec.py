"""What clients send, as JSON or as MessagePack: the same objects, and one way to say that bytes were not understood."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import msgspec

from services.wire.client import AnyClientMessage
from services.wire.codes import ErrorCode
from services.wire.content import BadMessage, TooDeep, content_from_json, content_from_msgpack, number

__all__ = ["CODECS", "JSON", "MSGPACK", "BadMessage", "Codec"]

PROTOCOL_VERSION = 1
SUBPROTOCOL_JSON = "tidings.v1.json"
SUBPROTOCOL_MSGPACK = "tidings.v1.msgpack"


class _Peek(msgspec.Struct):
    """The readable part of a message that failed: its type, and the id that the error should echo."""

    type: Any = None
    id: Any = None


_TYPES = frozenset(str(member.__struct_config__.tag) for member in AnyClientMessage.__args__)


# Turns `content` of a client into JSON on one line, the form in which it crosses the bus: the content, the deepest nesting
# and the most bytes allowed (0: no limit). Raises BadMessage: it is too large, or not deliverable to everyone.
ContentReader = Callable[[msgspec.Raw, int, int], msgspec.Raw]


@dataclass(frozen=True, slots=True)
class Codec:
    """How messages of one connection are read. `binary` says which WebSocket opcode carries them.

    Decoders are reused: making one costs 10 µs.
    """

    subprotocol: str
    binary: bool
    content: ContentReader
    decoder: "msgspec.json.Decoder[AnyClientMessage] | msgspec.msgpack.Decoder[AnyClientMessage]"
    peek: "msgspec.json.Decoder[_Peek] | msgspec.msgpack.Decoder[_Peek]"

    def decode(self, data: bytes | str) -> AnyClientMessage:
        """Return the client's message.

        Raises:
            BadMessage: malformed, unknown or invalid; says which and, where readable, of which `id`.
        """
        try:
            return self.decoder.decode(data)  # type: ignore[arg-type]  # str only reaches the JSON decoder
        except msgspec.ValidationError as fault:
            raise self._explain(data, fault) from None
        except msgspec.DecodeError as fault:
            raise BadMessage(ErrorCode.BAD_MESSAGE, f"malformed message: {fault}") from None
        except RecursionError:  # a nesting bomb; msgspec raises this instead of a DecodeError
            raise TooDeep(ErrorCode.BAD_MESSAGE, "malformed message: nested too deep") from None
        except UnicodeDecodeError:  # MessagePack strings that are not UTF-8
            raise BadMessage(ErrorCode.BAD_MESSAGE, "malformed message: a string is not UTF-8") from None

    def _explain(self, data: bytes | str, fault: msgspec.ValidationError) -> BadMessage:
        """Tell an unknown type from a wrong field, and find the id to answer."""
        try:
            peek = self.peek.decode(data)  # type: ignore[arg-type]
        except (msgspec.DecodeError, RecursionError, UnicodeDecodeError):
            return BadMessage(ErrorCode.BAD_MESSAGE, "a message is one object with a `type` field")
        id = peek.id if isinstance(peek.id, str) and len(peek.id) <= 64 else None
        if not isinstance(peek.type, str):
            return BadMessage(ErrorCode.UNKNOWN_TYPE, "a message needs a `type` field with a string", id)
        if peek.type not in _TYPES:
            return BadMessage(
                ErrorCode.UNKNOWN_TYPE, f"unknown type; known are {', '.join(sorted(_TYPES))}", id
            )
        return BadMessage(ErrorCode.INVALID_FIELD, str(fault), id)


JSON = Codec(
    SUBPROTOCOL_JSON,
    False,
    content_from_json,
    msgspec.json.Decoder(AnyClientMessage),
    msgspec.json.Decoder(_Peek, float_hook=number),
)
MSGPACK = Codec(
    SUBPROTOCOL_MSGPACK,
    True,
    content_from_msgpack,
    msgspec.msgpack.Decoder(AnyClientMessage),
    msgspec.msgpack.Decoder(_Peek),
)
CODECS: dict[str, Codec] = {codec.subprotocol: codec for codec in (JSON, MSGPACK)}
