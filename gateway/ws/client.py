"""One WebSocket client as the gateway's parts see it: a member, present, and disconnected by orders."""

import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable
from functools import partial
from typing import TYPE_CHECKING

import msgspec
import structlog

from gateway.auth.expiry import CredentialTimer
from gateway.auth.identity import Identity
from gateway.client.commands import ClientState, CommandError
from gateway.connections import Figures, disconnect_message
from gateway.delivery.encoded_message import EncodedMessage, Encoding
from gateway.delivery.fd_table import FdRef
from gateway.delivery.publisher import Sender
from gateway.delivery.rooms import RoomJoin
from gateway.delivery.streams import RoomRoute
from gateway.limits import Limit
from gateway.presence.batch_queue import Chosen
from gateway.ws.protocol import WebSocketProtocol, discard
from services.bus.errors import BusError
from services.wire import server
from services.wire.codes import OUR_CODES, CloseCode, ErrorCode
from services.wire.content import BadMessage, ContentTooLarge, TooDeep
from services.wire.events import Revoked
from services.wire.records import UNSET, UnsetType
from services.wire.rpc import AnyPresenceOp, Connected, Disconnected, Joined, Left

if TYPE_CHECKING:
    from gateway.gateway import Gateway

log = structlog.get_logger(__name__)

_monotonic = time.monotonic
# The meaning of a close code; the text that a client sends with it is not for our log.
_REASONS = {1005: "no code", 1006: "connection lost"} | {code.number: code.value.reason for code in CloseCode}


