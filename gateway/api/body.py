"""Request bodies: read up to a limit, decoded into a type, or refused with a reason."""

from typing import TypeVar

import msgspec
from starlette.requests import Request

from gateway.api.errors import ApiError
from services.wire.codes import ErrorCode

T = TypeVar("T")


async def read_body(request: Request, max_bytes: int) -> bytes:
    """Return the body, which is UTF-8.

    The declared length is believed when it is too large, never when it is small: chunks are counted as they
    come.

    Raises:
        ApiError: `too_large`; `bad_message` for a compressed body, or one that is not UTF-8.
    """
    if request.headers.get("content-encoding", "identity").lower() != "identity":
        raise ApiError(ErrorCode.BAD_MESSAGE, "compressed bodies are not accepted")
    declared = request.headers.get("content-length", "")
    if declared.isdecimal() and (len(declared) > 18 or int(declared) > max_bytes):
        raise _too_large(max_bytes)
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > max_bytes:
            raise _too_large(max_bytes)
    data = bytes(body)
    try:
        # msgspec.Raw passes bytes through unread; text frames made from them must be UTF-8 for every
        # receiver.
        data.decode()
    except UnicodeDecodeError:
        raise ApiError(ErrorCode.BAD_MESSAGE, "the body is not UTF-8") from None
    return data


def decode(data: bytes | msgspec.Raw, type_: type[T]) -> T:
    """Return JSON as `type_`.

    Raises:
        ApiError: `bad_message` for what is no JSON or is nested too deep, `invalid_field` for wrong fields.
    """
    try:
        return msgspec.json.decode(data, type=type_)
    except msgspec.ValidationError as fault:
        raise ApiError(ErrorCode.INVALID_FIELD, str(fault)) from None
    except msgspec.DecodeError as fault:
        raise ApiError(ErrorCode.BAD_MESSAGE, f"malformed JSON: {fault}") from None
    except RecursionError:  # msgspec raises this for a nesting bomb
        raise ApiError(ErrorCode.BAD_MESSAGE, "malformed JSON: nested too deep") from None


async def read_json(request: Request, max_bytes: int, type_: type[T]) -> T:
    """Return the body as `type_`; an empty body is an empty object. Raises ApiError."""
    return decode(await read_body(request, max_bytes) or b"{}", type_)


def _too_large(max_bytes: int) -> ApiError:
    return ApiError(ErrorCode.TOO_LARGE, f"the body is larger than {max_bytes} bytes")
