"""One WebSocket client: decodes its messages, has them checked, and carries them out.

Nothing here waits. What takes time (storing, opening a room) calls back.
"""

import asyncio
import time
from functools import partial
from typing import TYPE_CHECKING

import msgspec

from gateway.auth.expiry import to_ms
from gateway.auth.identity import AuthRefused, Identity
from gateway.channels import channel_names
from gateway.client.commands import CommandError
from gateway.delivery.encoded_message import RecoveryAnswer
from gateway.delivery.publisher import PublishRefused
from gateway.delivery.streams import RoomRoute
from gateway.limits import Limit
from gateway.ws.protocol import WebSocketProtocol
from gateway.ws.room_client import RoomClient, recovery_fields
from services.bus.errors import BusError
from services.wire import client, server
from services.wire.codec import Codec
from services.wire.codes import CloseCode, ErrorCode
from services.wire.content import BadMessage, TooDeep
from services.wire.records import UNSET, Position, UnsetType

if TYPE_CHECKING:
    from gateway.gateway import Gateway

_monotonic = time.monotonic

_DATA_LIMITS = {
    client.PresenceUpdate: Limit.CUSTOM_DATA_BYTES,
    client.JoinRoom: Limit.MEMBER_DATA_BYTES,
}

_PublishCommand = client.PublishRoomCommand | client.PublishDirectCommand | client.PublishBroadcastCommand


