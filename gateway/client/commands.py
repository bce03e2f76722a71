"""One client's session: which messages it may send now, and what each asks for.

No I/O and no clock: messages in, effects out. Every message yields at least one effect or one reply, so that no
client ever waits for an answer that nobody will send.
"""

import math
from collections.abc import Callable

import msgspec

from gateway.auth.identity import Identity
from gateway.channels import channel_names
from gateway.client.effects import (
    Effect,
    EnterRoom,
    ExitRoom,
    Expel,
    Follow,
    PublishToAll,
    PublishToRoom,
    PublishToUser,
    Renew,
    Reply,
    SetCustomData,
    SetStatus,
    Unfollow,
)
from gateway.limits import FloodDetector, Limit, TokenBucket
from services.settings import Settings
from services.wire import client, server
from services.wire.codec import BadMessage
from services.wire.codes import CloseCode, ErrorCode
from services.wire.names import InvalidName, normalize_name
from services.wire.records import UNSET, UnsetType


class CommandError(Exception):
    """Why a message is not carried out; becomes the `error` reply. `flood` ends the connection with it."""

    def __init__(
        self,
        code: ErrorCode,
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

    def effects(self, id: str | UnsetType) -> list[Effect]:
        """Return what to do about it."""
        reply = Reply(error_reply(self.code, self.message, id, self.retry_after_ms))
        return [reply, Expel(CloseCode.FLOODING)] if self.flood else [reply]


def error_reply(
    code: ErrorCode,
    message: str,
    id: str | UnsetType = UNSET,
    retry_after_ms: int | UnsetType = UNSET,
) -> server.Error:
    """Return the `error` message for a code of the table."""
    return server.Error(
        code=code.code, message=message, retryable=code.retryable, retry_after_ms=retry_after_ms, id=id
    )


class ClientState:
    """What one connection is allowed to do, is in, and follows."""

    __slots__ = (
        "_bucket", "_byte_bucket", "_namespace_buckets", "_on_limit", "_presence_bucket", "_settings", "_strikes",
        "followed", "identity", "rooms",
    )  # fmt: skip

    def __init__(
        self,
        identity: Identity,
        settings: Settings,
        now: float,
        on_limit: Callable[[Limit], object] = lambda _limit: None,
    ) -> None:
        self._on_limit = on_limit
        # Most clients never need these.
        self._presence_bucket: TokenBucket | None = None
        self._strikes: FloodDetector | None = None
        self._namespace_buckets: dict[str, TokenBucket] | None = None
        self.identity = identity
        self.rooms: set[str] = set()
        self.followed: set[str] = set()
        self._settings = settings
        self._bucket = TokenBucket(settings.message_rate, now)
        self._byte_bucket = TokenBucket(settings.message_bytes_rate, now)

    def receive(self, message: client.AnyClientMessage, now: float, size: int = 0) -> list[Effect]:
        """Take one message of `size` bytes; return what to do about it. `now` is any monotonic clock in seconds."""
        try:
            return self.check(message, now, size)
        except CommandError as refusal:
            return refusal.effects(message.id)

    def check(self, message: client.AnyClientMessage, now: float, size: int = 0) -> list[Effect]:
        """Do the same for a message that is answered elsewhere. Raises CommandError."""
        self._check_rate(now)
        self._check_bytes(size, now)
        return self._handle(message, now)

    def malformed(self, fault: BadMessage, now: float, size: int = 0) -> list[Effect]:
        """Answer `size` bytes that were no message. They count against the rates like any other."""
        id = UNSET if fault.id is None else fault.id
        try:
            self._check_rate(now)
            self._check_bytes(size, now)
        except CommandError as refusal:
            return refusal.effects(id)
        return [Reply(error_reply(fault.code, fault.message, id))]

    def charge_custom_data(self, size: int, rooms: int, now: float) -> None:
        """Charge custom data of `size` bytes, once for each room that is told of it. Raises CommandError."""
        self._check_bytes(size * rooms, now)

    def open_channels(self, names: list[str]) -> list[Effect]:
        """Follow the channels named when connecting."""
        try:
            return [Follow(self._follow(names))]
        except CommandError as refusal:
            return [Reply(error_reply(refusal.code, refusal.message))]

    def regrant(self, identity: Identity) -> tuple[list[str], list[str]]:
        """Go on as `identity`, who is the same user with other rights.

        Returns:
            The rooms and the channels that are not allowed any more. They count as left from here on; the
            connection has to leave them.
        """
        self.identity = identity
        grants = identity.grants
        rooms = [room for room in self.rooms if not grants.may_join(room)]
        names = [name for name in self.followed if not grants.may_follow(name)]
        self.rooms.difference_update(rooms)
        self.followed.difference_update(names)
        return sorted(rooms), sorted(names)

    def charge(self, size: int, now: float) -> None:
        """Count bytes that were read for this connection as so many messages of the largest size."""
        self._bucket.charge(size / self._settings.max_message_bytes, now)

    def _check_rate(self, now: float) -> None:
        wait_s = self._bucket.consume(now)
        if wait_s:
            rate = self._settings.message_rate
            self._on_limit(Limit.MESSAGE_RATE)
            if self._strikes is None:
                self._strikes = FloodDetector(rate, now)
            raise CommandError(
                ErrorCode.RATE_LIMITED,
                f"more than {rate:g} messages per second on this connection",
                math.ceil(wait_s * 1000),
                flood=self._strikes.add(now),
            )

    def _check_bytes(self, size: int, now: float) -> None:
        wait_s = self._byte_bucket.consume(now, size)
        if wait_s:
            self._on_limit(Limit.MESSAGE_BYTES_RATE)
            raise CommandError(
                ErrorCode.RATE_LIMITED,
                f"more than {self._settings.message_bytes_rate:g} bytes per second on this connection",
                math.ceil(wait_s * 1000),
            )

    def _check_presence_rate(self, now: float) -> None:
        rate = self._settings.presence_rate
        if self._presence_bucket is None:
            self._presence_bucket = TokenBucket(rate, now)
        wait_s = self._presence_bucket.consume(now)
        if wait_s:
            self._on_limit(Limit.PRESENCE_RATE)
            raise CommandError(
                ErrorCode.RATE_LIMITED,
                f"more than {rate:g} changes of status or custom data per second on this connection",
                math.ceil(wait_s * 1000),
            )

    def _check_namespace_rate(self, name: str, rate: float, now: float) -> None:
        if self._namespace_buckets is None:
            self._namespace_buckets = {}
        bucket = self._namespace_buckets.get(name)
        if bucket is None:
            bucket = self._namespace_buckets[name] = TokenBucket(rate, now)
        wait_s = bucket.consume(now)
        if wait_s:
            self._on_limit(Limit.NAMESPACE_RATE)
            raise CommandError(
                ErrorCode.RATE_LIMITED,
                f"more than {rate:g} messages per second to rooms of this kind",
                math.ceil(wait_s * 1000),
            )

    def _handle(self, message: client.AnyClientMessage, now: float) -> list[Effect]:
        match message:
            case client.PublishRoomCommand():
                return [self._publish(message, now)]
            case client.Heartbeat():
                return [Reply(server.HeartbeatAck(id=message.id))]
            case client.JoinRoom():
                return [self._join(message)]
            case client.LeaveRoom():
                room = _name(message.room, "room")
                self.rooms.discard(room)
                return [ExitRoom(room, message.id)]
            case client.PublishDirectCommand():
                self._require(self.identity.grants.direct, "direct messages are not allowed")
                return [
                    PublishToUser(_name(message.target_user_id, "targetUserId"), message.content, message.id)
                ]
            case client.PublishBroadcastCommand():
                self._require(self.identity.grants.broadcast, "broadcasting is not allowed")
                return [PublishToAll(message.content, message.echo, message.id)]
            case client.StatusChange():
                self._check_presence_rate(now)
                return [SetStatus(message.status, message.id)]
            case client.PresenceUpdate():
                self._check_presence_rate(now)
                return [SetCustomData(message.custom_data, message.id)]
            case client.Subscribe():
                names = self._follow(_channel_list(message))
                return [Follow(names, message.since, message.id)]
            case client.Unsubscribe():
                names = [self._channel(name) for name in _channel_list(message)]
                self.followed.difference_update(names)
                return [Unfollow(names, message.id)]
            case client.Refresh():
                return [_renewal(message)]

    def _publish(self, message: client.PublishRoomCommand, now: float) -> PublishToRoom:
        room = message.room if message.room in self.rooms else _name(message.room, "room")
        if room not in self.rooms:
            raise CommandError(ErrorCode.NOT_IN_ROOM, "join the room before sending to it")
        if not self.identity.grants.may_publish(room):
            raise CommandError(ErrorCode.FORBIDDEN, "publishing to this room is not allowed")
        name = self._settings.namespace_of(room)
        namespace = self._settings.namespaces[name]
        if namespace.publish == "server":
            raise CommandError(ErrorCode.FORBIDDEN, "only the server publishes to this room")
        if namespace.message_rate:
            self._check_namespace_rate(name, namespace.message_rate, now)
        echo = namespace.echo if isinstance(message.echo, msgspec.UnsetType) else message.echo
        return PublishToRoom(room, message.content, echo, message.id)

    def _join(self, message: client.JoinRoom) -> EnterRoom:
        room = _name(message.room, "room")
        if not self.identity.grants.may_join(room):
            raise CommandError(ErrorCode.FORBIDDEN, "no such room, or not for this user")
        limit = self._settings.max_rooms_per_connection
        if limit and room not in self.rooms and len(self.rooms) >= limit:
            self._on_limit(Limit.ROOMS)
            raise CommandError(
                ErrorCode.TOO_MANY_ROOMS, f"a connection may be in {limit} rooms; leave one first"
            )
        self.rooms.add(room)
        return EnterRoom(room, message.since, message.id)

    def _follow(self, names: list[str]) -> list[str]:
        """Check all, then follow all: a request is carried out whole or not at all."""
        parsed = list(dict.fromkeys(self._channel(name) for name in names))
        limit = self._settings.max_rooms_per_connection
        if limit and len(self.followed.union(parsed)) > limit + len(channel_names.PLAIN):
            self._on_limit(Limit.ROOMS)
            raise CommandError(
                ErrorCode.TOO_MANY_ROOMS, f"a connection may follow the presence of {limit} rooms"
            )
        self.followed.update(parsed)
        return parsed

    def _channel(self, name: str) -> str:
        channel = channel_names.parse_channel(name)
        if channel is None or not self.identity.grants.may_follow(channel):
            raise CommandError(ErrorCode.UNKNOWN_CHANNEL, channel_names.refusal(name))
        return channel

    @staticmethod
    def _require(allowed: bool, message: str) -> None:
        if not allowed:
            raise CommandError(ErrorCode.FORBIDDEN, message)


def _name(text: str, what: str) -> str:
    try:
        return normalize_name(text, what)
    except InvalidName as fault:
        raise CommandError(ErrorCode.INVALID_NAME, str(fault)) from None


def _renewal(message: client.Refresh) -> Renew:
    token = "" if isinstance(message.token, msgspec.UnsetType) else message.token
    ticket = "" if isinstance(message.ticket, msgspec.UnsetType) else message.ticket
    if bool(token) == bool(ticket):
        raise CommandError(ErrorCode.INVALID_FIELD, "show a `token` or a `ticket`, exactly one of them")
    return Renew(token, ticket, message.id)


def _channel_list(message: client.Subscribe | client.Unsubscribe) -> list[str]:
    """Return what `channel` and `channels` name together; a request that names nothing is a mistake."""
    names = [] if isinstance(message.channels, msgspec.UnsetType) else list(message.channels)
    if not isinstance(message.channel, msgspec.UnsetType):
        names.append(message.channel)
    if not names:
        raise CommandError(ErrorCode.INVALID_FIELD, "name a `channel` or some `channels`")
    return names
