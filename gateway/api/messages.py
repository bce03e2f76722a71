"""Messages that users send as themselves over HTTP.

A user may send what a WebSocket carries, one request each: for clients without WebSockets, beside their stream, and for
scripts of users. A request has no connection, so rates count by user, and a message to a room needs the right to join it
instead of membership.
"""

import asyncio
import time
from collections.abc import Callable, Collection
from dataclasses import dataclass, replace
from typing import Any, Literal

import msgspec

from gateway.api.endpoint import (
    CONNECTION,
    IDENTITY_QUERY,
    USER,
    Call,
    Handler,
    HttpEndpoint,
    endpoint,
    forbidden,
)
from gateway.api.responses import ApiError
from gateway.auth.identity import Identity
from gateway.calls import NO_DATA
from gateway.delivery.publisher import Sender
from gateway.gateway import Gateway
from gateway.http.request_metrics import exclude_from_latency
from gateway.limits import Limit
from services.wire import client
from services.wire.client import MessageId, Method
from services.wire.codes import ErrorCode
from services.wire.content import BadMessage, ContentTooLarge, TooDeep, content_from_json
from services.wire.events import SetPresence
from services.wire.names import normalize_name
from services.wire.records import UNSET, Record, Status, UnsetType
from services.wire.server import Ack

_MAXCONNECTION_ID = 64
_ROOMS_CHARGED = 100  # where a connection may be in any number


class MessagePost(Record, frozen=True, kw_only=True):
    """`id` makes a retry no second message, on whatever transport the first try went."""

    content: msgspec.Raw
    id: MessageId | UnsetType = UNSET


class RoomMessagePost(MessagePost, frozen=True, kw_only=True):
    """`echo` asks for a copy on the connection that `Tidings-Connection` names; unset, the room's namespace decides."""

    echo: bool | UnsetType = UNSET


class StatusPut(Record, frozen=True, kw_only=True):
    """How available the user is."""

    status: Status


class CustomDataPut(Record, frozen=True, kw_only=True):
    """Replaces the user's custom data."""

    custom_data: msgspec.Raw


class CallPost(Record, frozen=True, kw_only=True):
    """A call of a method of the application. `data` is any JSON; unset, the application receives `null`."""

    method: Method
    data: msgspec.Raw | UnsetType = UNSET


class CallResult(Record, frozen=True, kw_only=True):
    """What the application returned."""

    data: Any


def _as_oneself(
    method: Literal["POST", "PUT"], path: str, body: type[Record]
) -> Callable[[Handler], HttpEndpoint]:
    return endpoint(
        method,
        path,
        USER,
        query=IDENTITY_QUERY,
        headers=(CONNECTION,),
        body=body,
        body_limit=Limit.MESSAGE_BYTES,
    )


# `path`: names may hold slashes, which arrive decoded.
@_as_oneself("POST", "/api/rooms/{room:path}/messages", RoomMessagePost)
async def send_to_room(call: Call) -> Ack:
    """Publish to a room as oneself."""
    poster = await _Poster.of(call)
    room = normalize_name(call.path["room"], "room")
    if room not in poster.rooms and not poster.identity.grants.may_join(room):
        raise forbidden()
    asked = await call.json(RoomMessagePost)
    poster.check(client.PublishRoomCommand(room=room, content=asked.content), {room})
    content = poster.content(asked.content)
    if room not in poster.rooms:
        await call.gateway.require_join(poster.sender, room)
    return await call.gateway.user_publisher.publish_room(
        poster.sender, room, content, asked.id, echo=asked.echo
    )


@_as_oneself("POST", "/api/users/{userId:path}/messages", MessagePost)
async def send_to_user(call: Call) -> Ack:
    """Send a direct message as oneself."""
    poster = await _Poster.of(call)
    asked = await call.json(MessagePost)
    poster.check(client.PublishDirectCommand(target_user_id=call.path["userId"], content=asked.content))
    user_id = normalize_name(call.path["userId"], "targetUserId")
    content = poster.content(asked.content)
    ack, online = await asyncio.gather(
        call.gateway.user_publisher.publish_user(poster.sender, user_id, content, asked.id),
        call.gateway.user_presence.is_online(user_id, poster.identity.grants),
    )
    return msgspec.structs.replace(ack, online=online)


@_as_oneself("POST", "/api/broadcast", MessagePost)
async def broadcast(call: Call) -> Ack:
    """Publish to every connection as oneself."""
    poster = await _Poster.of(call)
    asked = await call.json(MessagePost)
    poster.check(client.PublishBroadcastCommand(content=asked.content))
    return await call.gateway.user_publisher.broadcast(poster.sender, poster.content(asked.content), asked.id)


