"""Who is online."""

from urllib.parse import urlencode

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from gateway.api.access import require_channel
from gateway.api.declarations import Access, Operation, Query, between
from gateway.api.deps import ApiDeps
from gateway.api.query import integer
from gateway.api.responses import ApiError, JsonResponse
from services.wire.codes import ErrorCode
from services.wire.names import normalize_name
from services.wire.records import UNSET, Record, UnsetType, User
from services.wire.rpc import (
    PRESENCE_LIST,
    PRESENCE_STATS,
    Empty,
    PresencePage,
    PresenceQuery,
    PresenceStats,
)

_MAX_USERS = 10_000
_MAX_WANTED = 1000
_MAX_CURSOR = 512


class PresenceCounts(Record, frozen=True, kw_only=True):
    """How many users are online, over how many connections, in how many rooms, on how many gateways; of one room,
    its users alone."""

    users: int
    connections: int | UnsetType = UNSET
    rooms: int | UnsetType = UNSET
    gateways: int | UnsetType = UNSET


def presence_routes(deps: ApiDeps) -> list[Route]:
    """Return `GET /api/presence` and `GET /api/presence/stats`."""

    async def online(request: Request) -> Response:
        """Answer an array of users by id: all, those in `room`, those of `user`; a `Link` header leads to the rest."""
        room = await _readable_room(deps, request)
        wanted = _wanted(request)
        limit = integer(request, "limit", 1000, low=1, high=_MAX_USERS)
        if wanted:
            limit = _MAX_WANTED
        users: list[User] = []
        cursor = "" if wanted else request.query_params.get("cursor", "")[:_MAX_CURSOR]
        while True:
            # presence_svc ends a page early where the users' data would not fit one message.
            query = PresenceQuery(
                room=room or UNSET, users=wanted or UNSET, limit=limit - len(users), cursor=cursor
            )
            page: PresencePage = await deps.asking.ask(PRESENCE_LIST, query)
            users += page.users
            cursor = page.cursor
            if not cursor or not page.users or len(users) >= limit:
                break
        return JsonResponse(users, headers={} if wanted else _next_page(room, limit, cursor))

    async def counts(request: Request) -> Response:
        """Answer how many are online, or in `room`, and nothing of who they are."""
        room = await _readable_room(deps, request)
        if room is not None:
            page: PresencePage = await deps.asking.ask(PRESENCE_LIST, PresenceQuery(room=room, limit=1))
            return JsonResponse(PresenceCounts(users=page.count))
        found: PresenceStats = await deps.asking.ask(PRESENCE_STATS, Empty())
        return JsonResponse(
            PresenceCounts(
                users=found.users,
                connections=found.connections,
                rooms=found.rooms,
                gateways=found.gateways,
            )
        )

    return [Route("/api/presence", online), Route("/api/presence/stats", counts)]


async def _readable_room(deps: ApiDeps, request: Request) -> str | None:
    """Return the room asked about, if any; the asker may follow the channel that shows the same."""
    wanted = request.query_params.get("room")
    room = None if wanted is None else normalize_name(wanted, "room")
    await require_channel(deps, request, "presence" if room is None else f"presence:{room}")
    return room


def _wanted(request: Request) -> list[str]:
    """Return the users asked about by name, if any. Raises ApiError, InvalidName."""
    names = [normalize_name(name, "user") for name in request.query_params.getlist("user")]
    if len(names) > _MAX_WANTED:
        raise ApiError(ErrorCode.INVALID_FIELD, f"`user` may be given {_MAX_WANTED} times")
    return names


def _next_page(room: str | None, limit: int, cursor: str) -> dict[str, str]:
    """Return the `Link` header (RFC 8288) where there is more: an array has no place for it."""
    if not cursor:
        return {}
    query = {"limit": str(limit), "cursor": cursor} | ({"room": room} if room else {})
    return {"link": f'</api/presence?{urlencode(query)}>; rel="next"'}


OPERATIONS = (
    Operation(
        method="GET",
        path="/api/presence",
        name="presence",
        summary="Users who are online, by id; a `Link` header leads to the rest",
        access=Access.READER,
        answer=list[User],
        query=(
            Query("room", str, "Only the members of this room."),
            Query("user", str, "Only this user, if online; may be repeated, and is answered without pages."),
            Query("limit", between(1, _MAX_USERS), "Most users answered; 1000 when absent."),
            Query("cursor", str, "Where to go on: from the `Link` header of the page before."),
        ),
    ),
    Operation(
        method="GET",
        path="/api/presence/stats",
        name="presenceStats",
        summary="How many users are online, or in a room, and nothing of who they are",
        access=Access.READER,
        answer=PresenceCounts,
        query=(Query("room", str, "Only the users of this room."),),
    ),
)