class Connection(RoomClient):
    """The handler of one client's WebSocket."""

    __slots__ = ("_inbox_from", "_origin", "_refreshing")

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
        super().__init__(gateway, identity, codec, connection_id, ip_key, deflate=deflate)
        self._origin = origin  # of the page that opened the connection
        self._refreshing = False
        self._inbox_from = 0  # personal messages after this sequence reach the connection live

    def start(self, protocol: WebSocketProtocol, inbox: Position, wanted: list[str]) -> None:
        """Register the connection, and subscribe to the channels that its URL names."""
        self.register(protocol)
        self._inbox_from = inbox.seq
        if wanted:
            now = _monotonic()
            try:
                self._subscribe(client.Subscribe(channels=self._state.subscribe(wanted)), now)
            except CommandError as error:
                self._refuse(error, UNSET, now)

    def on_message(self, data: bytes, binary: bool) -> None:
        """Decode, check and carry out one message."""
        if binary != self._codec.binary:
            self._protocol.close(CloseCode.UNSUPPORTED_DATA)
            return
        gateway, state = self._gateway, self._state
        gateway.counters.messages_in += 1
        self._messages_in += 1
        gateway.presence.active(self.user_id)
        self._seen_at = now = _monotonic()
        try:
            message = self._codec.decode(data)
        except BadMessage as fault:
            self._refuse_malformed(fault, now, len(data))
            return
        try:
            match command := state.check(message, now, len(data)):
                case client.PublishRoomCommand():
                    route = state.rooms[command.room]
                    if self._held and command.room in self._held:
                        self._hold(command, route, now)
                    else:
                        self._publish_to_room(command, route, now)
                case client.Heartbeat(id=id):
                    self.reply(server.HeartbeatAck(id=id), now)
                case client.JoinRoom():
                    self._start_join(command, now)
                case client.LeaveRoom(room=room, id=id):
                    self._leave(room)
                    self.reply(server.LeftRoom(room=room, id=id), now)
                case client.PublishDirectCommand():
                    self._publish_to_user(command, now)
                case client.PublishBroadcastCommand(id=id, echo=echo):
                    done = partial(self._on_published, id, now)
                    gateway.user_publisher.to_all(
                        self._sender, self._content(command), done, id=id, echo=echo
                    )
                case client.StatusChange(status=status, id=id):
                    gateway.user_presence.choose(self, status=status)
                    self.reply(server.Ack(id=id), now)
                case client.PresenceUpdate():
                    self._set_custom_data(command, now)
                case client.Subscribe():
                    self._subscribe(command, now)
                case client.Unsubscribe(channels=list(names), id=id):
                    gateway.channels.unfollow(self.connection_id, names)
                    self.reply(server.Unsubscribed(channels=names, id=id), now)
                case client.Refresh():
                    self._refresh(command, now)
                case client.RpcCommand(id=id):
                    on_answer = partial(self._on_answer, id, now)
                    gateway.calls.start(self._sender, command, self._codec.content, on_answer)
        except CommandError as error:
            self._refuse(error, message.id, now)
        except BadMessage as fault:
            limit = _DATA_LIMITS.get(type(message), Limit.MESSAGE_BYTES)
            self._refuse_content(fault, limit, message.id, now)

    def _refuse_malformed(self, fault: BadMessage, started: float, size: int) -> None:
        if isinstance(fault, TooDeep):
            self._gateway.counters.limit_hit(Limit.JSON_DEPTH)
        refusal = CommandError(fault.code, fault.message)
        try:
            self._state.check_rates(started, size)
        except CommandError as error:
            refusal = error
        self._refuse(refusal, UNSET if fault.id is None else fault.id, started)

    def _on_answer(self, id: str | UnsetType, started: float, outcome: msgspec.Raw | CommandError) -> None:
        if isinstance(outcome, CommandError):
            self._refuse(outcome, id, started)
        else:
            self.notify(server.RpcResult(data=outcome, id=id))

    # --- publishing ---

    def _content(self, command: _PublishCommand) -> msgspec.Raw:
        settings = self._gateway.settings
        return self._codec.content(command.content, settings.max_json_depth, settings.max_message_bytes)

    def _publish_to_room(self, command: client.PublishRoomCommand, route: RoomRoute, started: float) -> None:
        gateway, settings = self._gateway, self._gateway.settings
        content = self._codec.content(command.content, settings.max_json_depth, settings.max_message_bytes)
        done = partial(self._on_published, command.id, started)
        gateway.user_publisher.to_room(self._sender, route, content, done, id=command.id, echo=command.echo)

    def _publish_to_user(self, command: client.PublishDirectCommand, started: float) -> None:
        """Store the message and look the receiver up at the same time; the answer waits for both."""
        gateway, user_id, content = self._gateway, command.target_user_id, self._content(command)
        lookup = gateway.user_presence.is_online(user_id, self.identity.grants)
        online = gateway.tasks.spawn(lookup, "is online")

        def done(outcome: server.Ack | PublishRefused) -> None:
            if isinstance(outcome, PublishRefused):
                self._on_published(command.id, started, outcome)
            else:
                online.add_done_callback(partial(self._acknowledge_direct, outcome, started))

        gateway.user_publisher.to_user(self._sender, user_id, content, done, id=command.id)

    def _acknowledge_direct(
        self, ack: server.Ack, started: float, online: "asyncio.Task[bool | UnsetType]"
    ) -> None:
        if not online.cancelled() and online.exception() is None:  # else the message is stored all the same
            ack = msgspec.structs.replace(ack, online=online.result())
        self.reply(ack, started)

    def _on_published(
        self, id: str | UnsetType, started: float, outcome: server.Ack | PublishRefused
    ) -> None:
        if isinstance(outcome, PublishRefused):
            retry_after_ms = outcome.retry_after_ms or UNSET
            self._refuse(CommandError(outcome.code, outcome.message, retry_after_ms), id, started)
        else:
            self.reply(outcome, started)

    # --- presence and credentials ---

    def _set_custom_data(self, command: client.PresenceUpdate, started: float) -> None:
        gateway, settings = self._gateway, self._gateway.settings
        data = self._codec.content(
            command.custom_data, settings.max_json_depth, settings.max_custom_data_bytes
        )
        rooms = gateway.connections.rooms_of_user(self.user_id)
        self._state.charge_custom_data(len(data), rooms, started)
        gateway.user_presence.choose(self, custom_data=data)
        self.reply(server.Ack(id=command.id), started)

    def _refresh(self, command: client.Refresh, started: float) -> None:
        """Verify new credentials; refused ones change nothing: the old ones remain."""
        if self._refreshing:
            error = CommandError(ErrorCode.CONFLICT, "another `refresh` is under way")
            self._refuse(error, command.id, started)
            return
        self._refreshing = True
        self._gateway.tasks.spawn(self._refresh_credentials(command, started), "renew credentials")

    async def _refresh_credentials(self, command: client.Refresh, started: float) -> None:
        gateway = self._gateway
        try:
            identity = await gateway.authenticator.refresh(
                self._state.identity,
                token=command.token or "",
                ticket=command.ticket or "",
                origin=self._origin,
            )
        except AuthRefused as refusal:
            self._refuse(CommandError(refusal.code, refusal.message), command.id, started)
        except BusError:
            error = CommandError(ErrorCode.UNAVAILABLE, "the ticket cannot be looked up now")
            self._refuse(error, command.id, started)
        else:
            if self.connection_id in gateway.connections:  # else it closed meanwhile
                self._apply_identity(identity)
                expires_at = UNSET if identity.expires_at is None else to_ms(identity.expires_at)
                self.reply(server.Ack(id=command.id, expires_at=expires_at), started)
                gateway.connections.renew(self, identity)
        finally:
            self._refreshing = False

    def _apply_identity(self, identity: Identity) -> None:
        """Leave what the new grants do not allow any more."""
        gateway = self._gateway
        rooms, names = self._state.update_grants(identity)
        for room in rooms:
            self._leave(room)
            self.notify(server.LeftRoom(room=room, reason="removed"))
        if names:
            gateway.channels.unfollow(self.connection_id, names)
            self.notify(server.Unsubscribed(channels=names))

    # --- channels ---

    def _subscribe(self, command: client.Subscribe, started: float) -> None:
        names = command.channels or []
        if channel_names.INBOX in names and isinstance(command.since, Position):
            recovery = self._recover_inbox(names, command.since, command.id, started)
            self._gateway.tasks.spawn(recovery, "resume inbox")
            return
        self.reply(server.Subscribed(channels=names, id=command.id), started)
        self._gateway.channels.follow(self, names)

    async def _recover_inbox(
        self, names: list[str], since: Position, id: str | UnsetType, started: float
    ) -> None:
        try:
            catch_up = await self._gateway.inboxes.catch_up(self, since)
        except BusError:
            # The state may count more channels as subscribed than are: closing unsubscribes from all of them.
            error = CommandError(ErrorCode.UNAVAILABLE, "the inbox cannot be read now; try again")
            self._refuse(error, id, started)
            return
        self._state.charge_read(catch_up.size, _monotonic())
        # What arrived after the connection was opened has reached it already.
        catch_up.missed = [message for message in catch_up.missed if message.seq <= self._inbox_from]
        recovered, missed = recovery_fields(catch_up)
        reply = server.Subscribed(channels=names, recovered=recovered, missed=missed, id=id)
        self.reply(reply, started, RecoveryAnswer(reply, stored=catch_up.missed))
        if not self._protocol.closing:
            wanted = [name for name in names if name in self._state.channels]
            self._gateway.channels.follow(self, wanted)
