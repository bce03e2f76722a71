"""What each message of a client is allowed to do: rates, names, grants. No I/O and no clock.

Every message is answered: by what is carried out (`gateway.ws.connection`, `gateway.api.messages`), or by its error.
"""

import math
from collections.abc import Callable, Collection

import msgspec

from gateway.auth.identity import Identity
from gateway.channels import channel_names
from gateway.delivery.streams import RoomRoute
from gateway.limits import FloodDetector, Limit, Recent, TokenBucket, refill_s
from services.settings import Settings
from services.wire import client, server
from services.wire.codes import ErrorCode, ErrorSpec
from services.wire.names import InvalidName, is_method, normalize_name
from services.wire.records import UNSET, UnsetType


class CommandError(Exception):
    """A command that is not carried out. `flood`: the connection ends with it."""

    def __init__(
        self,
        code: ErrorCode | ErrorSpec,
        message: str,
        retry_after_ms: int | UnsetType = UNSET,
        *,
        flood: bool = False,
    ) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.retry_after_ms = retry_after_ms
        self.flood = flood

    def reply(self, id: str | UnsetType = UNSET) -> server.Error:
        """Return the `error` message for the request `id`."""
        return server.Error(
            code=self.code.code,
            message=self.message,
            retryable=self.code.retryable,
            retry_after_ms=self.retry_after_ms,
            id=id,
        )


