"""One WebSocket client as a member of rooms: it joins and leaves, by itself and by room tokens.

Nothing here waits: opening a room and verifying a token call back.
"""

import time
from abc import abstractmethod
from functools import partial
from typing import TYPE_CHECKING, Any

import msgspec

from gateway.auth.expiry import CredentialTimer
from gateway.auth.identity import AuthRefused, Identity
from gateway.auth.revocations import applies_to
from gateway.auth.tokens import RoomToken
from gateway.client.commands import CommandError
from gateway.delivery.catch_up import CatchUp
from gateway.delivery.encoded_message import EncodedMessage, Encoding, RecoveryAnswer
from gateway.delivery.recovery import RecoveryVerdict
from gateway.delivery.rooms import RoomJoin
from gateway.delivery.streams import RoomRoute
from gateway.limits import Limit
from gateway.ws.client import WebSocketClient
from services.bus.errors import BusError
from services.wire import client, server
from services.wire.codec import Codec
from services.wire.codes import ErrorCode
from services.wire.content import BadMessage
from services.wire.events import Revoked
from services.wire.records import UNSET, UnsetType
from services.wire.rpc import Joined

if TYPE_CHECKING:
    from gateway.gateway import Gateway

_monotonic = time.monotonic
# A join takes milliseconds; only an outage makes more messages than this wait for it.
MAX_HELD = 100