class WebSocketClient(ABC):
    """A `Client` of the connection registry, and a member of its rooms and channels."""

    __slots__ = (
        "_chosen", "_gateway", "_member_data", "_messages_in", "_opened_at", "_protocol", "_seen_at", "_sender", "_state", "address",
        "connection_id", "encoding", "expiry", "identity", "ip_key", "sent_before", "user_id", "write",
    )  # fmt: skip

    _protocol: WebSocketProtocol  # set by `register`

    accept_messages = None  # the bytes of a fan-out suit every WebSocket with the same encoding

    def __init__(
        self, gateway: "Gateway", identity: Identity, encoding: Encoding, connection_id: str, ip_key: str
    ) -> None:
        self.connection_id = connection_id
        self.user_id = identity.user_id
        self.identity = identity
        self.ip_key = ip_key
        self.address = ""  # of the client, where it is not the socket's
        self.sent_before = 0
        self.expiry: CredentialTimer | None = None
        self.encoding = encoding
        self.write: Callable[[bytes], None] = discard
        self._gateway = gateway
        self._opened_at = self._seen_at = now = _monotonic()
        self._state = ClientState(identity, gateway.settings, gateway.streams.route, now, gateway.on_limit)
        self._sender = Sender(identity.user_id, identity.username, connection_id)
        self._chosen: Chosen | None = None  # most never choose anything
        self._messages_in = 0
        # What the user shows in rooms, kept to be announced again, and when it was set (monotonic seconds).
        self._member_data: dict[str, tuple[msgspec.Raw, float]] | None = None

    @property
    def fd_ref(self) -> FdRef:
        """See `Member`."""
        return self._protocol.fd_ref

    @property
    def backlog(self) -> int:
        """See `Member`."""
        return self._protocol.backlog

    @property
    def rooms(self) -> dict[str, RoomRoute]:
        """See `Client`."""
        return self._state.rooms

    def register(self, protocol: WebSocketProtocol) -> None:
        """Register the connection, whose upgrade was accepted with the welcome."""
        gateway = self._gateway
        self._protocol = protocol
        gateway.counters.connections += 1
        gateway.broadcasts.fanout.add(self)
        gateway.connections.add(self)
        username = self._sender.username
        gateway.presence.report(
            Connected(connection_id=self.connection_id, user_id=self.user_id, username=username)
        )

    def on_close(self, code: int, *, by_client: bool) -> None:
        """Unregister the connection everywhere, and log its one line."""
        gateway = self._gateway
        for room in self._state.rooms:
            gateway.rooms.leave(self.connection_id, room)
        gateway.channels.unfollow(self.connection_id, self._state.channels)
        gateway.broadcasts.fanout.discard(self.connection_id)
        gateway.inboxes.leave(self)
        gateway.connections.discard(self)
        gateway.counters.connections -= 1
        clean = by_client and code == CloseCode.NORMAL.number
        gateway.presence.report(Disconnected(connection_id=self.connection_id, clean=clean))
        log.info(
            "connection closed",
            connection=self.connection_id,
            user=self.user_id,
            code=code,
            reason=_REASONS.get(code, ""),
            by_client=by_client,
            rooms=len(self._state.rooms),
            messages_in=self._messages_in,
            seconds=round(_monotonic() - self._opened_at, 1),
        )

    @abstractmethod
    def end_room_tokens(self, revoked: Revoked) -> None:
        """See `Client`."""

    def on_slow(self) -> None:
        """Disconnect the client: it reads slower than its rooms send, and no other client waits for it (ADR 0004)."""
        self._gateway.counters.slow_clients += 1
        self._gateway.counters.dropped += 1
        self.disconnect(CloseCode.SLOW_CLIENT)

    def notify(self, message: server.ServerMessage) -> None:
        """Send a message to this connection alone."""
        self._protocol.write_soon(self.encode(message))

    def reply(
        self, message: server.ServerMessage, started: float, encoded: EncodedMessage | None = None
    ) -> None:
        """Answer a request, and count it. `encoded` is the message, where parts of it are encoded already."""
        if isinstance(message, server.Error):
            our_fault = message.code in (ErrorCode.UNAVAILABLE.code, ErrorCode.INTERNAL.code)
            code = (
                message.code if message.code in OUR_CODES else ErrorCode.REFUSED.code
            )  # an application's own
            self._gateway.counters.request_failed(code, our_fault=our_fault)
        else:
            self._gateway.counters.request_ok(started, _monotonic())
        self._protocol.write_soon((encoded or EncodedMessage(message)).encode(self.encoding))

    def _refuse(self, error: CommandError, id: str | UnsetType, started: float) -> None:
        self.reply(error.reply(id), started)
        if error.flood:
            self._gateway.counters.limit_hit(Limit.FLOODING)
            self.disconnect(CloseCode.FLOODING)

    def _refuse_content(self, fault: BadMessage, limit: Limit, id: str | UnsetType, started: float) -> None:
        if isinstance(fault, TooDeep):
            self._gateway.counters.limit_hit(Limit.JSON_DEPTH)
        elif isinstance(fault, ContentTooLarge):
            self._gateway.counters.limit_hit(limit)
        self._refuse(CommandError(fault.code, fault.message), id, started)

    def encode(self, message: server.ServerMessage) -> bytes:
        """Return a message as this client reads it."""
        return EncodedMessage(message).encode(self.encoding)

    def disconnect_frame(self, code: CloseCode) -> bytes:
        """Return the frame of `disconnect`."""
        return self.encode(disconnect_message(code))

    def disconnect(self, code: CloseCode, *, retry_after_ms: int | None = None, reason: str = "") -> None:
        """Send `disconnect` and close."""
        self._protocol.close(code, self.encode(disconnect_message(code, retry_after_ms, reason)))

    def abort(self) -> None:
        """End the connection without sending more."""
        self._protocol.abort()

    def presence_ops(self) -> Iterable[AnyPresenceOp]:
        """Yield what presence announces of this connection."""
        now = _monotonic()
        yield Connected(
            connection_id=self.connection_id,
            user_id=self.user_id,
            username=self._sender.username,
            idle_ms=round((now - self._seen_at) * 1000),
        )
        for room in self._state.rooms:
            if self._gateway.rooms.has(self.connection_id, room):
                yield self._joined(room, now)
        if self._chosen is not None:
            yield from self._chosen.ops(self.connection_id, now)

    def add_to_room(self, room: str, on_done: Callable[[ErrorCode | None], None]) -> None:
        """See `Client`."""
        gateway, state = self._gateway, self._state
        try:
            state.join_by_server(room)
        except CommandError:
            on_done(ErrorCode.TOO_MANY_ROOMS)
            return
        if gateway.rooms.has(self.connection_id, room):
            on_done(None)
        else:
            on_joined = partial(self._on_added, room, on_done)
            gateway.rooms.join(self, room, UNSET, partial(self.still_joining, room), on_joined)

    def still_joining(self, room: str) -> bool:
        """Whether a join is still wanted."""
        return room in self._state.rooms and not self._protocol.closing

    def _on_added(
        self, room: str, on_done: Callable[[ErrorCode | None], None], outcome: RoomJoin | BusError | None
    ) -> None:
        if isinstance(outcome, RoomJoin):
            if not self._gateway.rooms.has(self.connection_id, room):  # else its own join was faster
                position = outcome.position
                epoch, seq = (position.epoch, position.seq) if position else (UNSET, UNSET)
                self.notify(server.JoinedRoom(room=room, epoch=epoch, seq=seq))
                self._gateway.presence.report(Joined(connection_id=self.connection_id, room=room))
            on_done(None)
            return
        if outcome is not None and not self._gateway.rooms.has(self.connection_id, room):
            self._state.leave(room)
        on_done(ErrorCode.UNAVAILABLE if outcome is not None else ErrorCode.CONFLICT)

    def remove_from_room(self, room: str) -> bool:
        """See `Client`."""
        return self.leave_room(room, "removed")

    def leave_room(self, room: str, reason: str) -> bool:
        """Leave a room, and send `left_room`; return whether it was in it."""
        if room not in self._state.rooms:
            return False
        self._leave(room)
        self.notify(server.LeftRoom(room=room, reason=reason))
        return True

    def _leave(self, room: str) -> None:
        self._state.leave(room)
        if self._member_data is not None:
            self._member_data.pop(room, None)
        if self._gateway.rooms.leave(self.connection_id, room):
            self._gateway.presence.report(Left(connection_id=self.connection_id, room=room))

    def figures(self) -> Figures:
        """See `Client`."""
        counted = self._protocol.bytes_counted()
        received, sent = (UNSET, UNSET) if counted is None else counted
        return Figures(
            transport="websocket",
            opened_at=self._opened_at,
            seen_at=max(self._seen_at, self._protocol.last_received),
            address=self.address or self._protocol.peer_address,
            channels=self._state.channels,
            messages_in=self._messages_in,
            bytes_in=received,
            bytes_out=sent,
        )

    def _joined(self, room: str, now: float) -> Joined:
        if self._member_data is None or room not in self._member_data:
            return Joined(connection_id=self.connection_id, room=room)
        data, set_at = self._member_data[room]
        age_ms = round((now - set_at) * 1000)
        return Joined(connection_id=self.connection_id, room=room, data=data, age_ms=age_ms)

    def chosen(self) -> Chosen:
        """See `Client`."""
        if self._chosen is None:
            self._chosen = Chosen()
        return self._chosen