class ClientState:
    """The rooms, channels and grants of one connection, and its rates. `rooms` keeps the route of each room."""

    __slots__ = (
        "_bucket", "_byte_bucket", "_namespace_buckets", "_on_limit", "_presence_bucket", "_read_only", "_route_of", "_settings",
        "_strikes", "_tokens", "channels", "identity", "rooms", "server_rooms",
    )  # fmt: skip

    def __init__(
        self,
        identity: Identity,
        settings: Settings,
        route_of: Callable[[str], RoomRoute],
        now: float,
        on_limit: Callable[[Limit], object] = lambda _limit: None,
    ) -> None:
        self._on_limit = on_limit
        # Most clients never need these.
        self._presence_bucket: TokenBucket | None = None
        self._strikes: FloodDetector | None = None
        self._namespace_buckets: dict[str, TokenBucket] | None = None
        self._read_only: frozenset[str] = frozenset()  # rooms that the client may not publish to
        self._tokens: dict[str, bool] | None = None  # rooms by token: whether the client may publish there
        self.identity = identity
        self.rooms: dict[str, RoomRoute] = {}
        self.server_rooms: frozenset[str] = frozenset()  # joined by the server API, whatever the grants say
        self.channels: set[str] = set()
        self._settings = settings
        self._route_of = route_of
        self._bucket = TokenBucket(settings.message_rate, now)
        self._byte_bucket = TokenBucket(settings.message_bytes_rate, now)

    def check(self, message: client.AnyClientMessage, now: float, size: int = 0) -> client.AnyClientMessage:
        """Return the command to carry out, for a message of `size` bytes at `now` (any monotonic clock, in seconds).

        Rooms and channels count as joined, subscribed to or left from here on.

        Raises:
            CommandError: it must not be carried out.
        """
        self.check_rates(now, size)
        if not isinstance(message, client.PublishRoomCommand):
            return self._check_command(message, now)
        route = self.rooms.get(message.room)
        if route is None:
            message = msgspec.structs.replace(message, room=_name(message.room, "room"))
            route = self.rooms.get(message.room)
            if route is None:
                raise CommandError(ErrorCode.NOT_IN_ROOM, "join the room before sending to it")
        if message.room in self._read_only:
            raise _publishing_forbidden()
        options = route.options
        if options.publish == "server":
            raise CommandError(ErrorCode.FORBIDDEN, "only the server publishes to this room")
        if options.message_rate:
            self._check_namespace_rate(route.namespace, options.message_rate, now)
        return message

    def _check_command(self, message: client.AnyClientMessage, now: float) -> client.AnyClientMessage:
        match message:
            case client.JoinRoom():
                return self._join(message, now)
            case client.LeaveRoom():
                room = _name(message.room, "room")
                self.leave(room)
                return msgspec.structs.replace(message, room=room)
            case client.PublishDirectCommand():
                if not self.identity.grants.direct:
                    raise CommandError(ErrorCode.FORBIDDEN, "direct messages are not allowed")
                return msgspec.structs.replace(
                    message, target_user_id=_name(message.target_user_id, "targetUserId")
                )
            case client.PublishBroadcastCommand():
                if not self.identity.grants.broadcast:
                    raise CommandError(ErrorCode.FORBIDDEN, "broadcasting is not allowed")
            case client.StatusChange() | client.PresenceUpdate():
                self._check_presence_rate(now)
            case client.RpcCommand(method=method):
                if not is_method(method):
                    text = "`method` is of letters, digits, `_`, `-` and dots between them, 64 at most"
                    raise CommandError(ErrorCode.INVALID_FIELD, text)
            case client.Subscribe():
                names = self.subscribe(_channel_list(message))
                return msgspec.structs.replace(message, channel=UNSET, channels=names)
            case client.Unsubscribe():
                names = [self._channel(name) for name in _channel_list(message)]
                self.channels.difference_update(names)
                return msgspec.structs.replace(message, channel=UNSET, channels=names)
            case client.Refresh():
                if bool(message.token or UNSET) == bool(message.ticket or UNSET):
                    raise CommandError(
                        ErrorCode.INVALID_FIELD, "show a `token` or a `ticket`, exactly one of them"
                    )
        return message

    def check_rates(self, now: float, size: int) -> None:
        """Count `size` bytes against the rates, also where they are no message. Raises CommandError."""
        settings = self._settings
        if wait_s := self._bucket.consume(now):
            rate = settings.message_rate
            if self._strikes is None:
                self._strikes = FloodDetector(rate, now)
            flood = self._strikes.add(now)
            raise self._too_fast(
                Limit.MESSAGE_RATE, wait_s, f"{rate:g} messages per second on this connection", flood=flood
            )
        if wait_s := self._byte_bucket.consume(now, size):
            raise self._too_many_bytes(wait_s)

    def charge_custom_data(self, size: int, rooms: int, now: float) -> None:
        """Charge custom data of `size` bytes, once for each room that receives it. Raises CommandError."""
        if wait_s := self._byte_bucket.consume(now, size * rooms):
            raise self._too_many_bytes(wait_s)

    def charge_read(self, size: int, now: float) -> None:
        """Count bytes that were read for this connection as so many messages of the largest size."""
        self._bucket.charge(size / self._settings.max_message_bytes, now)

    def subscribe(self, names: list[str]) -> list[str]:
        """Check all channels, then subscribe to all, or to none. Return their normalized names. Raises CommandError."""
        parsed = list(dict.fromkeys(self._channel(name) for name in names))
        limit = self._settings.max_rooms_per_connection
        if limit and len(self.channels.union(parsed)) > limit + len(channel_names.PLAIN):
            self._on_limit(Limit.ROOMS)
            raise CommandError(
                ErrorCode.TOO_MANY_ROOMS, f"a connection may follow the presence of {limit} rooms"
            )
        self.channels.update(parsed)
        return parsed

    def join_by_server(self, room: str) -> None:
        """Join a room whatever the grants say, until it is left. Raises CommandError."""
        self._add_within_limit(room)
        self.server_rooms |= {room}

    def leave(self, room: str) -> bool:
        """Leave a room; return whether the connection was in it."""
        if room in self.server_rooms:
            self.server_rooms -= {room}
        if self._tokens is not None:
            self._tokens.pop(room, None)
        return self.rooms.pop(room, None) is not None

    def update_grants(self, identity: Identity) -> tuple[list[str], list[str]]:
        """Replace the identity by one of the same user with other grants.

        Return the rooms and channels that the connection has to leave. They count as left from here on.
        """
        grants = identity.grants
        rooms = [room for room in self.rooms if not (grants.may_join(room) or self._is_granted(room))]
        names = [name for name in self.channels if not grants.may_follow(name)]
        self.restore(identity, self.rooms.keys() - rooms)
        self.channels.difference_update(names)
        return sorted(rooms), sorted(names)

    def restore(self, identity: Identity, rooms: Collection[str]) -> None:
        """Be `identity`, a member of exactly these rooms."""
        self.identity = identity
        self.rooms = {room: self.rooms.get(room) or self._route_of(room) for room in rooms}
        self._read_only = frozenset(room for room in rooms if not self._may_publish(room))

    # --- rooms that something else than the grants allows ---

    def grant_room(self, room: str, *, publish: bool) -> None:
        """Be a member of a room by a token."""
        self._tokens = (self._tokens or {}) | {room: publish}
        self.add_room(room)

    def withdraw_room(self, room: str) -> bool:
        """Withdraw what a token allows; return whether the client may stay a member."""
        if self._tokens is not None:
            self._tokens.pop(room, None)
        if room in self.rooms:
            self.add_room(room)
        return room in self.server_rooms or self.identity.grants.may_join(room)

    def check_publishing(self, room: str) -> None:
        """Raise CommandError if the client must not publish to a room."""
        if room in self._read_only:
            raise _publishing_forbidden()

    def add_room(self, room: str) -> None:
        """Be a member of a room. The application may name one that the grants do not allow to join."""
        self.rooms[room] = self._route_of(room)
        if self._may_publish(room):
            self._read_only -= {room}
        else:
            self._read_only |= {room}

    def _is_granted(self, room: str) -> bool:
        return room in self.server_rooms or (self._tokens is not None and room in self._tokens)

    def _may_publish(self, room: str) -> bool:
        by_token = self._tokens is not None and self._tokens.get(room, False)
        return by_token or self.identity.grants.may_publish(room)

    # --- checks ---

    def _join(self, message: client.JoinRoom, now: float) -> client.JoinRoom:
        room = _name(message.room, "room")
        check_history(message.history, self._settings)
        is_new, has_token = room not in self.rooms, message.token is not UNSET
        # Being in `rooms` is no right: another join may still wait for its token.
        if not (has_token or self._is_granted(room) or self.identity.grants.may_join(room)):
            raise CommandError(ErrorCode.FORBIDDEN, "no such room, or not for this user")
        if not is_new and message.member_data is not UNSET:
            self._check_presence_rate(now)
        self._add_within_limit(room)
        if has_token and is_new:
            self._read_only -= {room}  # messages wait until the token says whether they are allowed
        return msgspec.structs.replace(message, room=room)

    def _add_within_limit(self, room: str) -> None:
        limit = self._settings.max_rooms_per_connection
        if limit and room not in self.rooms and len(self.rooms) >= limit:
            self._on_limit(Limit.ROOMS)
            raise CommandError(
                ErrorCode.TOO_MANY_ROOMS, f"a connection may be in {limit} rooms; leave one first"
            )
        self.add_room(room)

    def _check_presence_rate(self, now: float) -> None:
        rate = self._settings.presence_rate
        if self._presence_bucket is None:
            self._presence_bucket = TokenBucket(rate, now)
        wait_s = self._presence_bucket.consume(now)
        if wait_s:
            what = f"{rate:g} changes of status or custom data per second on this connection"
            raise self._too_fast(Limit.PRESENCE_RATE, wait_s, what)

    def _check_namespace_rate(self, name: str, rate: float, now: float) -> None:
        if self._namespace_buckets is None:
            self._namespace_buckets = {}
        bucket = self._namespace_buckets.get(name)
        if bucket is None:
            bucket = self._namespace_buckets[name] = TokenBucket(rate, now)
        if wait_s := bucket.consume(now):
            raise self._too_fast(
                Limit.NAMESPACE_RATE, wait_s, f"{rate:g} messages per second to rooms of this kind"
            )

    def _too_many_bytes(self, wait_s: float) -> CommandError:
        rate = self._settings.message_bytes_rate
        return self._too_fast(
            Limit.MESSAGE_BYTES_RATE, wait_s, f"{rate:g} bytes per second on this connection"
        )

    def _too_fast(self, limit: Limit, wait_s: float, what: str, *, flood: bool = False) -> CommandError:
        self._on_limit(limit)
        retry_after_ms = math.ceil(wait_s * 1000)
        return CommandError(ErrorCode.RATE_LIMITED, f"more than {what}", retry_after_ms, flood=flood)

    def _channel(self, name: str) -> str:
        channel = channel_names.parse_channel(name)
        if channel is None or not self.identity.grants.may_follow(channel):
            raise CommandError(ErrorCode.UNKNOWN_CHANNEL, channel_names.refusal(name))
        return channel


