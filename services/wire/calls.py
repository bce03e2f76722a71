"""Calls of clients, as a service of the application receives them on `Subjects.rpc(method)` and answers them. Pure.

A service answers `{"data": …}` or `{"refuse": {"code"?, "message"}}`, or with the error headers of NATS micro services
(ADR-32). Unknown fields are ignored, and `null` is as good as absent for a refusal.
"""

import re
from dataclasses import dataclass

import msgspec

from services.wire.content import BadMessage, content_from_json
from services.wire.records import Record

METHOD_NAME = re.compile(r"[A-Za-z0-9_-]+(?:\.[A-Za-z0-9_-]+)*")
MAX_METHOD_LENGTH = 64
MAX_ANSWER_BYTES = 65_536
MAX_MESSAGE_LENGTH = 1024  # of a refusal's text

_REFUSED = "refused"
_PLAIN_CODE = re.compile(r"[a-z0-9_]{1,64}")
_FAILURE = re.compile(r"[5-9]\d\d")  # status codes of faults of the service, as in HTTP


class ServiceCall(Record, frozen=True, kw_only=True):
    """A call of a user. `connection_id` is empty where it came over HTTP and names no connection of this user."""

    user_id: str
    username: str
    connection_id: str
    method: str
    data: msgspec.Raw


class CallAnswerInvalid(ValueError):
    """An answer that is none: not JSON, of a wrong type, or too large."""


class ServiceFailed(Exception):
    """The service reports a fault of its own. Its text is for the log: it may be that of an exception."""


@dataclass(frozen=True, slots=True)
class CallRefused(Exception):
    """The service refused. `code` and `message` are for the client."""

    code: str
    message: str


class _Refusal(Record, frozen=True, kw_only=True):
    code: str | None = None
    message: str | None = None


class _MayRefuse(Record, frozen=True, kw_only=True):
    refuse: _Refusal | None = None


class _Answer(Record, frozen=True, kw_only=True):
    data: msgspec.Raw


_decode_refusal = msgspec.json.Decoder(_MayRefuse).decode
_decode_answer = msgspec.json.Decoder(_Answer).decode


def is_method(name: str) -> bool:
    """Whether this is the name of a method: words of letters, digits, `_` and `-`, with dots between them."""
    return len(name) <= MAX_METHOD_LENGTH and METHOD_NAME.fullmatch(name) is not None


def read_answer(body: bytes, max_depth: int) -> msgspec.Raw:
    """Return `data` of an answer, as JSON that every client can be sent.

    Raises:
        CallRefused: the service refused.
        CallAnswerInvalid: over 64 KiB, no JSON object with `data`, or nested deeper than `max_depth`.
    """
    if len(body) > MAX_ANSWER_BYTES:
        raise CallAnswerInvalid(f"it has {len(body)} bytes, the limit is {MAX_ANSWER_BYTES}")
    try:
        refusal = _decode_refusal(body).refuse
        if refusal is not None:
            raise refused(refusal.code, refusal.message)
        return content_from_json(_decode_answer(body).data, max_depth)
    except RecursionError:
        raise CallAnswerInvalid("it is nested too deep") from None
    except (msgspec.DecodeError, UnicodeDecodeError) as fault:
        raise CallAnswerInvalid(str(fault)) from None
    except BadMessage as fault:
        raise CallAnswerInvalid(fault.message) from None


def read_error(code: str | None, description: str | None) -> CallRefused | ServiceFailed:
    """Return the meaning of a micro service's error headers.

    A number of 500 or more is a fault of the service, another one or none a refusal, and a word is the client's code.
    """
    if code is not None and _FAILURE.fullmatch(code):
        return ServiceFailed(f"{code}: {(description or '')[:MAX_MESSAGE_LENGTH]}")
    return refused(None if code is None or code.isdigit() else code, description)


def refused(code: str | None, message: str | None) -> CallRefused:
    """Return the refusal as the client gets it. A code that is not of a-z, 0-9 and _ is replaced by `refused`."""
    plain = code is not None and _PLAIN_CODE.fullmatch(code) is not None
    text = (message or "the application refused")[:MAX_MESSAGE_LENGTH]
    return CallRefused(code if plain and code is not None else _REFUSED, text)
