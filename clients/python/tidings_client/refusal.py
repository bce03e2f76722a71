"""Exceptions for HTTP answers that are not a success."""

import msgspec

from tidings_client.errors import Blocked, ServerError, TidingsError
from tidings_client.generated.wire import ErrorBody

# Exceptions of decoding for unexpected bytes.
UNREADABLE = (msgspec.DecodeError, RecursionError, UnicodeDecodeError)


def refusal(status: int, retry_after: str | None, body: bytes | bytearray) -> TidingsError:
    """Return the error in an answer's body, or Blocked if the body is not the server's.

    The status alone does not decide: a proxy's 403 is not the server's, and never final.
    """
    seconds = float(retry_after) if retry_after is not None and retry_after.isdecimal() else None
    try:
        said = msgspec.json.decode(body, type=ErrorBody)
    except UNREADABLE:
        return blocked(status, seconds)
    if said.retry_after_ms is not None:
        seconds = said.retry_after_ms / 1000
    return ServerError(said.message, code=said.code, retryable=said.retryable, retry_after=seconds)


def blocked(status: int, retry_after: float | None = None) -> Blocked:
    """Return the error for an answer that is not the server's."""
    return Blocked(f"something on the way answered {status}", retry_after=retry_after)
