"""Credentials: a token for development, as an application's own login would sign it, and keys for the server API.

A file of its own, because it alone imports PyJWT; `secret_files` has the credentials of the servers.
"""

import hashlib
import secrets
import time
from collections.abc import Mapping

import jwt

from services.settings import Settings
from services.settings_values import MIN_SECRET_BYTES, parse_scopes
from services.wire.grants import Grants
from tidings_cli import CommandFailed


def make_token(
    settings: Settings, sub: str, name: str, permissions: Mapping[str, object], *, ttl_s: int
) -> str:
    """Return a signed token for `sub` that expires after `ttl_s` seconds.

    `permissions` are the `tidings` claim; without any, the gateway's default grants hold.

    Raises:
        CommandFailed: TIDINGS_JWT_SECRETS is empty, its first secret too short, or the permissions are invalid.
    """
    try:
        Grants.parse(permissions)
    except ValueError as fault:
        raise CommandFailed(f"no gateway accepts these permissions: {fault}") from None
    if not settings.jwt_secrets:
        raise CommandFailed("TIDINGS_JWT_SECRETS is not set: there is no secret to sign with")
    secret = settings.jwt_secrets[0].get_secret_value()
    if len(secret.encode()) < MIN_SECRET_BYTES:
        raise CommandFailed(f"the first of TIDINGS_JWT_SECRETS is shorter than {MIN_SECRET_BYTES} bytes")
    now = int(time.time())
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


def make_key(scopes: str) -> tuple[str, str]:
    """Return a new key, and its entry in TIDINGS_API_KEYS. Empty `scopes` are all.

    Raises:
        ValueError: an unknown scope.
    """
    if scopes:
        parse_scopes(scopes)
    key = secrets.token_urlsafe(32)
    suffix = f";scopes={scopes}" if scopes else ""
    return key, f"sha256:{hashlib.sha256(key.encode()).hexdigest()}{suffix}"
