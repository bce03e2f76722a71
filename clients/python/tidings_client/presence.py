"""Who is online, or in one room: a map that follows the server."""

from collections.abc import Iterator, Mapping

from msgspec.structs import replace

from tidings_client.channels import Channels, Following
from tidings_client.events import Event
from tidings_client.generated.wire import (
    PresenceList,
    PresenceUpdated,
    ServerMessage,
    StatusChanged,
    User,
    UserOffline,
    UserOnline,
)


class Presence(Mapping[str, User]):
    """Users by id, kept in step with the server while it is followed.

    `with presence.follow():` or `presence.follow()` until `stop()`. Followers are counted.
    """

    def __init__(self, channels: Channels, room: str | None) -> None:
        self.room = room
        """The room, or None for everyone."""
        self.synced = False
        """Whether this is what the server has now, as far as we know."""
        self.count: int | None = None
        """How many there are, where the server says so: of long lists, and of those too long to be told at all."""
        self.enters: Event[User] = Event()
        """Somebody came, also between two connections of ours."""
        self.leaves: Event[User] = Event()
        """Somebody went: as they were last seen."""
        self.updates: Event[User] = Event()
        """Somebody's name, status or data changed."""
        self.changes: Event[Presence] = Event()
        """Anything above, or `synced`, changed."""
        self._channels = channels
        self._users: dict[str, User] = {}
        # While a list comes in parts: who is in it so far. Nobody has left before its last part says so.
        self._listed: set[str] | None = None

    def __getitem__(self, user_id: str) -> User:
        return self._users[user_id]

    def __iter__(self) -> Iterator[str]:
        return iter(self._users)

    def __len__(self) -> int:
        return len(self._users)

    def __repr__(self) -> str:
        return f"<Presence of {self.room or 'everyone'}: {len(self)} users>"

    def __hash__(self) -> int:
        return id(self)

    def __eq__(self, other: object) -> bool:
        return self is other

    def follow(self) -> Following:
        """Follow the server until `stop` is called on what is returned."""
        return self._channels.follow("presence" if self.room is None else f"presence:{self.room}")

    def on_down(self) -> None:
        """The connection is gone: what is here was so, and may be so."""
        self._listed = None
        if self.synced:
            self.synced = False
            self.changes.emit(self)

    def take(self, message: ServerMessage) -> None:
        """Take any message; those of other scopes change nothing."""
        match message:
            case PresenceList(room=self.room):
                self._take_list(message)
            case UserOnline(room=self.room):
                if self._listed is not None:
                    self._listed.add(message.user.user_id)
                self._put(message.user)
            case UserOffline(room=self.room):
                if self._listed is not None:
                    self._listed.discard(message.user_id)
                gone = self._users.pop(message.user_id, None)
                if gone is not None:
                    self.leaves.emit(gone)
                    self.changes.emit(self)
            case StatusChanged() if message.user_id in self._users:  # others are of another scope
                self._put(replace(self._users[message.user_id], status=message.status))
            case PresenceUpdated() if message.user_id in self._users:
                self._put(replace(self._users[message.user_id], custom_data=message.custom_data))

    def _take_list(self, message: PresenceList) -> None:
        self.count = message.count
        if message.count is not None and not message.part and not message.more:
            # Too many to be told: who is here is not known any more, which is not that they have left.
            self._listed, self._users, self.synced = None, {}, True
            self.changes.emit(self)
            return
        listed = self._listed if message.part and self._listed is not None else set()
        listed.update(user.user_id for user in message.users)
        before = dict(self._users)
        self._users.update((user.user_id, user) for user in message.users)
        if message.more:
            self._listed = listed
        else:
            self._listed, self.synced = None, True
            for user_id in [one for one in before if one not in listed]:
                self.leaves.emit(self._users.pop(user_id))
        for user in message.users:
            self._announce(before.get(user.user_id), user)
        self.changes.emit(self)

    def _put(self, user: User) -> None:
        before = self._users.get(user.user_id)
        self._users[user.user_id] = user
        self._announce(before, user)
        self.changes.emit(self)

    def _announce(self, before: User | None, after: User) -> None:
        if before is None:
            self.enters.emit(after)
        elif before != after:
            self.updates.emit(after)
