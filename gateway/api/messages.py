"""What users send over HTTP, as themselves: the messages of a WebSocket, one request each.

For clients that cannot have a WebSocket, beside their stream, and for scripts of users. A request has no connection, so
what a connection counts is counted by user, and a message to a room needs the right to join it instead of membership.
"""

import asyncio
import time
from typing import TypeVar

import msgspec
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from gateway.api.access import forbidden
from gateway.api.body import read_json
from gateway.api.declarations import Access, Operation, Query
from gateway.api.deps import ApiDeps
from gateway.api.responses import ApiError, JsonResponse
from gateway.auth.identity import Identity
from gateway.client.effects import (
    Effect,
    PublishToAll,
    PublishToRoom,
    PublishToUser,
    SetCustomData,
    SetStatus,
)
from gateway.delivery.publisher import Sender
from gateway.limits import Limit
from services.wire import client
from services.wire.client import MessageId
from services.wire.codes import ErrorCode
from services.wire.content import BadMessage, ContentTooLarge, TooDeep, content_from_json
from services.wire.events import SetPresence
from services.wire.names import normalize_name
from services.wire.records import UNSET, Record, Status, UnsetType
from services.wire.server import Ack

CONNECTION_HEADER = "Tidings-Connection"
_MAX_CONNECTION_ID = 64
_ROOMS_CHARGED = 100  # where a connection may be in any number

T = TypeVar("T")


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


def message_routes(deps: ApiDeps) -> list[Route]:
    """Return the routes; each answers as `ack`."""

    async def to_room(request: Request) -> Response:
        """Publish to a room that the user may join and publish to."""
        who = await _Asker.of(deps, request)
        room = normalize_name(request.path_params["room"], "room")
        if not who.identity.grants.may_join(room):
            raise forbidden()
        asked = await _read(deps, request, RoomMessagePost)
        message = client.PublishRoomCommand(room=room, content=asked.content, echo=asked.echo, id=asked.id)
        return JsonResponse(await who.send(message, {room}))

    async def to_user(request: Request) -> Response:
        """Send to a user's inbox."""
        who = await _Asker.of(deps, request)
        asked = await _read(deps, request, MessagePost)
        user_id = request.path_params["userId"]
        message = client.PublishDirectCommand(target_user_id=user_id, content=asked.content, id=asked.id)
        return JsonResponse(await who.send(message))

    async def to_all(request: Request) -> Response:
        """Publish to every connection."""
        who = await _Asker.of(deps, request)
        asked = await _read(deps, request, MessagePost)
        return JsonResponse(
            await who.send(client.PublishBroadcastCommand(content=asked.content, id=asked.id))
        )

    async def status(request: Request) -> Response:
        """Choose the user's status, for the connection that is named or for all they have."""
        who = await _Asker.of(deps, request)
        asked = await _read(deps, request, StatusPut)
        return JsonResponse(await who.send(client.StatusChange(status=asked.status)))

    async def data(request: Request) -> Response:
        """Replace the user's custom data."""
        who = await _Asker.of(deps, request)
        asked = await _read(deps, request, CustomDataPut)
        return JsonResponse(await who.send(client.PresenceUpdate(custom_data=asked.custom_data)))

    return [
        # `path`: names may hold slashes, which arrive decoded.
        Route("/api/rooms/{room:path}/messages", to_room, methods=["POST"]),
        Route("/api/users/{userId:path}/messages", to_user, methods=["POST"]),
        Route("/api/broadcast", to_all, methods=["POST"]),
        Route("/api/me/status", status, methods=["PUT"]),
        Route("/api/me/data", data, methods=["PUT"]),
    ]


async def _read(deps: ApiDeps, request: Request, type_: type[T]) -> T:
    settings = deps.settings
    return await read_json(
        request, settings.max_message_bytes, type_, settings.body_timeout_s, Limit.MESSAGE_BYTES
    )


