"""A user as the gateway knows them, the signed session that proves an anonymous one, and the refusal of any other.

A session is `1.` and the base64url of 16 bytes of HMAC-SHA256 followed by the user's id. It holds no secret and no
rights: it only proves that this deployment gave that id to the client that presents it. The leading digit is the version; the
key is derived for this one purpose, so that the same secret may sign other things elsewhere.
"""

import base64
import hmac
import secrets
from dataclasses import dataclass

from services.wire.codes import ErrorCode
from services.wire.grants import Grants

# The server API publishes under this id; no token can be for it.
SERVER_USER_ID = "server"

_VERSION = "1."
_MAC_BYTES = 16  # RFC 2104 §5: no less than half of the hash's length
_MAX_LENGTH = 256  # a user id is at most 128 bytes


class AuthRefused(Exception):
    """A request refused before it is carried out. `message` may be shown to the client."""

    def __init__(self, code: ErrorCode, message: str) -> None:
        super().__init__(f"{code.code}: {message}")
        self.code = code
        self.message = message


@dataclass(frozen=True, slots=True)
class Identity:
    """The user of one request or connection.

    `user_id` is normalized and is the identity; `username` is for display and proves nothing. `session` recovers an
    anonymous user (empty under `jwt`). `expires_at` is when the credentials end, in seconds since 1970, with the
    tolerated clock skew already added. `token_id` (`jti`) and `issued_at` (`iat`, in seconds; None where the token has
    none) are what a revocation goes by.
    """

    user_id: str
    username: str
    grants: Grants
    session: str = ""
    expires_at: float | None = None
    token_id: str = ""
    issued_at: float | None = None


class SessionSigner:
    """Signs and verifies sessions. An empty secret is replaced by a random one of this process."""

    def __init__(self, secret: bytes) -> None:
        key = hmac.digest(secret or secrets.token_bytes(32), b"tidings session v1", "sha256")
        self._keyed = hmac.new(key, digestmod="sha256")

    def sign(self, user_id: str) -> str:
        """Return the session of a user."""
        name = user_id.encode()
        mac = self._keyed.copy()  # half the time of starting with the key
        mac.update(name)
        signed = base64.urlsafe_b64encode(mac.digest()[:_MAC_BYTES] + name)
        return _VERSION + signed.rstrip(b"=").decode()

    def verify(self, session: str) -> str | None:
        """Return the user whose session this is, or None if this deployment did not sign it."""
        if not session.startswith(_VERSION) or len(session) > _MAX_LENGTH or not session.isascii():
            return None
        try:
            text = session.removeprefix(_VERSION)
            signed = base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))
            user_id = signed[_MAC_BYTES:].decode()
        except ValueError:  # not base64, or not UTF-8 (binascii.Error and UnicodeDecodeError are ValueErrors)
            return None
        # Comparing with what we would sign ourselves leaves one valid spelling of each session.
        return user_id if user_id and hmac.compare_digest(self.sign(user_id), session) else None
