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
from gateway.hooks.messages import HookRefused, HookUnavailable
from gateway.http.request_metrics import count_as_limit
from gateway.limits import Limit
from services.bus.errors import BusError, PayloadTooLarge, RequestRefused, StoreFull, Unavailable
from services.wire.codes import ErrorCode, ErrorSpec
from services.wire.names import InvalidName
from services.wire.records import UNSET, ErrorBody, UnsetType

log = structlog.get_logger()

# About the time of a broker's restart or a leader election.
UNAVAILABLE_RETRY_MS = 1000
_ADDRESS_RETRY_MS = 10_000  # another connection of that address may have closed by then

_BY_CODE = {member.code: member for member in ErrorCode}
_BY_STATUS = {
    404: (ErrorCode.NOT_FOUND, "no such path"),
    405: (ErrorCode.NOT_FOUND, "no such method on this path; see the Allow header"),
}


_encoder = msgspec.json.Encoder()


class JsonResponse(Response):
    """A wire object, or a list of them, as JSON. Never cached: it describes this moment."""

    media_type = "application/json"

    def __init__(self, content: Any, status: int = 200, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(
            _encoder.encode(content), status, headers={"cache-control": "no-store", **(headers or {})}
        )


class ApiError(Exception):
    """A refused request, because of a `limit` if one is given. `message` is shown to the client.

    `status` is one that says more than that of the code.
    """

    def __init__(
        self,
        code: ErrorCode | ErrorSpec,
        message: str,
        limit: Limit | None = None,
        *,
        status: int | None = None,
    ) -> None:
        super().__init__(f"{code.code}: {message}")
        self.code = code
        self.message = message
        self.limit = limit
        self.status = status


def refusal_response(
    code: ErrorCode | ErrorSpec,
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
    return JsonResponse(body, status or code.http_status, extra)


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


def hook_refusal(fault: HookRefused | HookUnavailable) -> Response:
    """Return the answer to what the application refused, or did not answer."""
    if isinstance(fault, HookRefused):
        return refusal_response(fault.spec, fault.message)
    return refusal_response(ErrorCode.UNAVAILABLE, fault.message, fault.retry_after_ms)


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


async def _on_fault(request: Request, fault: Exception) -> Response:
    """Answer a fault. Starlette raises an unexpected one again, so that the server logs it with its traceback."""
    match fault:
        case ApiError():
            if fault.limit is not None:
                count_as_limit(request.scope, fault.limit)
            return refusal_response(fault.code, fault.message, _retry_ms(fault.code), status=fault.status)
        case AuthRefused():
            return refusal_response(fault.code, fault.message, _retry_ms(fault.code))
        case PublishRefused():
            return refusal_response(fault.code, fault.message, fault.retry_after_ms or _retry_ms(fault.code))
        case CommandError():
            retry_ms = None if isinstance(fault.retry_after_ms, UnsetType) else fault.retry_after_ms
            return refusal_response(fault.code, fault.message, retry_ms)
        case HookRefused() | HookUnavailable():
            return hook_refusal(fault)
        case InvalidName():
            return refusal_response(ErrorCode.INVALID_NAME, str(fault))
        case BusError():
            code, message = describe_bus_error(fault)
            if code is ErrorCode.INTERNAL:
                # No client's input leads here: a service or a stream is not what it should be.
                log.error("bus fault", fault=str(fault), method=request.method)
            return refusal_response(code, message, _retry_ms(code))
        case HTTPException(status_code=status):
            other = ErrorCode.INTERNAL if status >= 500 else ErrorCode.BAD_MESSAGE
            code, message = _BY_STATUS.get(status, (other, "the request failed"))
            return refusal_response(code, message, status=status, headers=dict(fault.headers or {}))
        case ClientDisconnect():
            return Response(status_code=400)  # never read: the client left in the middle of its request
    return refusal_response(ErrorCode.INTERNAL, "an internal error occurred")


def _retry_ms(code: ErrorCode | ErrorSpec) -> int | None:
    return UNAVAILABLE_RETRY_MS if code is ErrorCode.UNAVAILABLE else None


def error_handlers() -> dict[Any, Callable[..., Any]]:
    """Return the exception handlers of the application."""
    faults = (
        ApiError,
        AuthRefused,
        PublishRefused,
        CommandError,
        HookRefused,
        HookUnavailable,
        InvalidName,
        BusError,
    )
    return dict.fromkeys((*faults, HTTPException, ClientDisconnect, Exception), _on_fault)