class _Asker:
    """The user of one request."""

    def __init__(self, deps: ApiDeps, identity: Identity, connection_id: str) -> None:
        self.identity = identity
        self._deps = deps
        self._connection_id = connection_id

    @classmethod
    async def of(cls, deps: ApiDeps, request: Request) -> "_Asker":
        """Return who asks. Raises AuthRefused, ApiError, BusError."""
        identity = await deps.authenticator.authenticate(request.headers, request.query_params)
        connection_id = request.headers.get(CONNECTION_HEADER, "")
        if len(connection_id) > _MAX_CONNECTION_ID:
            raise ApiError(ErrorCode.INVALID_FIELD, f"{CONNECTION_HEADER} is too long")
        # One of another gateway is not known here: there, who the sender is decides (`Fanout.send`).
        if deps.owner_of(connection_id) not in (None, identity.user_id):
            raise ApiError(ErrorCode.FORBIDDEN, f"{CONNECTION_HEADER} names a connection of another user")
        return cls(deps, identity, connection_id)

    async def send(self, message: client.AnyClientMessage, rooms: set[str] | None = None) -> Ack:
        """Carry out a message as on a connection that is in these rooms.

        Raises:
            CommandError, PublishRefused, ApiError, BusError: it was not carried out.
        """
        deps, now = self._deps, time.monotonic()
        deps.note_message(self.identity.user_id)
        session = deps.senders.session(self.identity, rooms or set(), now)
        size = sum(len(part) for part in msgspec.structs.astuple(message) if isinstance(part, msgspec.Raw))
        (effect,) = session.check(message, now, size)
        if isinstance(effect, SetCustomData):
            # Which rooms the user is in is known where their connections are: as many as one may be in are charged.
            session.charge_custom_data(size, deps.settings.max_rooms_per_connection or _ROOMS_CHARGED, now)
        return await self._perform(effect)

    async def _perform(self, effect: Effect) -> Ack:
        deps = self._deps
        sender = Sender(self.identity.user_id, self.identity.username, self._connection_id)
        match effect:
            case PublishToRoom(room, content, echo, id):
                return await deps.publisher.publish_room(sender, room, self._json(content), id, echo=echo)
            case PublishToUser(user_id, content, id):
                ack, online = await asyncio.gather(
                    deps.publisher.publish_user(sender, user_id, self._json(content), id),
                    deps.is_online(user_id, self.identity.grants),
                )
                return msgspec.structs.replace(ack, online=online)
            case PublishToAll(content, _, id):
                return await deps.publisher.broadcast(sender, self._json(content), id)
            case SetStatus(status):
                return await self._choose(status=status)
            case SetCustomData(custom_data):
                limit = deps.settings.max_custom_data_bytes
                data = self._json(custom_data, limit, Limit.CUSTOM_DATA_BYTES)
                return await self._choose(custom_data=data)
            case _:
                raise TypeError(f"no request asks for {effect!r}")

    async def _choose(
        self, status: Status | UnsetType = UNSET, custom_data: msgspec.Raw | UnsetType = UNSET
    ) -> Ack:
        order = SetPresence(
            user_id=self.identity.user_id,
            connection_id=self._connection_id,
            status=status,
            custom_data=custom_data,
        )
        if not await self._deps.set_presence(order):
            text = "the user has no such connection, or it is no presence: a stream needs rooms or `inbox`"
            raise ApiError(ErrorCode.CONFLICT, text)
        return Ack()

    def _json(
        self, content: msgspec.Raw, max_bytes: int = 0, limit: Limit = Limit.MESSAGE_BYTES
    ) -> msgspec.Raw:
        try:
            return content_from_json(content, self._deps.settings.max_json_depth, max_bytes)
        except BadMessage as fault:
            if isinstance(fault, TooDeep):
                self._deps.on_limit(Limit.JSON_DEPTH)
            elif isinstance(fault, ContentTooLarge):
                self._deps.on_limit(limit)
            raise ApiError(fault.code, fault.message) from None


_WHO = (
    Query("username", str, "Display name under `TIDINGS_AUTH=open`."),
    Query("session", str, "The `session` of an earlier `welcome` or `connected`: this is that user."),
)
_CONNECTION = (
    Query(
        CONNECTION_HEADER,
        str,
        "A connection of this user, by its `connectionId`: it gets no copy, and it is whose status and data are set.",
    ),
)


def _operation(method: str, path: str, name: str, summary: str, body: type[Record]) -> Operation:
    return Operation(
        method="POST" if method == "POST" else "PUT",
        path=path,
        name=name,
        summary=summary,
        access=Access.USER,
        body=body,
        answer=Ack,
        query=_WHO,
        headers=_CONNECTION,
    )


OPERATIONS = (
    _operation(
        "POST", "/api/rooms/{room}/messages", "sendToRoom", "Publish to a room as oneself", RoomMessagePost
    ),
    _operation(
        "POST", "/api/users/{userId}/messages", "sendToUser", "Send a direct message as oneself", MessagePost
    ),
    _operation("POST", "/api/broadcast", "broadcast", "Publish to every connection as oneself", MessagePost),
    _operation("PUT", "/api/me/status", "setStatus", "Choose one's status", StatusPut),
    _operation("PUT", "/api/me/data", "setCustomData", "Replace one's custom data", CustomDataPut),
)
