"""The keys of the server API: configured plain or as `sha256:HEX`, for everything or for some scopes.

```
TIDINGS_API_KEYS="sha256:9f86d0…;scopes=publish+metrics,another-plain-key"
```

Several hold at once: a key is replaced by adding the new one, moving the callers, and taking the old one out. A
plain hash without salt is enough, because a key is random (`tidings key`), not a password.
"""

import hashlib
import hmac
from collections.abc import Iterable
from enum import StrEnum

_HASHED = "sha256:"
_SCOPES = ";scopes="


class Scope(StrEnum):
    """What a key is for."""

    PUBLISH = "publish"  # POST /api/publish
    METRICS = "metrics"  # POST /api/metrics
    LOGS = "logs"  # reading /api/logs
    ALERTS = "alerts"  # acknowledging and silencing
    USERS = "users"  # ending connections, revoking
    READ = "read"  # every GET that shows users, rooms, metrics or alerts


EVERY_SCOPE = frozenset(Scope)


class ServerKeys:
    """Knows the configured keys by their hashes alone.

    Comparing hashes of equal length, all of them, tells an observer neither a key's length nor which key
    was near.

    Raises:
        ValueError: a key that is none; the message does not show it.
    """

    def __init__(self, keys: Iterable[str]) -> None:
        self._keys = [_parse(number, key) for number, key in enumerate(keys, 1) if key]

    def scopes_of(self, key: str) -> frozenset[Scope] | None:
        """Return what a key is for; None if it is none of ours."""
        offered = _digest(key)
        found: frozenset[Scope] | None = None
        for digest, scopes in self._keys:
            if hmac.compare_digest(digest, offered):
                found = scopes if found is None else found | scopes
        return found


def _parse(number: int, text: str) -> tuple[bytes, frozenset[Scope]]:
    key, marked, scopes = text.partition(_SCOPES)
    if not key:
        raise ValueError(f"TIDINGS_API_KEYS: number {number} is no key")
    return _digest_of(number, key), _parse_scopes(number, scopes) if marked else EVERY_SCOPE


def _digest_of(number: int, key: str) -> bytes:
    if not key.startswith(_HASHED):
        return _digest(key)
    try:
        digest = bytes.fromhex(key.removeprefix(_HASHED))
    except ValueError:
        digest = b""
    if len(digest) != hashlib.sha256().digest_size:
        raise ValueError(f"TIDINGS_API_KEYS: number {number} has no SHA-256 in hexadecimal after `sha256:`")
    return digest


def _parse_scopes(number: int, text: str) -> frozenset[Scope]:
    try:
        return frozenset(Scope(name) for name in text.split("+"))
    except ValueError:
        known = ", ".join(Scope)
        raise ValueError(f"TIDINGS_API_KEYS: number {number} has a scope other than {known}") from None


def _digest(key: str) -> bytes:
    return hashlib.sha256(key.encode("utf-8", "surrogatepass")).digest()
