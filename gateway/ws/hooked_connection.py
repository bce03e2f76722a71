"""One WebSocket client of a gateway whose application decides about joins, or names rooms of its own.

A class of its own, so that connections of other gateways have nothing to look at.
"""

import asyncio
import time
from functools import partial
from typing import TYPE_CHECKING

import msgspec

from gateway.channels.channel_names import presence_room
from gateway.client.commands import CommandError
from gateway.delivery.rooms import RoomJoin
from gateway.hooks.admission import Admission
from gateway.hooks.hooks import Hooks
from gateway.hooks.messages import HookRefused, HookUnavailable
from gateway.ws.connection import Connection
from gateway.ws.protocol import WebSocketProtocol
from services.bus.errors import BusError
from services.wire import client
from services.wire.codec import Codec
from services.wire.codes import CloseCode, ErrorCode
from services.wire.records import UNSET, Position, UnsetType

if TYPE_CHECKING:
    from gateway.gateway import Gateway


class HookedConnection(Connection):
    """The handler of one client's WebSocket, beside an application."""

    __slots__ = ("_admission", "_hooks")

    def __init__(
        self,
        gateway: "Gateway",
        hooks: Hooks,
        admission: Admission,
        codec: Codec,
        connection_id: str,
        ip_key: str = "",
        origin: str | None = None,
        *,
        deflate: bool = False,
    ) -> None:
        super().__init__(gateway, admission.identity, codec, connection_id, ip_key, origin, deflate=deflate)
        self._hooks = hooks
        self._admission = admission

    def start(self, protocol: WebSocketProtocol, inbox: Position, wanted: list[str]) -> None:
        """Register the connection, set the custom data and join the rooms that the application names."""
        super().start(protocol, inbox, wanted)
        if not isinstance(self._admission.custom_data, UnsetType):
            self._gateway.user_presence.choose(self, custom_data=self._admission.custom_data)
        for room in self._admission.rooms:
            self._state.server_rooms |= {room}
            self._state.add_room(room)
            self._held.setdefault(room, [])
            on_joined = partial(self._on_admitted, room, time.monotonic())
            self._gateway.rooms.join(self, room, UNSET, partial(self.still_joining, room), on_joined)

    def _on_admitted(self, room: str, started: float, outcome: RoomJoin | BusError | None) -> None:
        if isinstance(outcome, BusError):  # the client did not ask, so it cannot ask again
            self.disconnect(CloseCode.OVERLOADED)
        else:
            self._on_joined(client.JoinRoom(room=room), started, outcome)

    def _join(self, command: client.JoinRoom, started: float) -> None:
        is_member = self._gateway.rooms.has(self.connection_id, command.room)
        if not self._hooks.asks_join or (is_member and command.member_data is UNSET):
            super()._join(command, started)
            return
        self._held.setdefault(command.room, [])
        self._gateway.tasks.spawn(self._request_join(command, started), "join hook")

    async def _request_join(self, command: client.JoinRoom, started: float) -> None:
        room = command.room
        try:
            decision = await self._hooks.join(self._sender, room, command.member_data)
        except (HookRefused, HookUnavailable) as fault:
            self._on_joined(command, started, _error(fault))
        else:
            if decision.history is not UNSET:
                command = msgspec.structs.replace(command, history=decision.history)
            if decision.member_data is not UNSET:
                command = msgspec.structs.replace(command, member_data=decision.member_data)
            if self.still_joining(room):
                super()._join(command, started)
            else:
                self._on_joined(command, started, None)

    def _subscribe(self, command: client.Subscribe, started: float) -> None:
        rooms = self._rooms_shown(command) if self._hooks.asks_join else []
        if rooms:
            self._gateway.tasks.spawn(self._request_subscription(command, rooms, started), "join hook")
        else:
            super()._subscribe(command, started)

    def _rooms_shown(self, command: client.Subscribe) -> list[str]:
        """Return the rooms whose members the channels show, without those that the client is in."""
        shown = [room for name in command.channels or [] if (room := presence_room(name))]
        has, admitted = self._gateway.rooms.has, self._admission.rooms
        return [room for room in shown if room not in admitted and not has(self.connection_id, room)]

    async def _request_subscription(
        self, command: client.Subscribe, rooms: list[str], started: float
    ) -> None:
        """Subscribe if the application would let the client join the rooms."""
        names, subscribed = command.channels or [], self._state.channels
        try:
            await asyncio.gather(*[self._hooks.join(self._sender, room) for room in rooms])
        except (HookRefused, HookUnavailable) as fault:
            subscribed.difference_update(names)
            self._gateway.channels.unfollow(self.connection_id, names)
            self._refuse(_error(fault), command.id, started)
        else:
            if not self._protocol.closing:
                wanted = [name for name in names if name in subscribed]
                super()._subscribe(msgspec.structs.replace(command, channels=wanted), started)


def _error(fault: HookRefused | HookUnavailable) -> CommandError:
    """Return what a client gets for what the application refused, or did not answer."""
    if isinstance(fault, HookRefused):
        return CommandError(fault.spec, fault.message)
    return CommandError(ErrorCode.UNAVAILABLE, fault.message, fault.retry_after_ms)
