"""What a close code asks for."""

from tidings_client.generated.codes import RECONNECTS

# The token ran out: a new one is asked for before the next attempt.
TOKEN_EXPIRED = 4002


def may_reconnect(code: int) -> bool:
    """Say whether to come back. What the table does not know (1006: no close frame) is an accident."""
    return code < 4500 if code >= 4000 else RECONNECTS.get(code, True)
