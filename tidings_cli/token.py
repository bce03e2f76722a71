"""A token for development: what an application's own login would sign."""

import secrets

import jwt
import msgspec

from services.settings import Settings

# RFC 7518 §3.2: a key as long as the hash.
_LEAST_SECRET_BYTES = 32


class CannotMint(RuntimeError):
    """There is no secret to sign with, or it is too short."""


class Permissions(msgspec.Struct, kw_only=True, omit_defaults=True):
    """The `tidings` claim. What it does not name is not allowed."""

    join: list[str] = []
    publish: list[str] = []
    channels: list[str] = []
    broadcast: bool = False
    direct: bool = False
    admin: bool = False


def mint(settings: Settings, sub: str, name: str, wanted: Permissions, *, ttl_s: int, now: int) -> str:
    """Return a signed token for `sub` that expires `ttl_s` seconds after `now` (seconds since 1970).

    Raises:
        CannotMint: TIDINGS_JWT_SECRETS is empty or its first secret too short.
    """
    if not settings.jwt_secrets:
        raise CannotMint("TIDINGS_JWT_SECRETS is not set: there is no secret to sign with")
    secret = settings.jwt_secrets[0].get_secret_value()
    if len(secret.encode()) < _LEAST_SECRET_BYTES:
        raise CannotMint(f"the first of TIDINGS_JWT_SECRETS is shorter than {_LEAST_SECRET_BYTES} bytes")
    claims: dict[str, object] = {"sub": sub, "iat": now, "exp": now + ttl_s, "jti": secrets.token_hex(8)}
    if name:
        claims["name"] = name
    if settings.jwt_audience:
        claims["aud"] = settings.jwt_audience
    if settings.jwt_issuer:
        claims["iss"] = settings.jwt_issuer
    if permissions := msgspec.to_builtins(wanted):
        claims["tidings"] = permissions
    return jwt.encode(claims, secret, algorithm="HS256")
