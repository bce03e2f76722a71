"""A user as the gateway knows them."""

from dataclasses import dataclass

from gateway.auth.grants import Grants

# Under this id the server API publishes; no token can be for it.
SERVER_USER_ID = "server"


@dataclass(frozen=True, slots=True)
class Identity:
    """Who is at the other end of one request or connection.

    `user_id` is normalized and is the identity; `username` is for display and proves nothing.
    `session` brings an anonymous user back (empty under `jwt`). `expires_at` is when the credentials end, in
    seconds since 1970, with the tolerated clock skew already added. `token_id` (`jti`) and `issued_at` (`iat`,
    in seconds) are what a revocation goes by; None where the token does not say when it was issued.
    """

    user_id: str
    username: str
    grants: Grants
    session: str = ""
    expires_at: float | None = None
    token_id: str = ""
    issued_at: float | None = None
