"""Request bodies: read up to a limit, decoded into a type, or refused with a reason."""

import asyncio
from collections.abc import Callable
from functools import lru_cache
from typing import Any, TypeVar, cast

import msgspec
from starlette.requests import Request

from gateway.api.responses import ApiError
from gateway.limits import Limit
from services.wire.codes import ErrorCode
from services.wire.content import JSON_STRING, number

T = TypeVar("T")

BODY_TIMEOUT_S = 30.0


class BodyTooLate(ApiError):
    """A body that takes too long."""

    status = 408


async def read_body(
    request: Request, max_bytes: int, timeout_s: float = BODY_TIMEOUT_S, limit: Limit = Limit.BODY_BYTES
) -> bytes:
    """Return the body, which is UTF-8. `limit` names the limit of `max_bytes`.

    A declared length is believed only if it is too large: chunks are counted as they arrive.

    Raises:
        ApiError: `too_large`; `bad_message` for a compressed body, one that is not UTF-8, or one that takes
            longer than `timeout_s`.
    """
    if request.headers.get("content-encoding", "identity").lower() != "identity":
        raise ApiError(ErrorCode.BAD_MESSAGE, "compressed bodies are not accepted")
    data = await read_bytes(request, max_bytes, timeout_s, limit)
    try:
        # msgspec.Raw passes bytes on unread; text frames made from them must be UTF-8 for every receiver.
        data.decode()
    except UnicodeDecodeError:
        raise ApiError(ErrorCode.BAD_MESSAGE, "the body is not UTF-8") from None
    return data


async def read_bytes(
    request: Request, max_bytes: int, timeout_s: float = BODY_TIMEOUT_S, limit: Limit = Limit.BODY_BYTES
) -> bytes:
    """Return the body as it arrived. Raises ApiError: `too_large`, or `bad_message` when late."""
    declared = request.headers.get("content-length", "")
    if declared.isdecimal() and (len(declared) > 18 or int(declared) > max_bytes):
        raise _too_large(max_bytes, limit)
    try:
        async with asyncio.timeout(timeout_s):
            return await _all_chunks(request, max_bytes, limit)
    except TimeoutError:
        text = f"the body did not arrive within {timeout_s:g} s"
        raise BodyTooLate(ErrorCode.BAD_MESSAGE, text, Limit.BODY_TIME) from None


async def _all_chunks(request: Request, max_bytes: int, limit: Limit) -> bytes:
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > max_bytes:
            raise _too_large(max_bytes, limit)
    return bytes(body)


# msgspec takes 12 µs for a number close to the range of a double (`9e307`), and 0.4 µs for one like `1e23`; for a field
# whose type is float it does not call our hook.
_MAX_EXPONENTS = {b"0e000": 100, b"0e00": 10_000}
_DIGITS = bytes.maketrans(b"123456789E", b"000000000e")
_SIGNS = b"+-"


@lru_cache(maxsize=64)
def _reader(type_: Any) -> tuple[Callable[[bytes | msgspec.Raw], Any], bool]:
    """Return a decoder, and True if it also decodes numbers: what is passed on raw is not checked."""
    with_numbers = (
        isinstance(type_, type)
        and issubclass(type_, msgspec.Struct)
        and all(field.type is not msgspec.Raw for field in msgspec.structs.fields(type_))
    )
    return msgspec.json.Decoder(type_, float_hook=number).decode, with_numbers


def _check_exponents(data: bytes) -> None:
    if all(_exponents(data, kind) <= most for kind, most in _MAX_EXPONENTS.items()):
        return
    outside = JSON_STRING.sub(b"", data)
    for kind, most in _MAX_EXPONENTS.items():
        if _exponents(outside, kind) > most:
            digits = kind.count(b"0") - 1
            raise ApiError(
                ErrorCode.INVALID_FIELD, f"more than {most} numbers with an exponent of {digits} digits"
            )


def _exponents(data: bytes, kind: bytes) -> int:
    return data.translate(_DIGITS, _SIGNS).count(kind)


def decode(data: bytes | msgspec.Raw, type_: type[T]) -> T:
    """Return JSON as `type_`.

    Raises:
        ApiError: `bad_message` for malformed JSON or JSON nested too deep, `invalid_field` for wrong fields, and for
            more extreme numbers than can be decoded in a few milliseconds.
    """
    read, with_numbers = _reader(cast("Any", type_))  # mypy knows of no class that it can be hashed
    if with_numbers:
        _check_exponents(bytes(data))
    try:
        found: T = read(data)
    except msgspec.ValidationError as fault:
        raise ApiError(ErrorCode.INVALID_FIELD, str(fault)) from None
    except msgspec.DecodeError as fault:
        raise ApiError(ErrorCode.BAD_MESSAGE, f"malformed JSON: {fault}") from None
    except RecursionError:  # msgspec raises this for a nesting bomb
        raise ApiError(ErrorCode.BAD_MESSAGE, "malformed JSON: nested too deep") from None
    return found


async def read_json(
    request: Request,
    max_bytes: int,
    type_: type[T],
    timeout_s: float = BODY_TIMEOUT_S,
    limit: Limit = Limit.BODY_BYTES,
) -> T:
    """Return the body as `type_`; an empty body is an empty object. Raises ApiError."""
    return decode(await read_body(request, max_bytes, timeout_s, limit) or b"{}", type_)


def _too_large(max_bytes: int, limit: Limit) -> ApiError:
    return ApiError(ErrorCode.TOO_LARGE, f"the body is larger than {max_bytes} bytes", limit)
