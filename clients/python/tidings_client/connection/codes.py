"""Close codes, and whether to reconnect after them."""

from tidings_client.generated.codes import RECONNECTS

# The token expired: the client gets a new one before the next attempt.
TOKEN_EXPIRED = 4002


def may_reconnect(code: int) -> bool:
    """Return whether to reconnect. Unknown codes (1006: no close frame) count as accidents."""
    return code < 4500 if code >= 4000 else RECONNECTS.get(code, True)
