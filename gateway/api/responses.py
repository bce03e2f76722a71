"""Answers as JSON, and the one error body `{code, message, retryable, retryAfterMs?}` that every fault becomes.

Nothing of a fault but its code and a message written for untrusted clients leaves the process.
"""

import math
from collections.abc import Callable, Mapping
from typing import Any

import msgspec
import structlog
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response

from gateway.auth.identity import AuthRefused
from gateway.client.commands import CommandError
from gateway.delivery.publisher import PublishRefused
from gateway.http.request_metrics import count_as_limit
from gateway.limits import Limit
from services.bus.errors import BusError, PayloadTooLarge, RequestRefused, StoreFull, Unavailable
from services.wire.codes import ErrorCode
from services.wire.names import InvalidName
from services.wire.records import UNSET, ErrorBody, UnsetType

log = structlog.get_logger()

# A broker that restarts or a leader election is over in about this time.
_UNAVAILABLE_RETRY_MS = 1000
_ADDRESS_RETRY_MS = 10_000  # another connection of that address may have closed by then

_BY_CODE = {member.code: member for member in ErrorCode}
_BY_STATUS = {
    404: (ErrorCode.NOT_FOUND, "no such path"),
    405: (ErrorCode.NOT_FOUND, "no such method on this path; see the Allow header"),
}


_encoder = msgspec.json.Encoder()


class JsonResponse(Response):
    """Any wire object, or list of them, as JSON. Never cached: it describes this moment."""

    media_type = "application/json"

    def __init__(self, content: Any, status: int = 200, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(
            _encoder.encode(content), status, headers={"cache-control": "no-store", **(headers or {})}
        )


class ApiError(Exception):
    """A refused request, because of a `limit` if one is given. `message` is shown to the client."""

    status: int | None = None  # where it says more than that of the code

    def __init__(self, code: ErrorCode, message: str, limit: Limit | None = None) -> None:
        super().__init__(f"{code.code}: {message}")
        self.code = code
        self.message = message
        self.limit = limit


def refusal_response(
    code: ErrorCode,
    message: str,
    retry_after_ms: int | None = None,
    *,
    status: int | None = None,
    headers: dict[str, str] | None = None,
) -> Response:
    """Return the error body with the status of its code (or another `status` that says more)."""
    extra = dict(headers or {})
    if retry_after_ms is not None:
        extra["retry-after"] = str(-(-retry_after_ms // 1000))  # whole seconds, rounded up (RFC 9110 §10.2.3)
    if code is ErrorCode.UNAUTHORIZED:
        extra["www-authenticate"] = "Bearer"  # RFC 9110 §11.6.1: a 401 names the scheme
    body = ErrorBody(
        code=code.code,
        message=message,
        retryable=code.retryable,
        retry_after_ms=UNSET if retry_after_ms is None else retry_after_ms,
    )
    return JsonResponse(body, status or code.value.http_status, extra)


def too_many(wait_s: float) -> Response:
    """Return the answer to a connection above the accept rate, or to any while the gateway stops."""
    return refusal_response(
        ErrorCode.UNAVAILABLE, "this gateway accepts no more connections now", math.ceil(wait_s * 1000)
    )


def too_many_from_there() -> Response:
    """Return the answer to a connection above the per-IP limit."""
    return refusal_response(
        ErrorCode.RATE_LIMITED, "too many connections from this address", _ADDRESS_RETRY_MS
    )


def describe_bus_error(fault: BusError) -> tuple[ErrorCode, str]:
    """Return the code and message of a bus fault that an untrusted client may see."""
    if isinstance(fault, Unavailable):
        return ErrorCode.UNAVAILABLE, "the service that answers this cannot be reached now"
    if isinstance(fault, StoreFull):
        return ErrorCode.UNAVAILABLE, "the store is full"
    if isinstance(fault, PayloadTooLarge):
        return ErrorCode.TOO_LARGE, f"the message is larger than {fault.limit} bytes"
    if isinstance(fault, RequestRefused) and fault.code in _BY_CODE:
        return _BY_CODE[fault.code], fault.message
    return ErrorCode.INTERNAL, "an internal error occurred"


async def _on_refusal(request: Request, fault: Exception) -> Response:
    if isinstance(fault, InvalidName):
        return refusal_response(ErrorCode.INVALID_NAME, str(fault))
    if isinstance(fault, ApiError) and fault.limit is not None:
        count_as_limit(request.scope, fault.limit)
    if isinstance(fault, ApiError | AuthRefused | PublishRefused):
        status = fault.status if isinstance(fault, ApiError) else None
        told_ms = fault.retry_after_ms if isinstance(fault, PublishRefused) else 0
        return refusal_response(fault.code, fault.message, told_ms or _retry_ms(fault.code), status=status)
    if isinstance(fault, CommandError):
        retry_ms = None if isinstance(fault.retry_after_ms, UnsetType) else fault.retry_after_ms
        return refusal_response(fault.code, fault.message, retry_ms)
    raise fault


async def _on_bus_error(request: Request, fault: Exception) -> Response:
    if not isinstance(fault, BusError):
        raise fault
    code, message = describe_bus_error(fault)
    if code is ErrorCode.INTERNAL:
        # No client's input leads here: a service or a stream is not what it should be.
        log.error("bus fault", fault=str(fault), method=request.method)
    return refusal_response(code, message, _retry_ms(code))


def _retry_ms(code: ErrorCode) -> int | None:
    return _UNAVAILABLE_RETRY_MS if code is ErrorCode.UNAVAILABLE else None


async def _on_http_exception(_request: Request, fault: Exception) -> Response:
    if not isinstance(fault, HTTPException):
        raise fault
    code, message = _BY_STATUS.get(
        fault.status_code,
        (ErrorCode.INTERNAL if fault.status_code >= 500 else ErrorCode.BAD_MESSAGE, "the request failed"),
    )
    return refusal_response(code, message, status=fault.status_code, headers=dict(fault.headers or {}))


async def _on_client_gone(_request: Request, _fault: Exception) -> Response:
    """Answer a client that left in the middle of its request: the answer is never read, and nothing is logged."""
    return Response(status_code=400)


async def _on_anything_else(_request: Request, _fault: Exception) -> Response:
    """Answer any other fault. Starlette raises it again afterwards, so that the server logs it with its traceback."""
    return refusal_response(ErrorCode.INTERNAL, "an internal error occurred")


def error_handlers() -> dict[Any, Callable[..., Any]]:
    """Return the exception handlers of the application."""
    return {
        ApiError: _on_refusal,
        AuthRefused: _on_refusal,
        PublishRefused: _on_refusal,
        CommandError: _on_refusal,
        InvalidName: _on_refusal,
        BusError: _on_bus_error,
        HTTPException: _on_http_exception,
        ClientDisconnect: _on_client_gone,
        Exception: _on_anything_else,
    }
