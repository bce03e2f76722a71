"""Query parameters: read, checked, or refused with the parameter's name."""

import re

from starlette.requests import Request

from gateway.api.responses import ApiError
from services.wire.codes import ErrorCode

# int() alone would take other scripts' digits, underscores and blanks.
_DIGITS = re.compile(r"[0-9]{1,15}")

MAX_TIME_MS = 253_402_300_799_999  # the year 9999


def optional_integer(request: Request, name: str, *, low: int, high: int) -> int | None:
    """Return a parameter between `low` and `high`, or None where it is absent.

    Raises:
        ApiError: `invalid_field`.
    """
    text = request.query_params.get(name)
    if text is None:
        return None
    if not _DIGITS.fullmatch(text) or not low <= int(text) <= high:
        raise ApiError(ErrorCode.INVALID_FIELD, f"`{name}` must be an integer from {low} to {high}")
    return int(text)


def boolean(request: Request, name: str) -> bool:
    """Return a parameter that is `true` or `false`; False where it is absent. Raises ApiError."""
    text = request.query_params.get(name, "false")
    if text not in ("true", "false"):
        raise ApiError(ErrorCode.INVALID_FIELD, f"`{name}` must be true or false")
    return text == "true"


def integer(request: Request, name: str, default: int, *, low: int, high: int) -> int:
    """Return a parameter between `low` and `high`, or `default` where it is absent. Raises ApiError."""
    value = optional_integer(request, name, low=low, high=high)
    return default if value is None else value
