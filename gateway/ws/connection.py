"""One WebSocket client: decodes its messages, asks its session, and carries out the effects.

Nothing here waits. What takes time (storing, joining a room nobody here was in) calls back.
"""

import time
from collections.abc import Callable, Iterable
from functools import partial
from typing import TYPE_CHECKING, Any

import msgspec
import structlog

from gateway.auth.expiry import CredentialTimer
from gateway.auth.identity import Identity
from gateway.channels import channel_names, subscribe
from gateway.client.commands import ClientState, CommandError, error_reply
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
from gateway.delivery.encoded_message import EncodedMessage, Encoding, RecoveryAnswer
from gateway.delivery.fd_table import FdRef
from gateway.delivery.publisher import PublishRefused, Sender
from gateway.delivery.recovery import RecoveryVerdict
from gateway.delivery.rooms import RoomJoin
from gateway.delivery.stream_subscription import CatchUp
from gateway.limits import Limit
from gateway.presence.batch_queue import Chosen
from gateway.ws.direct import publish_to_user
from gateway.ws.joining import PendingJoins
from gateway.ws.protocol import WebSocketProtocol, discard
from gateway.ws.refresh import begin_renewal
from services.bus.errors import BusError
from services.wire import server
from services.wire.codec import BadMessage, Codec, json_content
from services.wire.codes import CloseCode, ErrorCode
from services.wire.content import ContentTooLarge, TooDeep
from services.wire.records import UNSET, Position, UnsetType
from services.wire.rpc import AnyPresenceOp, Connected, Joined

if TYPE_CHECKING:
    from gateway.gateway import Gateway

log = structlog.get_logger(__name__)

_monotonic = time.monotonic
# What a close code means; the text that a client sends with it is its own, and not for our log.
_REASONS = {1005: "no code", 1006: "connection lost"} | {code.number: code.value.reason for code in CloseCode}


