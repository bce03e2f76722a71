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


async def read_body(request: Request, max_bytes: int, timeout_s: float, limit: Limit) -> bytes:
    """Return the body as it arrived. `limit` names the limit of `max_bytes`.

    A declared length is believed only if it is too large: chunks are counted as they arrive.

    Raises:
        ApiError: `too_large`; `bad_message` for one that takes longer than `timeout_s`.
    """
    too_large = ApiError(ErrorCode.TOO_LARGE, f"the body is larger than {max_bytes} bytes", limit)
    declared = request.headers.get("content-length", "")
    if declared.isdecimal() and (len(declared) > 18 or int(declared) > max_bytes):
        raise too_large
    body = bytearray()
    try:
        async with asyncio.timeout(timeout_s):
            async for chunk in request.stream():
                body += chunk
                if len(body) > max_bytes:
                    raise too_large
    except TimeoutError:
        text = f"the body did not arrive within {timeout_s:g} s"
        raise ApiError(ErrorCode.BAD_MESSAGE, text, Limit.BODY_TIME, status=408) from None
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
            text = f"more than {most} numbers with an exponent of {len(kind) - 2} digits"
            raise ApiError(ErrorCode.INVALID_FIELD, text)


def _exponents(data: bytes, kind: bytes) -> int:
    return data.translate(_DIGITS, _SIGNS).count(kind)


def decode(data: bytes | msgspec.Raw, type_: type[T]) -> T:
    """Return JSON as `type_`.

    Raises:
        ApiError: `bad_message` for malformed JSON or JSON nested too deep; `invalid_field` for wrong fields, or more
            extreme numbers than are decoded in a few milliseconds.
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
