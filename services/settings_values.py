"""Values of settings that are more than text: addresses, origins, keys. Pure; messages show no secret."""

import hashlib
import ipaddress
import re
from enum import StrEnum
from urllib.parse import urlsplit

MIN_SECRET_BYTES = 32  # RFC 7518 §3.2: a key as long as the hash

_ORIGIN = re.compile(r"(?P<scheme>[a-z][a-z0-9+.-]*)://(?P<authority>[^/?#@\s]+)")
DEFAULT_PORT = {"http": ":80", "https": ":443"}

_HASHED = "sha256:"
_SCOPES = ";scopes="


class Scope(StrEnum):
    """What a server key is for."""

    PUBLISH = "publish"  # POST /api/publish
    METRICS = "metrics"  # POST /api/metrics
    LOGS = "logs"  # reading /api/logs
    ALERTS = "alerts"  # acknowledging and silencing
    USERS = "users"  # ending connections, revoking
    READ = "read"  # every GET that shows users, rooms, metrics or alerts


EVERY_SCOPE = frozenset(Scope)


def parse_scopes(text: str) -> frozenset[Scope]:
    """Return the scopes in `publish+metrics`.

    Raises:
        ValueError: one is unknown.
    """
    names = text.split("+")
    for name in names:
        if name not in list(Scope):
            raise ValueError(f"{name!r} is no scope; there are {', '.join(Scope)}")
    return frozenset(Scope(name) for name in names)


def parse_api_key(text: str) -> tuple[bytes, frozenset[Scope]]:
    """Return the SHA-256 of a key of `TIDINGS_API_KEYS`, and what it is for.

    Raises:
        ValueError: it is no key, or has an unknown scope.
    """
    key, marked, scopes = text.partition(_SCOPES)
    if not key:
        raise ValueError("is no key")
    if not key.startswith(_HASHED):
        digest = digest_of_key(key)
    else:
        try:
            digest = bytes.fromhex(key.removeprefix(_HASHED))
        except ValueError:
            digest = b""
        if len(digest) != hashlib.sha256().digest_size:
            raise ValueError("has no SHA-256 in hexadecimal after `sha256:`")
    if not marked:
        return digest, EVERY_SCOPE
    try:
        return digest, parse_scopes(scopes)
    except ValueError:
        raise ValueError(f"has a scope other than {', '.join(Scope)}") from None


def digest_of_key(key: str) -> bytes:
    """Return what is kept of a key."""
    return hashlib.sha256(key.encode("utf-8", "surrogatepass")).digest()


def normalize_origin(origin: str) -> str:
    """Spell an origin as browsers do: lower case, no default port, no slash at the end.

    Raises:
        ValueError: it is none.
    """
    text = origin.strip().lower().removesuffix("/")
    parts = _ORIGIN.fullmatch(text)
    if parts is None or "*" in text:
        raise ValueError(f"not an origin (SCHEME://HOST[:PORT], no wildcard): {origin!r}")
    return f"{parts['scheme']}://{parts['authority'].removesuffix(DEFAULT_PORT.get(parts['scheme'], ''))}"


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches an address. Of a name other than `localhost` nobody knows."""
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def is_http_url(url: str) -> bool:
    """Whether something can be posted there."""
    try:
        parts = urlsplit(url)
        return (
            parts.scheme in ("http", "https")
            and bool(parts.hostname)
            and (parts.port is None or parts.port > 0)
        )
    except ValueError:
        return False


def is_safe_keys_url(url: str) -> bool:
    """Whether keys from there are nobody else's: https, or http on this machine."""
    if not is_http_url(url):
        return False
    parts = urlsplit(url)
    return parts.scheme == "https" or is_loopback(parts.hostname or "")
