"""The online users of one scope, from a snapshot and the diffs after it. No I/O, no clock.

Diffs carry (epoch, version), so the next diff reveals a lost one. Then a new snapshot is fetched, and followers are
sent the difference between the two rosters. Of a large scope only the number of users is known.
"""

from collections.abc import Iterator

import msgspec

from services.wire.events import PresenceChange, PresenceDiff
from services.wire.records import UNSET, User
from services.wire.server import PresenceUpdated, StatusChanged, UserOffline, UserOnline

_encode = msgspec.json.Encoder().encode


class Roster:
    """The users of one scope (everyone, or one room) at one version; or, of a large scope, their `count`."""

    __slots__ = ("count", "epoch", "users", "version")

    def __init__(self) -> None:
        self.epoch = ""
        self.version = -1
        self.count: int | None = None
        self.users: dict[str, User] = {}

    def apply(self, diff: PresenceDiff) -> list[PresenceChange] | None:
        """Apply a diff; return the new changes, or None if one before it is missing.

        A count needs nothing before it; changes after a count need a snapshot.
        """
        if diff.epoch != self.epoch:
            return None
        if isinstance(diff.count, int):
            if diff.version >= self.version:
                self.version, self.count = diff.version, diff.count
                self.users = {}
            return []
        first = diff.version - len(diff.changes) + 1
        if diff.version <= self.version:
            return []
        if first > self.version + 1 or self.count is not None:
            return None
        fresh = diff.changes[self.version + 1 - first :]
        for change in fresh:
            self._apply_one(change)
        self.version = diff.version
        return list(fresh)

    def replace(self, epoch: str, version: int, users: list[User], count: int | None = None) -> None:
        """Replace everything by a snapshot; a large scope has only a `count`."""
        self.users = {user.user_id: user for user in users}
        self.epoch, self.version, self.count = epoch, version, count

    def pages(self, max_bytes: int) -> Iterator[tuple[list[User], bool]]:
        """Yield all users by id, and whether more follow, in pages of about `max_bytes` of JSON.

        Each page is current when it is taken. A follower that gets all pages, and every change from the first page
        on, then has what the roster has.
        """
        page: list[User] = []
        size = 0
        for user_id in sorted(self.users):
            user = self.users.get(user_id)
            cost = 0 if user is None else len(_encode(user)) + 1
            if page and size + cost > max_bytes:
                yield page, True
                user = self.users.get(user_id)
                page, size = [], 0
            if user is not None:  # else gone since the first page
                page.append(user)
                size += cost
        yield page, False

    def _apply_one(self, change: PresenceChange) -> None:
        match change:  # others are about users outside this scope
            case UserOnline(user=user):
                self.users[user.user_id] = user
            case UserOffline(user_id=user_id):
                self.users.pop(user_id, None)
            case StatusChanged(user_id=user_id, status=status) if user_id in self.users:
                self.users[user_id] = msgspec.structs.replace(self.users[user_id], status=status)
            case PresenceUpdated(user_id=user_id, custom_data=data) if user_id in self.users:
                self.users[user_id] = msgspec.structs.replace(self.users[user_id], custom_data=data)


def _shown_by(user: User) -> tuple[str, object]:
    return user.username, user.member_data


def changes_between(old: dict[str, User], new: dict[str, User]) -> Iterator[PresenceChange]:
    """Yield the changes from one roster to another. `lastSeen` alone is no change."""
    for user_id in old:
        if user_id not in new:
            yield UserOffline(user_id=user_id)
    for user_id, user in new.items():
        before = old.get(user_id)
        lost_data = before is not None and before.custom_data is not UNSET and user.custom_data is UNSET
        # There is no message for a change of `memberData` alone.
        if before is None or _shown_by(before) != _shown_by(user) or lost_data:
            yield UserOnline(user=user)
            continue
        if before.status != user.status:
            yield StatusChanged(user_id=user_id, status=user.status)
        if before.custom_data != user.custom_data:
            yield PresenceUpdated(user_id=user_id, custom_data=user.custom_data)