class RoomClient(WebSocketClient):
    """The rooms of one client's WebSocket."""

    __slots__ = ("_codec", "_held", "_room_tokens")

    def __init__(
        self,
        gateway: "Gateway",
        identity: Identity,
        codec: Codec,
        connection_id: str,
        ip_key: str = "",
        *,
        deflate: bool = False,
    ) -> None:
        super().__init__(gateway, identity, _encoding_of(codec, deflate=deflate), connection_id, ip_key)
        self._codec = codec
        # Messages for rooms that are still being joined, so that none overtakes its join: its echo would find no member.
        self._held: dict[str, list[tuple[client.PublishRoomCommand, RoomRoute, float]]] = {}
        self._room_tokens: dict[str, tuple[RoomToken, CredentialTimer]] | None = None  # most have none

    def on_close(self, code: int, *, by_client: bool) -> None:
        """Unregister the connection everywhere."""
        for room in list(self._room_tokens or ()):
            self._drop_room_token(room)
        super().on_close(code, by_client=by_client)

    # --- messages to rooms ---

    @abstractmethod
    def _publish_to_room(self, command: client.PublishRoomCommand, route: RoomRoute, started: float) -> None:
        """Publish a message to a room that the client is in."""

    def _hold(self, command: client.PublishRoomCommand, route: RoomRoute, started: float) -> None:
        held = self._held[command.room]
        if len(held) >= MAX_HELD:
            text = "too many messages wait for this room to be joined"
            self._refuse(CommandError(ErrorCode.UNAVAILABLE, text), command.id, started)
        else:
            held.append((command, route, started))

    # --- joining ---

    def _start_join(self, command: client.JoinRoom, started: float) -> None:
        """Check what comes with a join, then join. Raises BadMessage."""
        room = command.room
        is_known = room in self._held or self._gateway.rooms.has(self.connection_id, room)
        if not isinstance(command.member_data, UnsetType):
            depth = self._gateway.settings.max_json_depth
            try:
                data = self._codec.content(command.member_data, depth, client.MAX_MEMBER_DATA_BYTES)
            except BadMessage:
                if not is_known:
                    self._state.leave(room)
                raise
            command = msgspec.structs.replace(command, member_data=data)
        if isinstance(command.token, UnsetType):
            self._join(command, started)
            return
        if not is_known:
            self._held[room] = []
        self._gateway.tasks.spawn(self._verify_and_join(command, command.token, started), "room token")

    async def _verify_and_join(self, command: client.JoinRoom, token: str, started: float) -> None:
        gateway, room = self._gateway, command.room
        try:
            verified = await gateway.authenticator.verify_room_token(token, room, self.user_id)
        except AuthRefused as refusal:
            self._on_joined(command, started, CommandError(refusal.code, refusal.message))
            return
        if not self.still_joining(room):
            self._on_joined(command, started, None)
            return
        self._drop_room_token(room)  # the newest one holds
        timer = CredentialTimer(0.0, bool, partial(self._end_room_token, room, "expired"))
        self._room_tokens = self._room_tokens or {}
        self._room_tokens[room] = (verified, timer)
        self._state.grant_room(room, publish=verified.publish)
        gateway.connections.watch_token(verified.identity.token_id, self)
        self._join(command, started)
        timer.start(verified.identity.expires_at)

    def _join(self, command: client.JoinRoom, started: float) -> None:
        room, rooms = command.room, self._gateway.rooms
        if not rooms.has(self.connection_id, room):
            self._held.setdefault(room, [])
        since = command.history if command.since is UNSET else command.since
        on_joined = partial(self._on_joined, command, started)
        rooms.join(self, room, since, partial(self.still_joining, room), on_joined)

    def _on_joined(
        self, command: client.JoinRoom, started: float, outcome: RoomJoin | BusError | CommandError | None
    ) -> None:
        room = command.room
        held = self._held.pop(room, [])
        if isinstance(outcome, RoomJoin):
            self._answer_join(command, started, outcome)
            for waiting, route, began in held:
                try:
                    self._state.check_publishing(room)  # a room token may have said otherwise meanwhile
                    self._publish_to_room(waiting, route, began)
                except CommandError as error:
                    self._refuse(error, waiting.id, began)
                except BadMessage as fault:
                    self._refuse_content(fault, Limit.MESSAGE_BYTES, waiting.id, began)
            return
        if self._protocol.closing:
            return
        if outcome is None:
            refusal = CommandError(ErrorCode.CONFLICT, "the room was left before it was joined")
        else:
            refusal = CommandError(ErrorCode.UNAVAILABLE, "the room cannot be joined now; try again")
            refusal = outcome if isinstance(outcome, CommandError) else refusal
            if not self._gateway.rooms.has(self.connection_id, room):  # a member that asks again stays one
                self._leave(room)
        self._refuse(refusal, command.id, started)
        for waiting, _, began in held:
            self._refuse(refusal, waiting.id, began)

    def _answer_join(self, command: client.JoinRoom, started: float, outcome: RoomJoin) -> None:
        room, data = command.room, command.member_data
        position, catch_up, history = outcome.position, outcome.catch_up, outcome.history
        if (read := catch_up or history) is not None:
            self._state.charge_read(read.size, _monotonic())
        recovered, missed = recovery_fields(catch_up)
        answer = server.JoinedRoom(
            room=room,
            epoch=position.epoch if position else UNSET,
            seq=position.seq if position else UNSET,
            recovered=recovered,
            missed=missed,
            history=UNSET if history is None else _messages_of(history.messages),
            id=command.id,
        )
        encoded = None
        if catch_up is not None:
            encoded = RecoveryAnswer(answer, stored=catch_up.missed)
        elif history is not None:
            encoded = RecoveryAnswer(answer, stored=history.messages, field="history")
        self.reply(answer, started, encoded)
        if not isinstance(data, UnsetType):
            self._member_data = (self._member_data or {}) | {room: (data, _monotonic())}
        self._gateway.presence.report(Joined(connection_id=self.connection_id, room=room, data=data))

    def _leave(self, room: str) -> None:
        self._drop_room_token(room)
        super()._leave(room)

    # --- room tokens ---

    def end_room_tokens(self, revoked: Revoked) -> None:
        """See `Client`."""
        for room, (token, _) in list((self._room_tokens or {}).items()):
            if applies_to(revoked, token.identity):
                self._end_room_token(room, "removed")

    def _end_room_token(self, room: str, reason: str) -> None:
        """End what a room token allows: membership, unless something else allows it too."""
        self._drop_room_token(room)
        if not self._state.withdraw_room(room):
            self.leave_room(room, reason)

    def _drop_room_token(self, room: str) -> None:
        found = None if self._room_tokens is None else self._room_tokens.pop(room, None)
        if found is None:
            return
        token, timer = found
        timer.cancel()
        token_id = token.identity.token_id
        if all(other.identity.token_id != token_id for other, _ in (self._room_tokens or {}).values()):
            self._gateway.connections.unwatch_token(token_id, self)


def _encoding_of(codec: Codec, *, deflate: bool) -> Encoding:
    if codec.binary:
        return Encoding.MSGPACK_DEFLATE if deflate else Encoding.MSGPACK
    return Encoding.JSON_DEFLATE if deflate else Encoding.JSON


def recovery_fields(catch_up: CatchUp | None) -> tuple[bool | UnsetType, list[Any] | UnsetType]:
    """Return `recovered` and `missed` as replies carry them: both unset where no position was given."""
    if catch_up is None:
        return UNSET, UNSET
    return catch_up.verdict is RecoveryVerdict.RECOVERED, _messages_of(catch_up.missed)


def _messages_of(stored: list[EncodedMessage]) -> list[Any]:
    return [each.message for each in stored]
