"""What a change of state looks like: to the one who asked for it, and to those who follow presence.

A scope is everyone, or one room. Each change of a scope raises its version by one; versions compare only
within one epoch. Changes are net: what a batch did and undid is not in them.
"""

from dataclasses import dataclass, field
from enum import IntEnum

import msgspec

from services.wire.events import PresenceChange
from services.wire.records import UNSET, Status, User
from services.wire.server import UserJoined, UserLeft


class Outcome(IntEnum):
    """What became of a batch. The numbers are those of `lua/apply.lua`."""

    APPLIED = 0
    REPEATED = 1  # this batch, or a later one, is already in the state: nothing changed
    UNKNOWN = 2  # no lease, or one that has missed a batch: the gateway must announce everything afresh
    SUPERSEDED = (
        3  # a newer boot of this gateway has opened a lease: this process must not speak for it any more
    )
    AGAIN = 4  # a piece of it is done: send the same batch again to go on from there


@dataclass(frozen=True, slots=True)
class RoomChanges:
    """Changes of one room's presence; `version` is the room's after the last of them.

    Of a large room only `count` is told, the number of its users; `changes` is empty then.
    """

    room: str
    version: int
    changes: list[PresenceChange]
    count: int | None = None


@dataclass(frozen=True, slots=True)
class Changes:
    """What one atomic step changed: for followers of everyone, for followers of rooms, for members of rooms.

    `version` is that of the scope of everyone, also when nothing changed there. A change of a user who is
    in a room appears in both scopes. A user whose display name changed while online appears as
    `user_online` again, with everything that is known of them. Where too many are online, `users` is empty
    and `count` says how many there are; members of large rooms get no notices.

    `step` is what to confirm once all of it has been published; 0 where there is nothing to publish.
    """

    epoch: str
    version: int
    users: list[PresenceChange] = field(default_factory=list)
    rooms: list[RoomChanges] = field(default_factory=list)
    notices: list[UserJoined | UserLeft] = field(default_factory=list)
    count: int | None = None
    step: int = 0

    @property
    def empty(self) -> bool:
        """Whether nobody needs to hear of it."""
        return not (self.users or self.rooms or self.notices or self.count is not None)


@dataclass(frozen=True, slots=True)
class Applied:
    """The answer to a batch."""

    outcome: Outcome
    changes: Changes


@dataclass(frozen=True, slots=True)
class Swept:
    """What time did. `again`: more was due than one step may do. `overdue`: earlier steps whose publication nobody
    confirmed, with the notices that still hold; somebody else may have published them."""

    changes: Changes
    again: bool
    overdue: list[Changes] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Page:
    """Users of one scope in the order of their ids (bytes of UTF-8). An empty `cursor` ends the pages.

    `count` is how many the scope has; of a `large` one only counts are told.
    """

    epoch: str
    version: int
    users: list[User]
    cursor: str
    count: int = 0
    large: bool = False


@dataclass(frozen=True, slots=True)
class Stats:
    """Counts of what is there now."""

    users: int
    connections: int
    rooms: int
    gateways: int


def user_record(user_id: str, username: str, status: Status, last_seen: int, data: str) -> User:
    """Return a user as the wire shows them. `data` is JSON text and stays so; empty when there is none."""
    custom_data = msgspec.Raw(data.encode()) if data else UNSET
    return User(
        user_id=user_id, username=username, status=status, last_seen=last_seen, custom_data=custom_data
    )