class Connection:
    """The handler of one client's WebSocket, and a member wherever the client is one."""

    __slots__ = (
        "_chosen",
        "_codec",
        "_gateway",
        "_inbox_from",
        "_joining",
        "_messages_in",
        "_opened_at",
        "_protocol",
        "_seen_at",
        "_sender",
        "_session",
        "connection_id",
        "encoding",
        "expiry", "identity", "ip_key", "origin", "refreshing",
        "user_id",
        "write",
    )  # fmt: skip

    _protocol: WebSocketProtocol  # set by `start`

    accept_messages = None  # the bytes of a fan-out suit every WebSocket with the same encoding

    def __init__(
        self,
        gateway: "Gateway",
        identity: Identity,
        codec: Codec,
        connection_id: str,
        ip_key: str = "",
        origin: str | None = None,
        *,
        deflate: bool = False,
    ) -> None:
        self.connection_id = connection_id
        self.user_id = identity.user_id
        self.identity = identity
        self.ip_key = ip_key
        self.origin = origin  # of the page that opened the connection
        self.expiry: CredentialTimer | None = None
        self.refreshing = False
        self.encoding = _encoding_of(codec, deflate=deflate)
        self.write: Callable[[bytes], None] = discard
        self._gateway = gateway
        self._codec = codec
        self._opened_at = _monotonic()
        self._session = ClientState(identity, gateway.settings, self._opened_at, gateway.on_limit)
        self._sender = Sender(identity.user_id, identity.username, connection_id)
        self._chosen: Chosen | None = None  # most never choose anything
        self._seen_at = self._opened_at
        self._joining = PendingJoins()
        self._messages_in = 0
        self._inbox_from = 0  # personal messages after this sequence reach the connection live

    @property
    def fd_ref(self) -> FdRef:
        """See `Member`."""
        return self._protocol.fd_ref

    @property
    def backlog(self) -> int:
        """See `Member`."""
        return self._protocol.backlog

    @property
    def rooms(self) -> set[str]:
        """See `Client`."""
        return self._session.rooms

    # --- what the link calls ---

    def on_message(self, data: bytes, binary: bool) -> None:
        """Carry out one message."""
        if binary != self._codec.binary:
            self._protocol.close(CloseCode.UNSUPPORTED_DATA)
            return
        gateway = self._gateway
        gateway.counters.messages_in += 1
        self._messages_in += 1
        gateway.presence.active(self.user_id)
        self._seen_at = now = _monotonic()
        try:
            message = self._codec.decode(data)
        except BadMessage as fault:
            if isinstance(fault, TooDeep):
                gateway.counters.limit_hit(Limit.JSON_DEPTH)
            effects = self._session.malformed(fault, now, len(data))
        else:
            effects = self._session.receive(message, now, len(data))
        for effect in effects:
            self._perform(effect, now)

    def on_slow(self) -> None:
        """Send the client away: it reads slower than its rooms speak, and nobody else shall wait (ADR 0004)."""
        self._gateway.counters.slow_clients += 1
        self._gateway.counters.dropped += 1
        self.end(CloseCode.SLOW_CLIENT)

    def on_close(self, code: int, *, by_client: bool) -> None:
        """Forget the connection everywhere, and log its one line."""
        gateway = self._gateway
        for room in self._session.rooms:
            gateway.rooms.leave(self.connection_id, room)
        subscribe.unfollow(gateway, self.connection_id, self._session.followed)
        gateway.broadcasts.fanout.discard(self.connection_id)
        gateway.inboxes.leave(self)
        gateway.connections.discard(self)
        gateway.counters.connections -= 1
        clean = by_client and code == CloseCode.NORMAL.number
        gateway.presence.disconnected(self.connection_id, clean=clean)
        log.info(
            "connection closed",
            connection=self.connection_id,
            user=self.user_id,
            code=code,
            reason=_REASONS.get(code, ""),
            by_client=by_client,
            rooms=len(self._session.rooms),
            messages_in=self._messages_in,
            seconds=round(_monotonic() - self._opened_at, 1),
        )

    # --- what the gateway's parts call ---

    def send(self, message: server.ServerMessage) -> None:
        """Send a message to this connection alone."""
        self._protocol.write_soon(EncodedMessage(message).encode(self.encoding))

    notify = send

    def encode(self, message: server.ServerMessage) -> bytes:
        """Return a message as this client reads it."""
        return EncodedMessage(message).encode(self.encoding)

    def start(self, protocol: WebSocketProtocol, inbox: Position, subscribe: list[str]) -> None:
        """Register the connection, whose upgrade was accepted with the welcome, and subscribe to channels."""
        gateway = self._gateway
        self._protocol = protocol
        self._inbox_from = inbox.seq
        gateway.counters.connections += 1
        gateway.broadcasts.fanout.add(self)
        gateway.connections.add(self)
        gateway.presence.connected(self.connection_id, self.user_id, self._sender.username)
        if subscribe:
            now = _monotonic()
            for effect in self._session.open_channels(subscribe):
                self._perform(effect, now)

    def disconnect_frame(self, code: CloseCode, retry_after_ms: int | None = None, reason: str = "") -> bytes:
        """Return the frame of `disconnect`."""
        message = server.Disconnect(
            code=code.number,
            reason=reason or code.value.reason,
            reconnect=code.value.reconnect,
            retry_after_ms=UNSET if retry_after_ms is None else retry_after_ms,
        )
        return EncodedMessage(message).encode(self.encoding)

    def end(self, code: CloseCode, *, retry_after_ms: int | None = None, reason: str = "") -> None:
        """Say `disconnect` and close."""
        self._protocol.close(code, self.disconnect_frame(code, retry_after_ms, reason))

    def abort(self) -> None:
        """End the connection without waiting for anything to be sent."""
        self._protocol.abort()

    def presence_ops(self) -> Iterable[AnyPresenceOp]:
        """Return what presence has to know of this connection."""
        now = _monotonic()
        yield Connected(
            connection_id=self.connection_id,
            user_id=self.user_id,
            username=self._sender.username,
            idle_ms=_ms(now - self._seen_at),
        )
        for room in self._session.rooms:
            if self._gateway.rooms.has(self.connection_id, room):
                yield Joined(connection_id=self.connection_id, room=room)
        if self._chosen is not None:
            yield from self._chosen.ops(self.connection_id, now)

    def chosen(self) -> Chosen:
        """See `Client`."""
        if self._chosen is None:
            self._chosen = Chosen()
        return self._chosen

    # --- effects ---

    def _perform(self, effect: Effect, started: float) -> None:
        match effect:
            case PublishToRoom():
                if not self._joining.is_held(effect.room):
                    self._publish(effect, started)
                elif not self._joining.hold(effect, started):
                    text = "too many messages wait for this room to be joined"
                    self._refuse(ErrorCode.UNAVAILABLE, text, effect.id, started)
            case Reply(message):
                self.reply(message, started)
            case EnterRoom(room, since, id):
                if not self._gateway.rooms.has(self.connection_id, room):
                    self._joining.begin(room)
                self._gateway.rooms.join(
                    self, room, since, partial(self._wants, room), partial(self._on_joined, room, id, started)
                )
            case ExitRoom(room, id):
                if self._gateway.rooms.leave(self.connection_id, room):
                    self._gateway.presence.left(self.connection_id, room)
                self.reply(server.LeftRoom(room=room, id=id), started)
            case PublishToUser():
                content = self._content(effect, started)
                if content is not None:
                    publish_to_user(self._gateway, self, self._sender, effect, content, started)
            case PublishToAll():
                self._publish(effect, started)
            case SetStatus(status, id):
                self._gateway.choose(self, status=status)
                self.reply(server.Ack(id=id), started)
            case SetCustomData():
                self._set_custom_data(effect, started)
            case Follow():
                self._follow(effect, started)
            case Renew():
                begin_renewal(self._gateway, self, self._session, effect, started)
            case Expel(code):
                self._gateway.counters.limit_hit(Limit.FLOODING)
                self.end(code)
            case Unfollow(names, id):
                subscribe.unfollow(self._gateway, self.connection_id, names)
                self.reply(server.Unsubscribed(channels=names, id=id), started)

    def reply(self, message: server.ServerMessage, started: float) -> None:
        """Answer a request, and count it."""
        self._reply(EncodedMessage(message), started)

    def _reply(self, answer: EncodedMessage, started: float) -> None:
        message = answer.message
        if isinstance(message, server.Error):
            our_fault = message.code in (ErrorCode.UNAVAILABLE.code, ErrorCode.INTERNAL.code)
            self._gateway.counters.request_failed(message.code, our_fault=our_fault)
        else:
            self._gateway.counters.request_ok(started, _monotonic())
        self._protocol.write_soon(answer.encode(self.encoding))

    def _refuse(
        self,
        code: ErrorCode,
        text: str,
        id: str | UnsetType,
        started: float,
        retry_after_ms: int | UnsetType = UNSET,
    ) -> None:
        self.reply(error_reply(code, text, id, retry_after_ms), started)

    def _json(
        self, raw: msgspec.Raw, id: str | UnsetType, started: float, max_bytes: int, limit: Limit
    ) -> msgspec.Raw | None:
        """Return content as JSON of at most `max_bytes` (counted as `limit`), or answer why there is none."""
        try:
            return json_content(self._codec, raw, self._gateway.settings.max_json_depth, max_bytes)
        except BadMessage as fault:
            if isinstance(fault, TooDeep):
                self._gateway.counters.limit_hit(Limit.JSON_DEPTH)
            elif isinstance(fault, ContentTooLarge):
                self._gateway.counters.limit_hit(limit)
            self._refuse(fault.code, fault.message, id, started)
            return None

    def _content(
        self, effect: PublishToRoom | PublishToUser | PublishToAll, started: float
    ) -> msgspec.Raw | None:
        limit = self._gateway.settings.max_message_bytes
        return self._json(effect.content, effect.id, started, limit, Limit.MESSAGE_BYTES)

    def _publish(self, effect: PublishToRoom | PublishToAll, started: float) -> None:
        content = self._content(effect, started)
        if content is None:
            return
        done = partial(self.on_published, effect.id, started)
        publisher = self._gateway.publisher
        if isinstance(effect, PublishToRoom):
            publisher.to_room(self._sender, effect.room, content, done, id=effect.id, echo=effect.echo)
        else:
            publisher.to_all(self._sender, content, done, id=effect.id, echo=effect.echo)

    def on_published(self, id: str | UnsetType, started: float, outcome: server.Ack | PublishRefused) -> None:
        """Answer a message that was published, or refused."""
        if isinstance(outcome, PublishRefused):
            self._refuse(outcome.code, outcome.message, id, started, outcome.retry_after_ms or UNSET)
        else:
            self.reply(outcome, started)

    def _wants(self, room: str) -> bool:
        return room in self._session.rooms and not self._protocol.closing

    def _on_joined(
        self, room: str, id: str | UnsetType, started: float, outcome: RoomJoin | BusError | None
    ) -> None:
        held = self._joining.end(room)
        if isinstance(outcome, RoomJoin):
            self._answer_join(room, id, started, outcome)
            for effect, began in held:
                self._publish(effect, began)
            return
        if self._protocol.closing:
            return
        if outcome is None:
            code, text = ErrorCode.CONFLICT, "the room was left before it was joined"
        else:
            code, text = ErrorCode.UNAVAILABLE, "the room cannot be joined now; try again"
            if not self._gateway.rooms.has(self.connection_id, room):  # a member that asks again stays one
                self._session.rooms.discard(room)
        self._refuse(code, text, id, started)
        for effect, began in held:
            self._refuse(code, text, effect.id, began)

    def _answer_join(self, room: str, id: str | UnsetType, started: float, outcome: RoomJoin) -> None:
        position, catch_up = outcome.position, outcome.catch_up
        if catch_up is not None:
            self._session.charge(catch_up.size, _monotonic())
        recovered, missed = _recovery(catch_up)
        answer = server.JoinedRoom(
            room=room,
            epoch=position.epoch if position else UNSET,
            seq=position.seq if position else UNSET,
            recovered=recovered,
            missed=missed,
            id=id,
        )
        self._reply(
            EncodedMessage(answer) if catch_up is None else RecoveryAnswer(answer, catch_up.missed), started
        )
        self._gateway.presence.joined(self.connection_id, room)

    def _set_custom_data(self, effect: SetCustomData, started: float) -> None:
        limit = self._gateway.settings.max_custom_data_bytes
        data = self._json(effect.custom_data, effect.id, started, limit, Limit.CUSTOM_DATA_BYTES)
        if data is None:
            return
        try:
            rooms = self._gateway.connections.rooms_of_user(self.user_id)
            self._session.charge_custom_data(len(data), rooms, started)
        except CommandError as refusal:
            for answer in refusal.effects(effect.id):
                self._perform(answer, started)
        else:
            self._gateway.choose(self, custom_data=data)
            self.reply(server.Ack(id=effect.id), started)

    # --- channels ---

    def _follow(self, effect: Follow, started: float) -> None:
        if channel_names.INBOX in effect.channels and isinstance(effect.since, Position):
            self._gateway.tasks.spawn(self._resume_inbox(effect, effect.since, started), "resume inbox")
            return
        self.reply(server.Subscribed(channels=effect.channels, id=effect.id), started)
        subscribe.follow(self._gateway, self, effect.channels)

    async def _resume_inbox(self, effect: Follow, since: Position, started: float) -> None:
        try:
            catch_up = await self._gateway.inboxes.catch_up(self, since)
        except BusError:
            # What the session calls followed may be more than is: it says what to let go of at the end.
            self._refuse(ErrorCode.UNAVAILABLE, "the inbox cannot be read now; try again", effect.id, started)
            return
        self._session.charge(catch_up.size, _monotonic())
        # What came after the connection was opened has reached it already.
        catch_up.missed = [outbound for outbound in catch_up.missed if outbound.seq <= self._inbox_from]
        recovered, missed = _recovery(catch_up)
        reply = server.Subscribed(channels=effect.channels, recovered=recovered, missed=missed, id=effect.id)
        self._reply(RecoveryAnswer(reply, catch_up.missed), started)
        if not self._protocol.closing:
            wanted = [name for name in effect.channels if name in self._session.followed]
            subscribe.follow(self._gateway, self, wanted)


def _ms(seconds: float) -> int:
    return round(seconds * 1000)


def _encoding_of(codec: Codec, *, deflate: bool) -> Encoding:
    if codec.binary:
        return Encoding.MSGPACK_DEFLATE if deflate else Encoding.MSGPACK
    return Encoding.JSON_DEFLATE if deflate else Encoding.JSON


def _recovery(catch_up: CatchUp | None) -> tuple[bool | UnsetType, list[Any] | UnsetType]:
    """Return `recovered` and `missed` as replies carry them: both unset where nobody asked."""
    if catch_up is None:
        return UNSET, UNSET
    return catch_up.verdict is RecoveryVerdict.RECOVERED, [outbound.message for outbound in catch_up.missed]
