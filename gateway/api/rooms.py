"""Which rooms have members, and what was said in one."""

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from gateway.api.access import forbidden, grants_of
from gateway.api.declarations import Access, Operation, Query, between
from gateway.api.deps import ApiDeps
from gateway.api.query import integer, optional_integer
from gateway.api.responses import ApiError, JsonResponse
from services.wire.codes import ErrorCode
from services.wire.names import normalize_name
from services.wire.records import UNSET, Record, RoomSummary, UnsetType
from services.wire.rpc import PRESENCE_ROOMS, RoomsPage, RoomsQuery
from services.wire.server import RoomMessage

_MAX_ROOMS = 1000
_MAX_MESSAGES = 1000
_MAX_SEQ = 10**15 - 1


class RoomPast(Record, frozen=True, kw_only=True):
    """Messages of a room, oldest first. (epoch, seq) is where the room stands; absent for ephemeral rooms."""

    room: str
    epoch: str | UnsetType = UNSET
    seq: int | UnsetType = UNSET
    messages: list[RoomMessage]


def room_routes(deps: ApiDeps) -> list[Route]:
    """Return `GET /api/rooms` and `GET /api/rooms/{room}/history`."""

    async def occupied(request: Request) -> Response:
        """Answer an array of the rooms that have members and that the asker may join, most users first."""
        grants = await grants_of(deps, request)
        limit = integer(request, "limit", 100, low=1, high=_MAX_ROOMS)
        # Filtered here, so all are asked for: the first hundred may be rooms the asker must not see.
        page: RoomsPage = await deps.asking.ask(PRESENCE_ROOMS, RoomsQuery(limit=_MAX_ROOMS))
        return JsonResponse([room for room in page.rooms if grants.may_join(room.room)][:limit])

    async def past(request: Request) -> Response:
        """Answer what a room keeps: its newest messages, those before `before`, or those after `since`."""
        room = normalize_name(request.path_params["room"], "room")
        if not (await grants_of(deps, request)).may_join(room):
            raise forbidden()
        limit = integer(request, "limit", 100, low=1, high=_MAX_MESSAGES)
        before = optional_integer(request, "before", low=1, high=_MAX_SEQ)
        since = optional_integer(request, "since", low=0, high=_MAX_SEQ)
        if before is not None and since is not None:
            raise ApiError(ErrorCode.INVALID_FIELD, "`before` and `since` exclude each other")
        if not deps.settings.namespaces[deps.settings.namespace_of(room)].durable:
            return JsonResponse(RoomPast(room=room, messages=[]))
        found = await deps.history.room_history(room, limit=limit, before=before, since=since)
        return JsonResponse(
            RoomPast(room=room, epoch=found.epoch, seq=found.last_seq, messages=list(found.messages))
        )

    return [
        Route("/api/rooms", occupied),
        # `path`: a room's name may hold slashes, which arrive decoded.
        Route("/api/rooms/{room:path}/history", past),
    ]


OPERATIONS = (
    Operation(
        method="GET",
        path="/api/rooms",
        name="rooms",
        summary="Rooms that have members and that the asker may join, most users first",
        access=Access.READER,
        answer=list[RoomSummary],
        query=(Query("limit", between(1, _MAX_ROOMS), "Most rooms answered; 100 when absent."),),
    ),
    Operation(
        method="GET",
        path="/api/rooms/{room}/history",
        name="roomHistory",
        summary="What a room keeps, oldest first",
        access=Access.READER,
        answer=RoomPast,
        query=(
            Query("limit", between(1, _MAX_MESSAGES), "Most messages answered; 100 when absent."),
            Query("before", between(1, _MAX_SEQ), "The newest before this sequence. Excludes `since`."),
            Query("since", between(0, _MAX_SEQ), "Those after this sequence. Excludes `before`."),
        ),
    ),
)
