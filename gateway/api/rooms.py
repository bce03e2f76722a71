"""Rooms that have members, and the history of one. Small, because each resource has a module of its own."""

from gateway.api.endpoint import READER, Call, IntegerQuery, endpoint, forbidden
from gateway.api.responses import ApiError
from gateway.delivery.publisher import Sender
from services.wire.codes import ErrorCode
from services.wire.names import normalize_name
from services.wire.records import UNSET, Record, RoomSummary, UnsetType
from services.wire.rpc import PRESENCE_ROOMS, RoomsQuery
from services.wire.server import RoomMessage

_MAX_ROOMS = 1000
_MAX_SEQ = 10**15 - 1

_ROOMS = IntegerQuery("limit", 1, _MAX_ROOMS, "Most rooms answered; 100 when absent.")
_MESSAGES = IntegerQuery("limit", 1, 1000, "Most messages answered; 100 when absent.")
_BEFORE = IntegerQuery("before", 1, _MAX_SEQ, "The newest before this sequence. Excludes `since`.")
_SINCE = IntegerQuery("since", 0, _MAX_SEQ, "Those after this sequence. Excludes `before`.")


class RoomPast(Record, frozen=True, kw_only=True):
    """Messages of a room, oldest first. (epoch, seq) is the room's position; absent for ephemeral rooms."""

    room: str
    epoch: str | UnsetType = UNSET
    seq: int | UnsetType = UNSET
    messages: list[RoomMessage]


@endpoint("GET", "/api/rooms", READER, query=(_ROOMS,))
async def rooms(call: Call) -> list[RoomSummary]:
    """Rooms that have members and that the reader may join, most users first."""
    reader = (await call.reader()).identity
    limit = _ROOMS.read(call) or 100
    # Filtered here, so all are requested: the first hundred may be rooms that the reader must not see.
    page = await call.gateway.service_client.call(PRESENCE_ROOMS, RoomsQuery(limit=_MAX_ROOMS))
    return [room for room in page.rooms if reader.grants.may_join(room.room)][:limit]


# `path`: a room's name may hold slashes, which arrive decoded.
@endpoint("GET", "/api/rooms/{room:path}/history", READER, query=(_MESSAGES, _BEFORE, _SINCE))
async def room_history(call: Call) -> RoomPast:
    """What a room keeps, oldest first."""
    gateway = call.gateway
    room = normalize_name(call.path["room"], "room")
    await _require_room(call, room)
    limit = _MESSAGES.read(call) or 100
    before, since = _BEFORE.read(call), _SINCE.read(call)
    if before is not None and since is not None:
        raise ApiError(ErrorCode.INVALID_FIELD, "`before` and `since` exclude each other")
    if not gateway.settings.namespaces[gateway.settings.namespace_of(room)].durable:
        return RoomPast(room=room, messages=[])
    found = await gateway.history.room_history(room, limit=limit, before=before, since=since)
    return RoomPast(room=room, epoch=found.epoch, seq=found.last_seq, messages=list(found.messages))


async def _require_room(call: Call, room: str) -> None:
    """Refuse a reader who may not join a room. Raises ApiError, AuthRefused, HookRefused, HookUnavailable."""
    admission = await call.reader()
    if room not in admission.rooms:
        reader = admission.identity
        if not reader.grants.may_join(room):
            raise forbidden()
        await call.gateway.require_join(Sender(reader.user_id, reader.username), room)
