"""Events for webhooks: what applications' servers are told of presence.

They wait in the store, written by the step that caused them, until every target has them.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field
from enum import IntFlag


class HookKind(IntFlag):
    """What happened. The numbers are those of `lua/commit.lua`."""

    USER_ONLINE = 1
    USER_OFFLINE = 2
    ROOM_OCCUPIED = 4
    ROOM_VACATED = 8


NO_HOOKS = HookKind(0)


@dataclass(frozen=True, slots=True)
class HookEvent:
    """One event. Numbers rise by one within an epoch; `about` is a user id or a room, `username` is the user's."""

    number: int
    kind: HookKind
    about: str
    username: str
    at_ms: int


@dataclass(frozen=True, slots=True)
class HookTurn:
    """What one process may deliver to one target now; `lost` events before these were dropped undelivered."""

    epoch: str = ""
    lost: int = 0
    events: list[HookEvent] = field(default_factory=list)


def kinds_named(names: Iterable[str]) -> HookKind:
    """Return the kinds of the names that the configuration uses. Raises KeyError."""
    kinds = NO_HOOKS
    for name in names:
        kinds |= HookKind[name.upper()]
    return kinds
