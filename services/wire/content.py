"""What clients send each other: refused or passed on as JSON text, and never interpreted.

Accepted content must be deliverable everywhere, as MessagePack and as an SSE event. So it is checked once, where it
enters.

The depth of an untrusted client's JSON is limited wherever it is passed on. msgspec's own limit is the interpreter's
recursion limit less the stack in use, so it differs between callers: without a limit of our own, far below it, a
message could be acknowledged and stored, and then be unreadable for all receivers.
"""

import math
import re
from itertools import accumulate

import msgspec

from services.wire.codes import ErrorCode

JSON_STRING = re.compile(rb'"[^"\\]*(?:\\.[^"\\]*)*"', re.DOTALL)
_STEPS = bytes.maketrans(b"[{]}", b"\x01\x01\xff\xff")  # as signed bytes: one level in, one level out
_OTHERS = bytes(set(range(256)) - set(b"[]{}"))


class BadMessage(ValueError):
    """Bytes from a client that are no message of this protocol.

    `id` is the request's, where it could still be read, so that the client knows which message failed.
    """

    def __init__(self, code: ErrorCode, message: str, id: str | None = None) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.id = id


class TooDeep(BadMessage):
    """Arrays or objects nested deeper than allowed. Counted apart: it is not sent by mistake."""


class ContentTooLarge(BadMessage):
    """Content larger than allowed, as the JSON in which it is passed on."""


def number(text: str) -> float:
    """Return a JSON number that is no integer. msgspec's own conversion takes 12 µs for one like `9e307`.

    Raises:
        ValueError: over the range of a double.
    """
    value = float(text)
    if math.isinf(value):
        raise ValueError("Number out of range")
    return value


_decode_json = msgspec.json.Decoder(float_hook=number).decode
_encode_msgpack = msgspec.msgpack.Encoder().encode


def content_from_json(raw: msgspec.Raw, max_depth: int, max_bytes: int = 0) -> msgspec.Raw:
    """Return JSON content as one line, or refuse it. 0 is no limit on bytes.

    Raises:
        BadMessage: larger than `max_bytes`, nested deeper than `max_depth`, or with a number or string that MessagePack
            cannot hold (integers over 64 bits, numbers over the range of a double).
    """
    text = bytes(raw)  # a view would keep the whole frame alive
    if 0 < max_bytes < len(text):
        raise _too_large(text, max_bytes)
    try:
        _encode_msgpack(_decode_json(text))
    except RecursionError:
        raise _nested(max_depth) from None
    except (msgspec.DecodeError, UnicodeDecodeError, OverflowError, ValueError) as fault:
        raise BadMessage(ErrorCode.INVALID_FIELD, f"content cannot be delivered: {fault}") from None
    if b"\n" in text or b"\r" in text or text.count(b"[") + text.count(b"{") > max_depth:
        return _one_line(text, max_depth)
    return msgspec.Raw(text)


def content_from_msgpack(raw: msgspec.Raw, max_depth: int, max_bytes: int = 0) -> msgspec.Raw:
    """Return MessagePack content as JSON, or refuse it. 0 is no limit on bytes.

    Raises:
        BadMessage: larger than `max_bytes` as JSON (a `nil` grows from one byte to four), nested too deep, or without
            a JSON form (extension types, strings that are not UTF-8).
    """
    try:
        text = msgspec.json.encode(msgspec.msgpack.decode(raw))
    except RecursionError:
        raise _nested(max_depth) from None
    except (msgspec.DecodeError, UnicodeDecodeError, TypeError, ValueError) as fault:
        raise BadMessage(ErrorCode.INVALID_FIELD, f"content has no JSON form: {fault}") from None
    if max_bytes and len(text) > max_bytes:
        raise _too_large(text, max_bytes)
    return _one_line(text, max_depth)


def too_deep(json: bytes, limit: int) -> bool:
    """Whether well-formed JSON is nested deeper than `limit` levels.

    Half a microsecond where there are few brackets, which is nearly always. Otherwise linear: some ms for 64 KiB.
    """
    if json.count(b"[") + json.count(b"{") <= limit:
        return False
    steps = memoryview(JSON_STRING.sub(b"", json).translate(_STEPS, _OTHERS)).cast("b")
    return next(filter(limit.__lt__, accumulate(steps)), None) is not None


def _one_line(text: bytes, max_depth: int) -> msgspec.Raw:
    if too_deep(text, max_depth):
        raise _nested(max_depth)
    if b"\n" in text or b"\r" in text:  # between tokens only: within strings JSON escapes them
        text = msgspec.json.format(text, indent=-1)  # an SSE event's data is one line
    return msgspec.Raw(text)


def _too_large(text: bytes, max_bytes: int) -> ContentTooLarge:
    return ContentTooLarge(ErrorCode.TOO_LARGE, f"{len(text)} bytes as JSON, the limit is {max_bytes}")


def _nested(max_depth: int) -> TooDeep:
    return TooDeep(ErrorCode.INVALID_FIELD, f"content is nested deeper than {max_depth} levels")
