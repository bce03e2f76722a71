"""Net changes and their versions: each tracked user before and after.

The model tracks a user before the first change; `commit` compares. So a batch that undoes what it did announces
nothing, and a gateway that announces all its connections again causes no change where nothing changed.
"""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

import msgspec

from presence_svc.changes import Changes, EventKind, raw_data, user_record
from presence_svc.policy import AnnouncePolicy
from services.wire.events import PresenceChange, PresenceDiff
from services.wire.records import UNSET, RoomSummary, Status, UnsetType
from services.wire.server import (
    PresenceUpdated,
    StatusChanged,
    UserJoined,
    UserLeft,
    UserOffline,
    UserOnline,
)
from tests.support.presence_model.queues import WebhookQueue

EVERYONE = ""


class Shown(Protocol):
    """A membership: the JSON text that the user shows in the room."""

    data: str


class VisibleUser(Protocol):
    """The part of a user that changes are made of."""

    username: str
    last_seen: int
    data: str

    @property
    def status(self) -> Status: ...

    @property
    def rooms(self) -> Mapping[str, Shown]: ...


@dataclass(frozen=True, slots=True)
class Snapshot:
    """A user as others see them, without what changes too often to be announced."""

    username: str
    status: Status
    data: str
    rooms: Mapping[str, str]  # room to what the user shows there


NO_USER = Snapshot("", Status.ONLINE, "", {})


