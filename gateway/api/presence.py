"""Users who are online."""

from urllib.parse import urlencode

from starlette.responses import Response

from gateway.api.endpoint import READER, Call, IntegerQuery, Query, endpoint, require_channel
from gateway.api.responses import ApiError, JsonResponse
from services.wire.codes import ErrorCode
from services.wire.names import normalize_name
from services.wire.records import UNSET, Record, UnsetType, User
from services.wire.rpc import PRESENCE_LIST, PRESENCE_STATS, Empty, PresenceQuery

_MAX_WANTED = 1000
_MAX_CURSOR = 512

_LIMIT = IntegerQuery("limit", 1, 10_000, "Most users answered; 1000 when absent.")


class PresenceCounts(Record, frozen=True, kw_only=True):
    """How many users are online, over how many connections, in how many rooms, on how many gateways; of one room,
    its users alone."""

    users: int
    connections: int | UnsetType = UNSET
    rooms: int | UnsetType = UNSET
    gateways: int | UnsetType = UNSET


@endpoint(
    "GET",
    "/api/presence",
    READER,
    query=(
        Query("room", str, "Only the members of this room."),
        Query("user", str, "Only this user, if online; may be repeated, and is answered without pages."),
        _LIMIT,
        Query("cursor", str, "Where to go on: from the `Link` header of the page before."),
    ),
    answer=list[User],
)
async def presence(call: Call) -> Response:
    """Users who are online, by id; a `Link` header leads to the rest."""
    room = await _readable_room(call)
    wanted = _wanted(call)
    limit = _LIMIT.read(call) or 1000
    if wanted:
        limit = _MAX_WANTED
    users: list[User] = []
    cursor = "" if wanted else call.query.get("cursor", "")[:_MAX_CURSOR]
    while True:
        # presence_svc ends a page early where the users' data would not fit one message.
        query = PresenceQuery(
            room=room or UNSET, users=wanted or UNSET, limit=limit - len(users), cursor=cursor
        )
        page = await call.gateway.service_client.call(PRESENCE_LIST, query)
        users += page.users
        cursor = page.cursor
        if not cursor or not page.users or len(users) >= limit:
            break
    return JsonResponse(users, headers={} if wanted else _next_page(room, limit, cursor))


@endpoint("GET", "/api/presence/stats", READER, query=(Query("room", str, "Only the users of this room."),))
async def presence_stats(call: Call) -> PresenceCounts:
    """How many users are online, or in a room, and nothing of who they are."""
    room = await _readable_room(call)
    if room is not None:
        page = await call.gateway.service_client.call(PRESENCE_LIST, PresenceQuery(room=room, limit=1))
        return PresenceCounts(users=page.count)
    found = await call.gateway.service_client.call(PRESENCE_STATS, Empty())
    return PresenceCounts(
        users=found.users, connections=found.connections, rooms=found.rooms, gateways=found.gateways
    )


async def _readable_room(call: Call) -> str | None:
    """Return the `room` of the query, if any, for a reader who may follow the channel that shows the same."""
    wanted = call.query.get("room")
    room = None if wanted is None else normalize_name(wanted, "room")
    await require_channel(call, "presence" if room is None else f"presence:{room}")
    return room


def _wanted(call: Call) -> list[str]:
    """Return the users of the query, if any. Raises ApiError, InvalidName."""
    names = [normalize_name(name, "user") for name in call.query.getlist("user")]
    if len(names) > _MAX_WANTED:
        raise ApiError(ErrorCode.INVALID_FIELD, f"`user` may be given {_MAX_WANTED} times")
    return names


def _next_page(room: str | None, limit: int, cursor: str) -> dict[str, str]:
    """Return the `Link` header (RFC 8288) where there is more: an array has no field for it."""
    if not cursor:
        return {}
    query = {"limit": str(limit), "cursor": cursor} | ({"room": room} if room else {})
    return {"link": f'</api/presence?{urlencode(query)}>; rel="next"'}
