"""Connections and memberships for servers: find, look at, disconnect; join users to rooms, and remove them."""

from gateway.api.endpoint import Call, IntegerQuery, Query, endpoint, server
from gateway.api.responses import ApiError
from gateway.gateway import Gateway
from gateway.http.request_metrics import exclude_from_latency
from services.settings_values import Scope
from services.wire.codes import MAX_REASON_BYTES, ErrorCode
from services.wire.control import (
    CONNECTIONS_LIST,
    MAX_PAGE,
    ConnectionInfo,
    ConnectionQuery,
    EndConnection,
    MembershipOrder,
)
from services.wire.names import normalize_name
from services.wire.records import UNSET, Record, UnsetType

_MAX_ID = 64
_MAX_GATEWAY = 256

_LIMIT = IntegerQuery("limit", 1, MAX_PAGE, "Most connections answered; 100 when absent.")
_ROOM = "/api/rooms/{room:path}/users/{userId:path}"


class ConnectionList(Record, frozen=True, kw_only=True):
    """Connections by id. `cursor` leads to the rest, if there is more. `unanswered` are gateways that did not answer."""

    connections: list[ConnectionInfo]
    cursor: str | UnsetType = UNSET
    unanswered: list[str]


@endpoint(
    "GET",
    "/api/connections",
    server(Scope.READ),
    query=(
        Query("user", str, "Only connections of this user."),
        Query("room", str, "Only members of this room."),
        Query("gateway", str, "Only connections of this gateway."),
        _LIMIT,
        Query("cursor", str, "Where to go on: the `cursor` of the page before."),
    ),
)
async def connections(call: Call) -> ConnectionList:
    """Connections of all gateways, by id, in pages."""
    exclude_from_latency(call.request.scope)
    limit = _LIMIT.read(call) or 100
    query = ConnectionQuery(
        user=_name(call, "user"),
        room=_name(call, "room"),
        gateway=_short(call, "gateway", _MAX_GATEWAY),
        after=_short(call, "cursor", _MAX_ID),
        limit=limit,
    )
    page, cursor, silent = await call.gateway.control.page(query)
    return ConnectionList(connections=page, cursor=cursor or UNSET, unanswered=silent)


@endpoint("GET", "/api/connections/{id}", server(Scope.READ))
async def connection(call: Call) -> ConnectionInfo:
    """One connection, wherever it is."""
    exclude_from_latency(call.request.scope)
    query = ConnectionQuery(id=call.path["id"][:_MAX_ID])
    answers = await call.gateway.control.peers.ask(CONNECTIONS_LIST, query)
    found = [each for reply in answers.replies for each in reply.connections]
    if not found:
        raise not_found("connection", answers.silent)
    return found[0]


class EndedConnection(Record, frozen=True, kw_only=True):
    """A connection that was disconnected, and where it was."""

    connection_id: str
    user_id: str
    gateway: str


@endpoint(
    "DELETE",
    "/api/connections/{id}",
    server(Scope.USERS),
    query=(Query("reason", str, f"Sent to the client; at most {MAX_REASON_BYTES} bytes."),),
)
async def disconnect_connection(call: Call) -> EndedConnection:
    """Disconnect one connection, wherever it is, with close code 4502."""
    exclude_from_latency(call.request.scope)
    id = call.path["id"][:_MAX_ID]
    order = EndConnection(id=id, reason=reason_of(call), by=(await call.server()).name)
    ended, silent = await call.gateway.control.disconnect(order)
    if ended is None:
        raise not_found("connection", silent)
    return EndedConnection(connection_id=id, user_id=ended.user_id, gateway=ended.gateway)


# --- memberships ---


class MembershipChange(Record, frozen=True, kw_only=True):
    """How many connections of the user were joined or removed. `unanswered` are gateways that did not answer."""

    room: str
    user_id: str
    connections: int
    unanswered: list[str]


@endpoint("PUT", _ROOM, server(Scope.USERS))
async def join_user(call: Call) -> MembershipChange:
    """Join all connections of a user to a room, whatever their grants say."""
    return await _move(call, member=True)


@endpoint("DELETE", _ROOM, server(Scope.USERS))
async def remove_user(call: Call) -> MembershipChange:
    """Remove all connections of a user from a room, once: they may join again if the grants allow it."""
    return await _move(call, member=False)


async def _move(call: Call, *, member: bool) -> MembershipChange:
    exclude_from_latency(call.request.scope)
    room = normalize_name(call.path["room"], "room")
    user_id = normalize_name(call.path["userId"], "userId")
    order = MembershipOrder(user_id=user_id, room=room, member=member, by=(await call.server()).name)
    replies, silent = await call.gateway.control.move(order)
    if not any(reply.found for reply in replies):
        raise not_found("connection of this user", silent)
    done = sum(reply.done for reply in replies)
    if member and not done:
        raise _refused({code for reply in replies for code in reply.refused}, call.gateway)
    return MembershipChange(room=room, user_id=user_id, connections=done, unanswered=silent)


def _refused(codes: set[str], gateway: Gateway) -> ApiError:
    if ErrorCode.TOO_MANY_ROOMS.code in codes:
        most = gateway.settings.max_rooms_per_connection
        return ApiError(ErrorCode.TOO_MANY_ROOMS, f"the connections of this user are in {most} rooms already")
    if codes == {ErrorCode.CONFLICT.code}:
        return ApiError(
            ErrorCode.CONFLICT, "no connection of this user can be in a room, or it was left at once"
        )
    return ApiError(ErrorCode.UNAVAILABLE, "the room cannot be joined now; try again")


# --- parameters ---


def not_found(what: str, silent: list[str]) -> ApiError:
    """Return the refusal: only if all gateways answered is it known that there is none."""
    if silent:
        names = ", ".join(silent)
        return ApiError(
            ErrorCode.UNAVAILABLE, f"no {what} was found, and these gateways did not answer: {names}"
        )
    return ApiError(
        ErrorCode.NOT_FOUND, f"there is no such {what}" if what == "connection" else f"there is no {what}"
    )


def reason_of(call: Call) -> str:
    """Return the `reason` of the query. Raises ApiError."""
    reason = call.query.get("reason", "")
    if len(reason.encode("utf-8", "replace")) > MAX_REASON_BYTES:
        raise ApiError(ErrorCode.INVALID_FIELD, f"`reason` is longer than {MAX_REASON_BYTES} bytes")
    return reason


def _name(call: Call, parameter: str) -> str:
    text = call.query.get(parameter)
    return "" if text is None else normalize_name(text, parameter)


def _short(call: Call, parameter: str, most: int) -> str:
    text = call.query.get(parameter, "")
    if len(text) > most:
        raise ApiError(ErrorCode.INVALID_FIELD, f"`{parameter}` is too long")
    return text
