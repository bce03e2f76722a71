"""What an HTTP answer that is no success means."""

import msgspec

from tidings_client.errors import ServerError
from tidings_client.generated.wire import ErrorBody


def refusal(status: int, retry_after: str | None, body: bytes | bytearray) -> ServerError:
    """Return the error of an answer: what its body says, or for a proxy's page what its status says."""
    seconds = float(retry_after) if retry_after is not None and retry_after.isdecimal() else None
    try:
        said = msgspec.json.decode(body, type=ErrorBody)
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError):
        retryable = status >= 500 or status == 429
        text = f"the server answered {status}"
        return ServerError(text, code="internal", retryable=retryable, retry_after=seconds)
    if said.retry_after_ms is not None:
        seconds = said.retry_after_ms / 1000
    return ServerError(said.message, code=said.code, retryable=said.retryable, retry_after=seconds)
