"""Values of settings that are more than text: namespaces, addresses, origins, keys. Pure; messages show no secret."""

import hashlib
import ipaddress
import json
import re
from enum import StrEnum
from typing import Annotated, Literal, TypeVar
from urllib.parse import urlsplit

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field
from pydantic_settings import NoDecode

from services.wire.grants import DEFAULT, Grants
from services.wire.subjects import DEFAULT_NAMESPACE

MIN_SECRET_BYTES = 32  # RFC 7518 §3.2: a key as long as the hash

_ORIGIN = re.compile(r"(?P<scheme>[a-z][a-z0-9+.-]*)://(?P<authority>[^/?#@\s]+)")
DEFAULT_PORT = {"http": ":80", "https": ":443"}
PresenceEvent = Literal[
    "user_online", "user_offline", "room_occupied", "room_vacated", "member_joined", "member_left"
]
HookName = Literal["connect", "join", "publish", "rpc"]
PLAIN_WORD = re.compile(r"[a-z0-9][a-z0-9_-]{0,31}")

_HASHED = "sha256:"
_SCOPES = ";scopes="


def split_list(value: object) -> object:
    """Lists come from the environment as `a,b` and from TOML as arrays."""
    if isinstance(value, str):
        return [part.strip() for part in value.split(",") if part.strip()]
    return value


ItemT = TypeVar("ItemT")
CommaList = Annotated[list[ItemT], NoDecode, BeforeValidator(split_list)]


class Namespace(BaseModel):
    """Options of the rooms whose name starts with `NAME:` (or, for `default`, of all others)."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    durable: bool = Field(True, description="Messages are stored, numbered and can be recovered.")
    history_size: int = Field(100, ge=1, le=100_000, description="Messages kept per room.")
    history_ttl_s: int = Field(600, ge=1, description="Seconds a message is kept.")
    max_bytes: int = Field(
        0,
        ge=0,
        description="Bytes kept of all rooms of the namespace; then the oldest messages are deleted. 0: `history_max_bytes`.",
    )
    publish: Literal["members", "server"] = Field(
        "members", description="`members`: members with the grant may publish; `server`: the server API only."
    )
    sanitize: bool = Field(
        False,
        description="Every string in `content`, and the `username`, becomes harmless HTML before it is stored.",
    )
    message_rate: float = Field(
        0.0, ge=0, description="Messages per second of one connection to all rooms of the namespace together."
    )
    echo: bool = Field(False, description="Value of `echo` in messages without one.")


def default_namespaces() -> dict[str, Namespace]:
    """Return the namespaces that exist always."""
    return {DEFAULT_NAMESPACE: Namespace(), "live": Namespace(durable=False)}


def parse_grants(value: object) -> Grants:
    """Grants come from the environment as JSON and from TOML as a table; fields not named keep their default."""
    if isinstance(value, Grants):
        return value
    if isinstance(value, str):
        value = json.loads(value)
    return Grants.parse(DEFAULT.to_dict() | value if isinstance(value, dict) else value)


class Scope(StrEnum):
    """What an API key is for."""

    PUBLISH = "publish"  # POST /api/publish
    METRICS = "metrics"  # POST /api/metrics
    LOGS = "logs"  # reading /api/logs
    ALERTS = "alerts"  # acknowledging and silencing
    USERS = "users"  # ending connections, memberships, revoking
    TICKETS = "tickets"  # POST /api/tickets for any user
    IMPERSONATE = "impersonate"  # POST /api/publish as any user
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
    """Return the digest that is kept of a key."""
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
    """Whether only this machine reaches an address. Names other than `localhost` are not resolved."""
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


def is_secure_url(url: str) -> bool:
    """Whether what is sent to a URL cannot be read or changed on the way: https, or http on this machine."""
    if not is_http_url(url):
        return False
    parts = urlsplit(url)
    return parts.scheme == "https" or is_loopback(parts.hostname or "")
