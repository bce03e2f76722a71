"""Results of the store's operations, and what a change of state looks like to those who follow presence.

A scope is everyone, or one room. Each change of a scope raises its version by one; versions compare only
within one epoch. Changes are net: what a batch did and undid is not in them.
"""

from dataclasses import dataclass, field
from enum import IntEnum, IntFlag

import msgspec

from services.wire.events import PresenceChange, PresenceDiff
from services.wire.records import UNSET, Status, UnsetType, User
from services.wire.server import UserJoined, UserLeft

# The order in which the status of one of several connections wins. `busy` is chosen, never a default, so it wins over
# what other connections have; of the others the more available one wins.
RANK = {Status.AWAY: 1, Status.ONLINE: 2, Status.BUSY: 3}
STATUS_OF_RANK = {rank: status for status, rank in RANK.items()}


class PresenceStoreUnavailable(Exception):  # it is a state of the world, not a mistake
    """The store did not answer in time, or refuses to. Whether the operation happened is unknown."""


class BatchResult(IntEnum):
    """What became of a batch. The numbers are those of `lua/apply.lua`."""

    APPLIED = 0
    DUPLICATE = 1  # this batch, or a later one, is already in the state: nothing changed
    RESYNC = 2  # no lease, or one that has missed a batch: the gateway must announce everything again
    FENCED = 3  # a newer incarnation of this gateway has opened a lease: this process must not speak for it any more
    PARTIAL = 4  # a piece of it is done: send the same batch again to continue

    @property
    def label(self) -> str:
        return ("applied", "repeated", "unknown", "superseded", "again")[self]


@dataclass(frozen=True, slots=True)
class Changes:
    """What one atomic step changed: for followers of everyone, for followers of rooms, for members of rooms.

    `version` is that of the scope of everyone, also when nothing changed there. A change of a user who is
    in a room appears in both scopes. A user whose display name changed while online appears as
    `user_online` again, complete. In a scope over its limit only counts are announced: `users` is empty and `count`
    says how many are online; members of such a room get no notices.

    `commit_id` acknowledges that all of it has been published; 0 where there is nothing to publish.
    """

    epoch: str
    version: int
    users: list[PresenceChange] = field(default_factory=list)
    rooms: list[PresenceDiff] = field(default_factory=list)
    notices: list[UserJoined | UserLeft] = field(default_factory=list)
    count: int | UnsetType = UNSET
    commit_id: int = 0

    @property
    def empty(self) -> bool:
        return not (self.users or self.rooms or self.notices or self.count is not UNSET)


@dataclass(frozen=True, slots=True)
class AppliedBatch:
    """The answer to a batch, or to a piece of it."""

    result: BatchResult
    changes: Changes


@dataclass(frozen=True, slots=True)
class Sweep:
    """What expired. `more`: more was due than one step may do.

    `unacked`: earlier steps of which no publication was acknowledged, with the notices that are still true; another
    replica may have published them.
    """

    changes: Changes
    more: bool
    unacked: list[Changes] = field(default_factory=list)


class EventKind(IntFlag):
    """Kinds of webhook events. The numbers are those of `lua/commit.lua`."""

    USER_ONLINE = 1
    USER_OFFLINE = 2
    ROOM_OCCUPIED = 4
    ROOM_VACATED = 8
    MEMBER_JOINED = 16
    MEMBER_LEFT = 32


class QueuedEvent(msgspec.Struct, frozen=True, array_like=True):
    """One webhook event as `lua/commit.lua` packs it.

    Numbers rise by one within an epoch; `subject` is a user id or a room, `username` the user's. `room` is that of a
    member.
    """

    number: int
    kind: EventKind
    subject: str
    username: str
    at_ms: int
    room: str = ""


@dataclass(frozen=True, slots=True)
class DeliveryLease:
    """What one process may deliver to one target now; `dropped` events before these were given up undelivered."""

    epoch: str = ""
    dropped: int = 0
    events: list[QueuedEvent] = field(default_factory=list)


def raw_data(text: str) -> msgspec.Raw | UnsetType:
    """Return data of a user as on the wire: JSON text, which is not parsed; unset where it is empty."""
    return msgspec.Raw(text.encode()) if text else UNSET


def user_record(
    user_id: str, username: str, status: Status, last_seen: int, data: str, member_data: str = ""
) -> User:
    """Return a user as on the wire; `data` and `member_data` are JSON text."""
    return User(
        user_id=user_id,
        username=username,
        status=status,
        last_seen=last_seen,
        custom_data=raw_data(data),
        member_data=raw_data(member_data),
    )
