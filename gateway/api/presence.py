"""Who is online."""

from urllib.parse import urlencode

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from gateway.api.access import require_channel
from gateway.api.deps import ApiDeps
from gateway.api.operations import Access, Operation, Query, between
from gateway.api.query import integer
from gateway.api.responses import JsonResponse
from services.wire.names import normalize_name
from services.wire.records import UNSET, User
from services.wire.rpc import PRESENCE_LIST, PresencePage, PresenceQuery

_MAX_USERS = 10_000
_MAX_CURSOR = 512


def presence_routes(deps: ApiDeps) -> list[Route]:
    """Return `GET /api/presence`."""

    async def online(request: Request) -> Response:
        """Answer an array of users by id, all or those in `room`; a `Link` header leads to the rest."""
        wanted = request.query_params.get("room")
        room = None if wanted is None else normalize_name(wanted, "room")
        await require_channel(deps, request, "presence" if room is None else f"presence:{room}")
        limit = integer(request, "limit", 1000, low=1, high=_MAX_USERS)
        users: list[User] = []
        cursor = request.query_params.get("cursor", "")[:_MAX_CURSOR]
        while True:
            # presence_svc ends a page early where the users' data would not fit one message.
            query = PresenceQuery(room=room or UNSET, limit=limit - len(users), cursor=cursor)
            page: PresencePage = await deps.asking.ask(PRESENCE_LIST, query)
            users += page.users
            cursor = page.cursor
            if not cursor or not page.users or len(users) >= limit:
                break
        return JsonResponse(users, headers=_next_page(room, limit, cursor))

    return [Route("/api/presence", online)]


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
            Query("limit", between(1, _MAX_USERS), "Most users answered; 1000 when absent."),
            Query("cursor", str, "Where to go on: from the `Link` header of the page before."),
        ),
    ),
)
