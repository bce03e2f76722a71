"""Answers that the application lets us keep for a while (`ttl`). No I/O and no clock.

While the application is down an answer is used as long as its `ttl` lasts, and no longer: it said how long it may be wrong.
"""

from collections import OrderedDict
from dataclasses import dataclass
from hashlib import blake2b
from typing import Generic, TypeVar

import msgspec

T = TypeVar("T")

MAX_ENTRIES = 20_000
MAX_BYTES = 16_777_216
_ENTRY_BYTES = 200  # beside the answer's own


@dataclass(frozen=True, slots=True)
class _Entry(Generic[T]):
    value: T
    until: float
    size: int


class AnswerCache(Generic[T]):
    """Answers by everything in the request that can matter. Of too many, those used least recently go."""

    def __init__(self, max_entries: int = MAX_ENTRIES, max_bytes: int = MAX_BYTES) -> None:
        self._entries: OrderedDict[bytes, _Entry[T]] = OrderedDict()
        self._max_entries = max_entries
        self._max_bytes = max_bytes
        self._bytes = 0

    def __len__(self) -> int:
        return len(self._entries)

    def get(self, key: bytes, now: float) -> T | None:
        """Return the answer, if there is one that still holds."""
        entry = self._entries.get(key)
        if entry is None:
            return None
        if entry.until <= now:
            self.discard(key)
            return None
        self._entries.move_to_end(key)
        return entry.value

    def put(self, key: bytes, value: T, until: float, size: int) -> None:
        """Keep an answer of `size` bytes until a time."""
        self.discard(key)
        entry = _Entry(value, until, size + _ENTRY_BYTES)
        self._entries[key] = entry
        self._bytes += entry.size
        while len(self._entries) > self._max_entries or self._bytes > self._max_bytes:
            self.discard(next(iter(self._entries)))

    def discard(self, key: bytes) -> None:
        """Forget an answer, if there is one."""
        entry = self._entries.pop(key, None)
        if entry is not None:
            self._bytes -= entry.size


def key_of(*parts: object) -> bytes:
    """Return the key of a request's parts, which are JSON-like. A hash, so that no cookie stays in memory."""
    return blake2b(msgspec.json.encode(parts, order="sorted"), digest_size=20).digest()
