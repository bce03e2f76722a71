"""Permissions of a user, by patterns over rooms and channels: in tokens, settings, tickets and at every check.

In a pattern `*` matches any run of characters, including none; nothing else is special. Patterns come from tokens, and
room names from users: matching searches the literal pieces from left to right and never backtracks.
"""

import unicodedata
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import msgspec

MAX_PATTERNS = 256
MAX_PATTERN_LENGTH = 256  # a name is at most 128 bytes, and `presence:` may stand before it

# Every user receives their own inbox live, so following it needs no grant.
_OWN_CHANNEL = "inbox"
_ROOM_PRESENCE = "presence:"

_Match = Callable[[str], bool]


def _never(_name: str) -> bool:
    return False


def _always(_name: str) -> bool:
    return True


class InvalidPattern(ValueError):
    """A pattern that no grant can hold. The message names no value and may be shown to the client."""


@dataclass(frozen=True, slots=True)
class _Wildcard:
    """One pattern with at least one `*`, split at its stars."""

    prefix: str
    middle: tuple[str, ...]
    suffix: str

    def matches(self, name: str) -> bool:
        at = len(self.prefix)
        end = len(name) - len(self.suffix)
        if at > end or not name.startswith(self.prefix) or not name.endswith(self.suffix):
            return False
        for piece in self.middle:
            # The leftmost match is as good as any later one: a star follows, so what remains can only shrink.
            found = name.find(piece, at, end)
            if found < 0:
                return False
            at = found + len(piece)
        return True


def _wildcard(pattern: str) -> _Wildcard:
    prefix, *middle, suffix = pattern.split("*")
    return _Wildcard(prefix, tuple(piece for piece in middle if piece), suffix)


class Patterns:
    """A set of patterns; a name matches if one of them does.

    Callers pass normalized names. Not a dataclass, because msgspec would treat that as an object: a claim has a list.

    Raises:
        InvalidPattern: too many, or one that is empty or too long.
    """

    __slots__ = ("matches", "texts")

    def __init__(self, texts: Iterable[str] = ()) -> None:
        self.texts = tuple(map(_normalize, texts))
        if len(self.texts) > MAX_PATTERNS:
            raise InvalidPattern(f"{len(self.texts)} patterns, the limit is {MAX_PATTERNS}")
        # Compiled: an exact name costs one hash, a star alone costs nothing.
        self.matches: _Match = _compile(self.texts) if self.texts else _never

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Patterns) and self.texts == other.texts

    def __hash__(self) -> int:
        return hash(self.texts)

    def __repr__(self) -> str:
        return f"Patterns({self.texts})"


def _compile(patterns: tuple[str, ...]) -> _Match:
    if any(pattern.strip("*") == "" for pattern in patterns):
        return _always
    exact = frozenset(pattern for pattern in patterns if "*" not in pattern)
    wildcards = tuple(_wildcard(pattern).matches for pattern in patterns if "*" in pattern)
    if not wildcards:
        return exact.__contains__

    def matches(name: str) -> bool:
        return name in exact or any(match(name) for match in wildcards)

    return matches


def _normalize(pattern: str) -> str:
    """Spell a pattern as names are spelled (NFC), or it would miss the names it was written for."""
    if not pattern:
        raise InvalidPattern("a pattern must not be empty")
    if len(pattern) > MAX_PATTERN_LENGTH:
        raise InvalidPattern(f"a pattern is longer than {MAX_PATTERN_LENGTH} characters")
    return unicodedata.normalize("NFC", pattern)


_NONE = Patterns()
_ANY = Patterns(("*",))


class Grants(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Permissions of a user: the `tidings` claim of a token. What is not named is not allowed.

    `channels` covers `presence`, `presence:ROOM`, `metrics`, `alerts` and `logs`. `admin` allows everything, and the
    server API. An unknown field is an error: a misspelt permission must not get lost.
    """

    join: Patterns = _NONE
    publish: Patterns = _NONE
    channels: Patterns = _NONE
    broadcast: bool = False
    direct: bool = False
    admin: bool = False

    @classmethod
    def parse(cls, values: object) -> "Grants":
        """Return grants from JSON-like values.

        Raises:
            ValueError: an unknown field, a wrong type or an invalid pattern; the message says which.
        """
        try:
            return msgspec.convert(values, cls, dec_hook=_parse_patterns)
        except msgspec.ValidationError as fault:
            raise ValueError(str(fault)) from None

    def to_dict(self) -> dict[str, Any]:
        """Return the same JSON-like values, each field named."""
        return {
            name: list(value.texts) if isinstance(value, Patterns) else value
            for name, value in msgspec.structs.asdict(self).items()
        }

    def may_join(self, room: str) -> bool:
        """Permission to become a member of a room and to read its history."""
        return self.admin or self.join.matches(room)

    def may_publish(self, room: str) -> bool:
        """Permission to publish to a room that the user is in."""
        return self.admin or self.publish.matches(room)

    def may_follow(self, channel: str) -> bool:
        """Permission to follow a channel, or to read the same over HTTP.

        A pattern like `presence:*` covers the rooms that the user may join; the members of any other room are shown
        only if the grants name that one channel literally.
        """
        if self.admin or channel == _OWN_CHANNEL:
            return True
        if not self.channels.matches(channel):
            return False
        room = channel.removeprefix(_ROOM_PRESENCE)
        named = channel in self.channels.texts and "*" not in channel
        return room == channel or self.join.matches(room) or named


def _parse_patterns(_kind: type, values: object) -> Patterns:
    return Patterns(msgspec.convert(values, tuple[str, ...]))


ALL = Grants(join=_ANY, publish=_ANY, channels=_ANY, broadcast=True, direct=True, admin=True)

NOTHING = Grants()

# Default of a token without a `tidings` claim: rooms, presence and direct messages, nothing that concerns everyone.
DEFAULT = Grants(join=_ANY, publish=_ANY, channels=Patterns(("presence", "presence:*")), direct=True)