@_as_oneself("PUT", "/api/me/status", StatusPut)
async def set_status(call: Call) -> Ack:
    """Choose one's status."""
    poster = await _Poster.of(call)
    asked = await call.json(StatusPut)
    poster.check(client.StatusChange(status=asked.status))
    return await poster.set_presence(status=asked.status)


@_as_oneself("PUT", "/api/me/data", CustomDataPut)
async def set_custom_data(call: Call) -> Ack:
    """Replace one's custom data."""
    poster = await _Poster.of(call)
    asked = await call.json(CustomDataPut)
    poster.check(client.PresenceUpdate(custom_data=asked.custom_data))
    max_bytes = call.gateway.settings.max_custom_data_bytes
    data = poster.content(asked.custom_data, max_bytes, Limit.CUSTOM_DATA_BYTES)
    return await poster.set_presence(custom_data=data)


@_as_oneself("POST", "/api/rpc", CallPost)
async def rpc(call: Call) -> CallResult:
    """Call a method of the application as oneself."""
    exclude_from_latency(call.request.scope)  # the time is the application's
    poster = await _Poster.of(call)
    asked = await call.json(CallPost)
    poster.check(client.RpcCommand(method=asked.method, data=asked.data))
    data = NO_DATA if isinstance(asked.data, UnsetType) else poster.content(asked.data)
    sender = poster.sender
    if poster.connection_id not in call.gateway.connections:  # not known to be this user's
        sender = replace(sender, connection_id="")
    return CallResult(data=await call.gateway.calls.call(sender, asked.method, data))


@dataclass(frozen=True, slots=True)
class _Poster:
    """The user who sends by one request."""

    gateway: Gateway
    identity: Identity
    rooms: tuple[str, ...]  # which the application named
    connection_id: str

    @classmethod
    async def of(cls, call: Call) -> "_Poster":
        """Admit the user. Raises ApiError, and as `Admitter.admit`."""
        gateway = call.gateway
        connection_id = call.request.headers.get(CONNECTION.name, "")
        if len(connection_id) > _MAXCONNECTION_ID:
            raise ApiError(ErrorCode.INVALID_FIELD, f"{CONNECTION.name} is too long")
        admission = await gateway.admitter.admit(call.client_request)
        identity = admission.identity
        # A connection of another gateway is not known here: there, the sender's user id decides (`Fanout.send`).
        connection = gateway.connections.get(connection_id)
        if connection is not None and connection.user_id != identity.user_id:
            raise ApiError(ErrorCode.FORBIDDEN, f"{CONNECTION.name} names a connection of another user")
        return cls(gateway, identity, admission.rooms, connection_id)

    @property
    def sender(self) -> Sender:
        return Sender(self.identity.user_id, self.identity.username, self.connection_id)

    def check(self, message: client.AnyClientMessage, rooms: Collection[str] = ()) -> None:
        """Count and check a message as on a connection that is in these rooms. Raises CommandError."""
        gateway, now = self.gateway, time.monotonic()
        gateway.counters.messages_in += 1
        gateway.presence.active(self.identity.user_id)
        state = gateway.senders.state_of(self.identity, rooms, now)
        size = sum(len(part) for part in msgspec.structs.astuple(message) if isinstance(part, msgspec.Raw))
        state.check(message, now, size)
        if isinstance(message, client.PresenceUpdate):
            # Which rooms the user is in is known where their connections are: as many as one may be in are charged.
            state.charge_custom_data(size, gateway.settings.max_rooms_per_connection or _ROOMS_CHARGED, now)

    def content(
        self, content: msgspec.Raw, max_bytes: int = 0, limit: Limit = Limit.MESSAGE_BYTES
    ) -> msgspec.Raw:
        """Return checked content. Raises ApiError."""
        try:
            return content_from_json(content, self.gateway.settings.max_json_depth, max_bytes)
        except BadMessage as fault:
            if isinstance(fault, TooDeep):
                self.gateway.on_limit(Limit.JSON_DEPTH)
            elif isinstance(fault, ContentTooLarge):
                self.gateway.on_limit(limit)
            raise ApiError(fault.code, fault.message) from None

    async def set_presence(
        self, status: Status | UnsetType = UNSET, custom_data: msgspec.Raw | UnsetType = UNSET
    ) -> Ack:
        """Order it on the gateways that have the user's connections. Raises ApiError, BusError."""
        user_id, connection_id = self.identity.user_id, self.connection_id
        order = SetPresence(
            user_id=user_id, connection_id=connection_id, status=status, custom_data=custom_data
        )
        if not await self.gateway.user_presence.order(order):
            text = "the user has no such connection, or it is no presence: a stream needs rooms or `inbox`"
            raise ApiError(ErrorCode.CONFLICT, text)
        return Ack()
