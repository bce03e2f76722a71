"""The keys of the server API: configured plain or as `sha256:HEX`, for everything or for some scopes.

```
TIDINGS_API_KEYS="sha256:9f86d0…;scopes=publish+metrics,another-plain-key"
```

Several hold at once: a key is replaced by adding the new one, moving the callers, and taking the old one out. A
plain hash without salt is enough, because a key is random (`tidings key`), not a password.
"""

import hmac
from collections.abc import Iterable

from services.settings_values import EVERY_SCOPE, Scope, digest_of_key, parse_api_key

__all__ = ["EVERY_SCOPE", "ApiKeys", "Scope"]


class ApiKeys:
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
        offered = digest_of_key(key)
        found: frozenset[Scope] | None = None
        for digest, scopes in self._keys:
            if hmac.compare_digest(digest, offered):
                found = scopes if found is None else found | scopes
        return found


def _parse(number: int, text: str) -> tuple[bytes, frozenset[Scope]]:
    try:
        return parse_api_key(text)
    except ValueError as fault:
        raise ValueError(f"TIDINGS_API_KEYS: number {number} {fault}") from None
