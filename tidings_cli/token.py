"""A token for development: what an application's own login would sign."""

import secrets
from collections.abc import Mapping

import jwt

from services.settings import Settings
from services.settings_values import MIN_SECRET_BYTES
from services.wire.grants import Grants


class CannotMint(RuntimeError):
    """No secret to sign with, or one that is too short; or permissions that no gateway takes."""


def mint(
    settings: Settings, sub: str, name: str, permissions: Mapping[str, object], *, ttl_s: int, now: int
) -> str:
    """Return a signed token for `sub` that expires `ttl_s` seconds after `now` (seconds since 1970).

    `permissions` are the `tidings` claim; without any, the gateway's default grants hold.

    Raises:
        CannotMint: TIDINGS_JWT_SECRETS is empty or its first secret too short, or the permissions are invalid.
    """
    try:
        Grants.parse(permissions)
    except ValueError as fault:
        raise CannotMint(f"no gateway would take such permissions: {fault}") from None
    if not settings.jwt_secrets:
        raise CannotMint("TIDINGS_JWT_SECRETS is not set: there is no secret to sign with")
    secret = settings.jwt_secrets[0].get_secret_value()
    if len(secret.encode()) < MIN_SECRET_BYTES:
        raise CannotMint(f"the first of TIDINGS_JWT_SECRETS is shorter than {MIN_SECRET_BYTES} bytes")
    claims: dict[str, object] = {"sub": sub, "iat": now, "exp": now + ttl_s, "jti": secrets.token_hex(8)}
    if name:
        claims["name"] = name
    if settings.jwt_audience:
        claims["aud"] = settings.jwt_audience
    if settings.jwt_issuer:
        claims["iss"] = settings.jwt_issuer
    if permissions:
        claims["tidings"] = permissions
    return jwt.encode(claims, secret, algorithm="HS256")
