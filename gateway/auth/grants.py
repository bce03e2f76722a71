"""What a user may do, by patterns over rooms and channels.

In a pattern `*` stands for any run of characters, also none; nothing else is special. Patterns come from
tokens, and a token may be signed by somebody who lets users choose room names: so matching is a
left-to-right search for the literal pieces, which costs no more than one pass per piece and never
backtracks.
"""

import unicodedata
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from services.settings_values import MAX_PATTERN_LENGTH, MAX_PATTERNS

# A user's own inbox is theirs: whoever is let in receives it live, so following it needs no grant.
_OWN_CHANNEL = "inbox"
_ROOM_PRESENCE = "presence:"

_Match = Callable[[str], bool]


def _never(_name: str) -> bool:
    return False


def _always(_name: str) -> bool:
    return True


class InvalidPattern(ValueError):
    """A pattern that no grant can hold."""


@dataclass(frozen=True, slots=True)
class _Wildcard:
    """One pattern with at least one `*`, cut at its stars."""

    prefix: str
    middle: tuple[str, ...]
    suffix: str

    def matches(self, name: str) -> bool:
        at = len(self.prefix)
        end = len(name) - len(self.suffix)
        if at > end or not name.startswith(self.prefix) or not name.endswith(self.suffix):
            return False
        for piece in self.middle:
            # The leftmost place is as good as any later one: a star follows, so what remains can only shrink.
            found = name.find(piece, at, end)
            if found < 0:
                return False
            at = found + len(piece)
        return True


def _wildcard(pattern: str) -> _Wildcard:
    prefix, *middle, suffix = pattern.split("*")
    return _Wildcard(prefix, tuple(piece for piece in middle if piece), suffix)


@dataclass(frozen=True, slots=True)
class Patterns:
    """A set of patterns; a name matches if one of them does.

    The names are compared as they are: callers pass normalized names.
    """

    texts: tuple[str, ...] = ()
    matches: _Match = field(default=_never, init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        """Precompile. An exact name costs one hash, a star alone costs nothing."""
        if len(self.texts) > MAX_PATTERNS:
            raise InvalidPattern(f"{len(self.texts)} patterns, the limit is {MAX_PATTERNS}")
        normal = tuple(_normalize(text) for text in self.texts)
        object.__setattr__(self, "texts", normal)
        if normal:
            object.__setattr__(self, "matches", _compile(normal))

    @classmethod
    def of(cls, texts: Iterable[str]) -> "Patterns":
        """Return the set of these patterns.

        Raises:
            InvalidPattern: too many, or one that is empty or too long.
        """
        return cls(tuple(texts))


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


_ANY = Patterns(("*",))


@dataclass(frozen=True, slots=True)
class Grants:
    """What a user may do. Nothing that is not named here is allowed.

    `channels` holds for `presence`, `presence:ROOM`, `metrics`, `alerts` and `logs`.
    `admin` allows everything, and the server API.
    """

    join: Patterns = Patterns()
    publish: Patterns = Patterns()
    channels: Patterns = Patterns()
    broadcast: bool = False
    direct: bool = False
    admin: bool = False

    def may_join(self, room: str) -> bool:
        """Whether the user may become a member of a room and read its history."""
        return self.admin or self.join.matches(room)

    def may_publish(self, room: str) -> bool:
        """Whether the user may publish to a room they are in."""
        return self.admin or self.publish.matches(room)

    def may_follow(self, channel: str) -> bool:
        """Whether the user may follow a channel, or read over HTTP what it shows.

        A pattern like `presence:*` shows who is in the rooms that the user may join; the members of another room are
        shown to those alone whose grants name that one channel, letter by letter.
        """
        if self.admin or channel == _OWN_CHANNEL:
            return True
        if not self.channels.matches(channel):
            return False
        room = channel.removeprefix(_ROOM_PRESENCE)
        named = channel in self.channels.texts and "*" not in channel
        return room == channel or self.join.matches(room) or named


ALL = Grants(join=_ANY, publish=_ANY, channels=_ANY, broadcast=True, direct=True, admin=True)

NOTHING = Grants()

# What a token without a `tidings` claim allows: rooms, presence and direct messages, nothing that concerns
# everyone.
DEFAULT = Grants(join=_ANY, publish=_ANY, channels=Patterns(("presence", "presence:*")), direct=True)
