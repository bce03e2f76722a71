"""Net changes and their versions: what each touched user was before, and is after.

The model tells the ledger whom it is about to touch; `settle` compares. So a batch that undoes what it did
says nothing, and a gateway that announces all its connections again causes no change where nothing changed.
"""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

import msgspec

from presence_svc.changes import Changes, RoomChanges, user_record
from presence_svc.hooks import HookKind
from presence_svc.policy import Telling
from services.wire.events import PresenceChange
from services.wire.records import RoomSummary, Status
from services.wire.server import (
    PresenceUpdated,
    StatusChanged,
    UserJoined,
    UserLeft,
    UserOffline,
    UserOnline,
)
from tests.support.presence_model.queues import Hooks

EVERYONE = ""


class Visible(Protocol):
    """What the ledger reads of a user."""

    username: str
    last_seen: int
    data: str

    @property
    def status(self) -> Status: ...

    @property
    def rooms(self) -> Mapping[str, object]: ...


@dataclass(frozen=True, slots=True)
class View:
    """A user as others see them, without what changes too often to be told."""

    username: str
    status: Status
    data: str
    rooms: frozenset[str]


NOBODY = View("", Status.ONLINE, "", frozenset())


class Ledger:
    """Versions of every scope, counts of every room, and the users touched since the last settling."""

    def __init__(self, epoch: str, people: Mapping[str, Visible], telling: Telling, hooks: Hooks) -> None:
        self.epoch = epoch
        self.version = 0
        self.clock = (
            0  # rises with every change of any scope: a room's version starts there, so it never repeats
        )
        self.touched: dict[str, View | None] = {}
        self.room_users: Counter[str] = Counter()
        self.room_connections: Counter[str] = Counter()
        self.large: set[str] = set()  # scopes of which only counts are told
        self._people = people
        self._telling = telling
        self._hooks = hooks
        self._room_versions: dict[str, int] = {}
        self._idle_rooms: dict[str, int] = {}

    def touch(self, user_id: str) -> None:
        """Remember how a user stood, before the first change to them."""
        if user_id not in self.touched:
            self.touched[user_id] = self._view(user_id)

    def count_connections(self, room: str, delta: int) -> None:
        """Count connections in a room."""
        self.room_connections[room] += delta
        if not self.room_connections[room]:
            del self.room_connections[room]

    def settle(self, now: int, idle_room_ms: int) -> Changes:
        """Return what changed for the touched users, give it versions, and start over."""
        users: list[PresenceChange] = []
        rooms: dict[str, list[PresenceChange]] = {}
        notices: list[UserJoined | UserLeft] = []
        sizes_before = {room: n for room, n in self.room_users.items() if n}
        for user_id, was in self.touched.items():
            now_is = self._view(user_id)
            username = (now_is or was or NOBODY).username
            before, after = (was or NOBODY).rooms, (now_is or NOBODY).rooms
            for room in sorted(before ^ after):
                joins = room in after
                offline = UserOffline(user_id=user_id, room=room)
                rooms.setdefault(room, []).append(self._online(user_id, room) if joins else offline)
                notice = UserJoined if joins else UserLeft
                notices.append(notice(user_id=user_id, username=username, room=room))
                self.room_users[room] += 1 if joins else -1
            told = self._difference(user_id, was, now_is)
            users += told
            for room in sorted(before & after):
                for change in told:
                    in_room = self._online(user_id, room) if isinstance(change, UserOnline) else change
                    rooms.setdefault(room, []).append(in_room)
            if was is None and now_is is not None:
                self._hooks.note(HookKind.USER_ONLINE, user_id, username, now)
            if was is not None and now_is is None:
                self._hooks.note(HookKind.USER_OFFLINE, user_id, username, now)
        self.touched.clear()
        changed = [(room, changes, self._advance(room, changes)) for room, changes in rooms.items()]
        self.version += len(users)
        self.clock += len(users) + sum(len(changes) for changes in rooms.values())
        count = (
            self._count_if_large(EVERYONE, len(self._people), self._telling.online_limit) if users else None
        )
        scoped = []
        for room, changes, version in changed:
            size = self.room_users[room]
            if size and room not in sizes_before:
                self._hooks.note(HookKind.ROOM_OCCUPIED, room, "", now)
            if room in sizes_before and not size:
                self._hooks.note(HookKind.ROOM_VACATED, room, "", now)
            self._keep_or_idle(room, now + idle_room_ms)
            room_count = self._count_if_large(room, size, self._telling.room_limit)
            scoped.append(RoomChanges(room, version, changes if room_count is None else [], room_count))
        quiet = {scope.room for scope in scoped if scope.count is not None}
        audible = [notice for notice in notices if notice.room not in quiet]
        return Changes(self.epoch, self.version, users if count is None else [], scoped, audible, count)

    def look_at(self, room: str, now: int, idle_room_ms: int) -> int:
        """Return a room's version; an empty one's is kept for a while, for those who follow from here."""
        if not self.room_users[room]:
            self._idle_rooms[room] = now + idle_room_ms
        return self._room_versions.setdefault(room, self.clock)

    def room_version(self, room: str) -> int:
        """Return a room's version, or where it would start."""
        return self._room_versions.get(room, self.clock)

    def forget_idle_rooms(self, now: int) -> None:
        """Drop the versions of rooms that have been empty, and not looked at, for long enough."""
        for room in [room for room, due in self._idle_rooms.items() if due <= now]:
            del self._idle_rooms[room], self._room_versions[room]

    def largest_rooms(self, limit: int) -> list[RoomSummary]:
        """Return rooms with members, most users first."""
        sizes = sorted(((n, room) for room, n in self.room_users.items() if n), reverse=True)
        return [
            RoomSummary(room=room, users=users, connections=self.room_connections[room])
            for users, room in sizes[:limit]
        ]

    def _count_if_large(self, scope: str, size: int, limit: int) -> int | None:
        """Return the size of a scope of which only counts are told; it takes a tenth less than the limit to come
        back, so that a scope at its limit does not change with everyone who comes and goes."""
        if limit <= 0:
            return None
        if scope not in self.large and size > limit:
            self.large.add(scope)
        elif scope in self.large and size * 10 <= limit * 9:
            self.large.discard(scope)
        return size if scope in self.large else None

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

    def _difference(self, user_id: str, was: View | None, now_is: View | None) -> list[PresenceChange]:
        if now_is is None:
            return [] if was is None else [UserOffline(user_id=user_id)]
        if was is None or was.username != now_is.username:
            return [self._online(user_id)]
        told: list[PresenceChange] = []
        if was.status != now_is.status:
            told.append(StatusChanged(user_id=user_id, status=now_is.status))
        if was.data != now_is.data:
            told.append(PresenceUpdated(user_id=user_id, custom_data=msgspec.Raw(now_is.data.encode())))
        return told

    def _online(self, user_id: str, room: str | None = None) -> UserOnline:
        person = self._people[user_id]
        user = user_record(user_id, person.username, person.status, person.last_seen, person.data)
        return UserOnline(user=user) if room is None else UserOnline(user=user, room=room)

    def _view(self, user_id: str) -> View | None:
        person = self._people.get(user_id)
        if person is None:
            return None
        return View(person.username, person.status, person.data, frozenset(person.rooms))