class ChangeSet:
    """Versions of every scope, counts of every room, and the users tracked since the last commit."""

    def __init__(
        self, epoch: str, users: Mapping[str, VisibleUser], policy: AnnouncePolicy, queue: WebhookQueue
    ) -> None:
        self.epoch = epoch
        self.version = 0
        self.clock = (
            0  # rises with every change of any scope: a room's version starts there, so it never repeats
        )
        self.dirty: dict[str, Snapshot | None] = {}
        self.room_users: Counter[str] = Counter()
        self.room_connections: Counter[str] = Counter()
        self.counts_only: set[str] = set()  # scopes of which only counts are announced
        self._users = users
        self._policy = policy
        self._queue = queue
        self._room_versions: dict[str, int] = {}
        self._idle_rooms: dict[str, int] = {}

    def track(self, user_id: str) -> None:
        """Remember a user before the first change to them."""
        if user_id not in self.dirty:
            self.dirty[user_id] = self._snapshot(user_id)

    def count_connections(self, room: str, delta: int) -> None:
        """Count connections in a room."""
        self.room_connections[room] += delta
        if not self.room_connections[room]:
            del self.room_connections[room]

    def commit(self, now: int, idle_room_ms: int) -> Changes:
        """Return the changes of the tracked users with their versions, and start over."""
        users: list[PresenceChange] = []
        rooms: dict[str, list[PresenceChange]] = {}
        notices: list[UserJoined | UserLeft] = []
        sizes_before = {room: n for room, n in self.room_users.items() if n}
        for user_id, before in self.dirty.items():
            after = self._snapshot(user_id)
            username = (after or before or NO_USER).username
            rooms_before, rooms_after = (before or NO_USER).rooms, (after or NO_USER).rooms
            if before is None and after is not None:
                self._queue.add(EventKind.USER_ONLINE, user_id, username, now)
            for room in sorted(rooms_before.keys() ^ rooms_after.keys()):
                joins = room in rooms_after
                offline = UserOffline(user_id=user_id, room=room)
                rooms.setdefault(room, []).append(self._online(user_id, room) if joins else offline)
                if joins:
                    shown_data = raw_data(rooms_after[room])
                    notices.append(
                        UserJoined(user_id=user_id, username=username, room=room, member_data=shown_data)
                    )
                else:
                    notices.append(UserLeft(user_id=user_id, username=username, room=room))
                kind = EventKind.MEMBER_JOINED if joins else EventKind.MEMBER_LEFT
                self._queue.add(kind, user_id, username, now, room)
                self.room_users[room] += 1 if joins else -1
            changes = self._diff(user_id, before, after)
            users += changes
            for room in sorted(rooms_before.keys() & rooms_after.keys()):
                if rooms_before[room] != rooms_after[room]:
                    rooms.setdefault(room, []).append(self._online(user_id, room))
                    continue
                for change in changes:
                    in_room = self._online(user_id, room) if isinstance(change, UserOnline) else change
                    rooms.setdefault(room, []).append(in_room)
            if before is not None and after is None:
                self._queue.add(EventKind.USER_OFFLINE, user_id, username, now)
        self.dirty.clear()
        changed = [(room, made, self._advance(room, made)) for room, made in rooms.items()]
        self.version += len(users)
        self.clock += len(users) + sum(map(len, rooms.values()))
        count = (
            self._count_if_over_limit(EVERYONE, len(self._users), self._policy.online_limit)
            if users
            else UNSET
        )
        scoped = []
        for room, made, version in changed:
            size = self.room_users[room]
            if size and room not in sizes_before:
                self._queue.add(EventKind.ROOM_OCCUPIED, room, "", now)
            if room in sizes_before and not size:
                self._queue.add(EventKind.ROOM_VACATED, room, "", now)
            self._keep_or_idle(room, now + idle_room_ms)
            room_count = self._count_if_over_limit(room, size, self._policy.room_limit)
            shown = made if room_count is UNSET else []
            scoped.append(
                PresenceDiff(epoch=self.epoch, version=version, changes=shown, room=room, count=room_count)
            )
        muted = {scope.room for scope in scoped if scope.count is not UNSET}
        audible = [notice for notice in notices if notice.room not in muted]
        return Changes(self.epoch, self.version, users if count is UNSET else [], scoped, audible, count)

    def pin_version(self, room: str, now: int, idle_room_ms: int) -> int:
        """Return a room's version; an empty one's is kept for a while, for those who follow from here."""
        if not self.room_users[room]:
            self._idle_rooms[room] = now + idle_room_ms
        return self._room_versions.setdefault(room, self.clock)

    def room_version(self, room: str) -> int:
        """Return a room's version, or where it would start."""
        return self._room_versions.get(room, self.clock)

    def forget_idle_rooms(self, now: int) -> None:
        """Drop the versions of rooms that have been empty, and not pinned, for long enough."""
        for room in [room for room, due in self._idle_rooms.items() if due <= now]:
            del self._idle_rooms[room], self._room_versions[room]

    def largest_rooms(self, limit: int) -> list[RoomSummary]:
        """Return rooms with members, most users first."""
        sizes = sorted(((n, room) for room, n in self.room_users.items() if n), reverse=True)
        return [
            RoomSummary(room=room, users=users, connections=self.room_connections[room])
            for users, room in sizes[:limit]
        ]

    def _count_if_over_limit(self, scope: str, size: int, limit: int) -> int | UnsetType:
        """Return the size of a scope of which only counts are announced. Full changes resume a tenth below the limit."""
        if limit <= 0:
            return UNSET
        if scope not in self.counts_only and size > limit:
            self.counts_only.add(scope)
        elif scope in self.counts_only and size * 10 <= limit * 9:
            self.counts_only.discard(scope)
        return size if scope in self.counts_only else UNSET

    def _advance(self, room: str, changes: list[PresenceChange]) -> int:
        version = self._room_versions.get(room, self.clock) + len(changes)
        self._room_versions[room] = version
        return version

    def _keep_or_idle(self, room: str, idle_due: int) -> None:
        if self.room_users[room]:
            self._idle_rooms.pop(room, None)
            return
        del self.room_users[room]
        self.room_connections.pop(room, None)
        self._idle_rooms[room] = idle_due

    def _diff(self, user_id: str, before: Snapshot | None, after: Snapshot | None) -> list[PresenceChange]:
        if after is None:
            return [] if before is None else [UserOffline(user_id=user_id)]
        if before is None or before.username != after.username:
            return [self._online(user_id)]
        changes: list[PresenceChange] = []
        if before.status != after.status:
            changes.append(StatusChanged(user_id=user_id, status=after.status))
        if before.data != after.data:
            changes.append(PresenceUpdated(user_id=user_id, custom_data=msgspec.Raw(after.data.encode())))
        return changes

    def _online(self, user_id: str, room: str | None = None) -> UserOnline:
        shown = self._users[user_id]
        member_data = "" if room is None else shown.rooms[room].data
        user = user_record(user_id, shown.username, shown.status, shown.last_seen, shown.data, member_data)
        return UserOnline(user=user) if room is None else UserOnline(user=user, room=room)

    def _snapshot(self, user_id: str) -> Snapshot | None:
        user = self._users.get(user_id)
        if user is None:
            return None
        rooms = {room: membership.data for room, membership in user.rooms.items()}
        return Snapshot(user.username, user.status, user.data, rooms)
