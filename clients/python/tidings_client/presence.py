"""The users who are online, or in one room."""

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
    """A mapping of user ids to users, updated while it is followed.

    Follow it by `with presence.follow():`, or by `presence.follow()` until `stop()`. Followers are counted.
    """

    def __init__(self, channels: Channels, room: str | None) -> None:
        self.room = room
        """The room, or None for all users."""
        self.synced = False
        """Whether the users are current: False before the first list, and while there is no connection."""
        self.count: int | None = None
        """The number of users, where the server sends it: for long lists, and for those too long to be sent."""
        self.enters: Event[User] = Event()
        """A user came online, or joined the room; also while this client had no connection."""
        self.leaves: Event[User] = Event()
        """A user went offline, or left the room. The value is the last one known."""
        self.updates: Event[User] = Event()
        """A user's name, status or custom data changed."""
        self.changes: Event[Presence] = Event()
        """Users, `count` or `synced` changed."""
        self._channels = channels
        self._users: dict[str, User] = {}
        # User ids in the parts of a list so far. A user is only known to be gone after the last part.
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
        """Subscribe until `stop` is called on the returned object."""
        return self._channels.follow("presence" if self.room is None else f"presence:{self.room}")

    def on_down(self) -> None:
        """The connection ended: the users may be out of date."""
        self._listed = None
        if self.synced:
            self.synced = False
            self.changes.emit(self)

    def take(self, message: ServerMessage) -> None:
        """Handle a message; those of other scopes are ignored."""
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
            # The list is too long to be sent: the users are unknown from now on, but they have not left.
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