class HttpSenders:
    """A `ClientState` for each user who sent over HTTP lately: a connection's rules and rates, by user.

    A user without one gets one whose rates are unused, so each is kept until its rates would be again.
    """

    def __init__(
        self,
        settings: Settings,
        route_of: Callable[[str], RoomRoute],
        on_limit: Callable[[Limit], object],
        now: float,
    ) -> None:
        self._settings = settings
        self._route_of = route_of
        self._on_limit = on_limit
        rates = [
            settings.message_rate,
            settings.presence_rate,
            *(each.message_rate for each in settings.namespaces.values()),
        ]
        self._states: Recent[ClientState] = Recent(max(map(refill_s, rates)), now)

    def __len__(self) -> int:
        return len(self._states)

    def state_of(self, identity: Identity, rooms: Collection[str], now: float) -> ClientState:
        """Return the user's state, with the grants of these credentials, as a member of these rooms."""
        state = self._states.get(
            identity.user_id,
            now,
            lambda: ClientState(identity, self._settings, self._route_of, now, self._on_limit),
        )
        state.restore(identity, rooms)
        return state


def _publishing_forbidden() -> CommandError:
    return CommandError(ErrorCode.FORBIDDEN, "publishing to this room is not allowed")


def check_history(number: int | UnsetType, settings: Settings) -> None:
    """Raise CommandError for a number of messages that no join may ask for."""
    most = settings.recovery_limit
    if not isinstance(number, UnsetType) and not 0 <= number <= most:
        raise CommandError(ErrorCode.INVALID_FIELD, f"`history` is a number from 0 to {most}")


def _name(text: str, what: str) -> str:
    try:
        return normalize_name(text, what)
    except InvalidName as fault:
        raise CommandError(ErrorCode.INVALID_NAME, str(fault)) from None


def _channel_list(message: client.Subscribe | client.Unsubscribe) -> list[str]:
    """Return the channels of `channel` and `channels` together; a request without any is a mistake."""
    names = [] if isinstance(message.channels, msgspec.UnsetType) else list(message.channels)
    if not isinstance(message.channel, msgspec.UnsetType):
        names.append(message.channel)
    if not names:
        raise CommandError(ErrorCode.INVALID_FIELD, "name a `channel` or some `channels`")
    return names
