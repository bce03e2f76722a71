"""Content of messages: what clients send each other, passed on as JSON text and never interpreted.

What is let in must come out everywhere: a receiver may speak MessagePack or read an SSE stream. So content is
checked once, where it enters, and no gateway meets any that it cannot deliver.
"""

import msgspec

from services.wire.codes import ErrorCode
from services.wire.depth import too_deep
from services.wire.faults import BadMessage, TooDeep

_decode_json = msgspec.json.Decoder().decode
_encode_msgpack = msgspec.msgpack.Encoder().encode


def content_from_json(raw: msgspec.Raw, max_depth: int) -> msgspec.Raw:
    """Return JSON content as one line, or refuse it.

    Raises:
        BadMessage: not deliverable to everyone: nested deeper than `max_depth`, or with a number or string that
            MessagePack has no form for (integers over 64 bits, numbers over the range of a double).
    """
    text = bytes(raw)  # a view would keep the whole frame alive
    try:
        _encode_msgpack(_decode_json(text))
    except RecursionError:
        raise _nested(max_depth) from None
    except (msgspec.DecodeError, UnicodeDecodeError, OverflowError, ValueError) as fault:
        raise BadMessage(ErrorCode.INVALID_FIELD, f"content cannot be delivered: {fault}") from None
    return _one_line(text, max_depth)


def content_from_msgpack(raw: msgspec.Raw, max_depth: int) -> msgspec.Raw:
    """Return MessagePack content as JSON, or refuse it.

    Raises:
        BadMessage: no JSON counterpart (extension types, strings that are not UTF-8), or nested too deep.
    """
    try:
        text = msgspec.json.encode(msgspec.msgpack.decode(raw))
    except RecursionError:
        raise _nested(max_depth) from None
    except (msgspec.DecodeError, UnicodeDecodeError, TypeError, ValueError) as fault:
        raise BadMessage(ErrorCode.INVALID_FIELD, f"content has no JSON form: {fault}") from None
    return _one_line(text, max_depth)


def _one_line(text: bytes, max_depth: int) -> msgspec.Raw:
    if too_deep(text, max_depth):
        raise _nested(max_depth)
    if b"\n" in text or b"\r" in text:  # between tokens only: within strings JSON escapes them
        text = msgspec.json.format(text, indent=-1)  # an SSE event's data is one line
    return msgspec.Raw(text)


def _nested(max_depth: int) -> TooDeep:
    return TooDeep(ErrorCode.INVALID_FIELD, f"content is nested deeper than {max_depth} levels")
