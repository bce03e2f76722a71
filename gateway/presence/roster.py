"""Who is online, from a snapshot and the diffs after it. No I/O, no clock.

Diffs carry (epoch, version), so a lost one is seen at the next; then a new snapshot is fetched, and the difference
between the two rosters is what followers still have to hear.
"""

import msgspec

from services.wire.events import PresenceChange, PresenceDiff
from services.wire.records import User
from services.wire.server import PresenceUpdated, StatusChanged, UserOffline, UserOnline


class Roster:
    """The users of one scope (everyone, or one room) at one version."""

    __slots__ = ("epoch", "users", "version")

    def __init__(self) -> None:
        self.epoch = ""
        self.version = -1
        self.users: dict[str, User] = {}

    def apply(self, diff: PresenceDiff) -> list[PresenceChange] | None:
        """Apply a diff; return the changes that were new, or None where one before it is missing."""
        first = diff.version - len(diff.changes) + 1
        if diff.epoch != self.epoch or first > self.version + 1:
            return None
        fresh = diff.changes[self.version + 1 - first :] if first <= self.version else diff.changes
        for change in fresh:
            self._apply_one(change)
        self.version = max(self.version, diff.version)
        return list(fresh)

    def replace(self, epoch: str, version: int, users: list[User]) -> list[PresenceChange]:
        """Take a snapshot; return the changes that lead to it from what was known before."""
        new = {user.user_id: user for user in users}
        changes: list[PresenceChange] = [
            UserOffline(user_id=user_id) for user_id in self.users if user_id not in new
        ]
        for user_id, user in new.items():
            old = self.users.get(user_id)
            if old is None:
                changes.append(UserOnline(user=user))
                continue
            if old.status != user.status:
                changes.append(StatusChanged(user_id=user_id, status=user.status))
            if old.custom_data != user.custom_data:
                changes.append(PresenceUpdated(user_id=user_id, custom_data=user.custom_data))
        self.epoch, self.version, self.users = epoch, version, new
        return changes

    def _apply_one(self, change: PresenceChange) -> None:
        match change:
            case UserOnline(user=user):
                self.users[user.user_id] = user
            case UserOffline(user_id=user_id):
                self.users.pop(user_id, None)
            case StatusChanged(user_id=user_id, status=status) if user_id in self.users:
                self.users[user_id] = msgspec.structs.replace(self.users[user_id], status=status)
            case PresenceUpdated(user_id=user_id, custom_data=data) if user_id in self.users:
                self.users[user_id] = msgspec.structs.replace(self.users[user_id], custom_data=data)
            case _:
                pass  # about somebody this scope does not hold: nothing to show
