"""Users' connections and credentials: ending connections, revoking tokens on all gateways, and one-time tickets.

All tickets are in one store of limited size, so each user has a rate: none can fill it.
"""

import math
import time
from typing import Annotated, Any

import msgspec

from gateway.api.connections import reason_of
from gateway.api.endpoint import TICKETS, Call, Query, endpoint, server
from gateway.api.responses import ApiError
from gateway.auth.authenticator import ServerCaller
from gateway.auth.identity import SERVER_USER_ID, Identity
from gateway.auth.tokens import CLOCK_SKEW_S
from gateway.client.commands import CommandError
from gateway.gateway import Gateway
from gateway.limits import Limit
from services.settings_values import EVERY_SCOPE, Scope
from services.wire.codes import MAX_REASON_BYTES, ErrorCode
from services.wire.events import DisconnectUser, Revoked
from services.wire.grants import Grants
from services.wire.names import normalize_name
from services.wire.records import UNSET, Record, UnsetType

_MAX_BODY_BYTES = 4096
_MAX_TICKET_BYTES = 65_536  # with grants as long as a token's may be, and longer
_MAX_LISTED = 1000
_MAX_ORIGIN_LENGTH = 300


# --- connections ---


class Ordered(Record, frozen=True, kw_only=True):
    """The order is out to all gateways."""

    user_id: str


@endpoint(
    "DELETE",
    "/api/users/{id:path}/connections",
    server(Scope.USERS),
    query=(
        Query("reason", str, f"Sent to the client; at most {MAX_REASON_BYTES} bytes."),
        Query("revoke", bool, "Refuse the tokens issued to the user until now, too."),
    ),
    status=202,
)
async def disconnect_user(call: Call) -> Ordered:
    """Order every gateway to end a user's connections, with close code 4502.

    The answer is 202, because it is not known whether there were any.
    """
    gateway = call.gateway
    user_id = normalize_name(call.path["id"], "user id")
    reason = reason_of(call)
    revoke = call.query.get("revoke", "false")
    if revoke not in ("true", "false"):
        raise ApiError(ErrorCode.INVALID_FIELD, "`revoke` must be true or false")
    if revoke == "true":
        await gateway.revocation_log.publish(_revocation(gateway, user_id=user_id))
    order = msgspec.json.encode(DisconnectUser(user_id=user_id, reason=reason))
    gateway.bus.publish(gateway.settings.subjects.control, order)
    await gateway.bus.flush()  # or it might wait in a buffer of a connection that is already dead
    return Ordered(user_id=user_id)


# --- revocations ---


class RevocationRequest(Record, frozen=True, kw_only=True):
    """Exactly one of `user_id` (all tokens issued until now, by any clock that is believed) and `token_id` (`jti`); `lift` takes it back."""

    user_id: str | UnsetType = UNSET
    token_id: Annotated[str, msgspec.Meta(min_length=1, max_length=256)] | UnsetType = UNSET
    lift: bool = False


class Revocation(Record, frozen=True, kw_only=True):
    """What is revoked, and until when (ms). Tokens of a user count again if issued after `issued_before`."""

    until: int
    user_id: str | UnsetType = UNSET
    token_id: str | UnsetType = UNSET
    issued_before: int | UnsetType = UNSET


@endpoint("GET", "/api/revocations", server(Scope.USERS))
async def revocations(call: Call) -> list[Revocation]:
    """What is revoked now."""
    entries = call.gateway.authenticator.revocations.entries(time.time())
    return [_to_answer(revoked) for revoked in entries[:_MAX_LISTED]]


@endpoint(
    "POST",
    "/api/revocations",
    server(Scope.USERS),
    body=RevocationRequest,
    max_body_bytes=_MAX_BODY_BYTES,
    status=201,
)
async def revoke(call: Call) -> Revocation:
    """Revoke a user's tokens or one token, or lift that.

    Answered when it is stored; connections end some milliseconds later.
    """
    asked = await call.json(RevocationRequest)
    if (asked.user_id is UNSET) == (asked.token_id is UNSET):
        raise ApiError(ErrorCode.INVALID_FIELD, "exactly one of `userId` and `tokenId` is needed")
    user_id = "" if asked.user_id is UNSET else normalize_name(asked.user_id, "userId")
    token_id = "" if asked.token_id is UNSET else asked.token_id
    revoked = _revocation(call.gateway, user_id=user_id, token_id=token_id, lift=asked.lift)
    await call.gateway.revocation_log.publish(revoked)
    return _to_answer(revoked)


def _revocation(gateway: Gateway, *, user_id: str = "", token_id: str = "", lift: bool = False) -> Revoked:
    """Return the revocation, as of now, of a user's tokens or of one token.

    An issuer's clock may be ahead: tokens that exist now may have an `iat` of up to `CLOCK_SKEW_S` from now.
    """
    now = time.time()
    until = now if lift else now + gateway.settings.revocation_s
    issued_before = now + CLOCK_SKEW_S if user_id else 0.0
    return Revoked(until=until, user_id=user_id, token_id=token_id, issued_before=issued_before)


def _to_answer(revoked: Revoked) -> Revocation:
    return Revocation(
        until=int(revoked.until * 1000),
        user_id=revoked.user_id or UNSET,
        token_id=revoked.token_id or UNSET,
        issued_before=int(revoked.issued_before * 1000) if revoked.user_id else UNSET,
    )


# --- tickets ---


class TicketRequest(Record, frozen=True, kw_only=True):
    """`origin` binds a ticket that a server fetches for a page; a page's own is bound by its header.

    A server names the user by `user_id`, with a display `name` and `grants` as in a token (absent: the default ones).
    """

    origin: str = ""
    user_id: str | UnsetType = UNSET
    name: str = ""
    grants: dict[str, Any] | UnsetType = UNSET


class Ticket(Record, frozen=True, kw_only=True):
    """Good once, as `?ticket=`, until `expires_at` (ms)."""

    ticket: str
    expires_at: int


@endpoint(
    "POST",
    "/api/tickets",
    TICKETS,
    body=TicketRequest,
    body_required=False,
    max_body_bytes=_MAX_TICKET_BYTES,
    status=201,
)
async def issue_ticket(call: Call) -> Ticket:
    """A one-time ticket with the rights of the token shown, or for the user that a server names."""
    gateway, headers = call.gateway, call.request.headers
    if "ticket" in call.query:
        # A ticket that could beget tickets would never end.
        raise ApiError(ErrorCode.UNAUTHORIZED, "a ticket is issued for a token, not for a ticket")
    asked = await call.json(TicketRequest)
    if isinstance(asked.user_id, UnsetType):
        identity = await gateway.authenticator.authenticate(headers, call.query)
    else:
        caller = await gateway.authenticator.require_api_key(headers, Scope.TICKETS)
        identity = _named_user(gateway, caller, asked.user_id, asked)
    if wait_s := gateway.tickets.wait_s(identity.user_id):
        gateway.on_limit(Limit.TICKET_RATE)
        text = f"more than {gateway.settings.ticket_rate:g} tickets per second for this user"
        raise CommandError(ErrorCode.RATE_LIMITED, text, math.ceil(wait_s * 1000))
    origin = headers.get("origin") or asked.origin
    if len(origin) > _MAX_ORIGIN_LENGTH:
        raise ApiError(ErrorCode.INVALID_FIELD, "`origin` is too long")
    ticket, expires_at = await gateway.tickets.issue(identity, origin)
    return Ticket(ticket=ticket, expires_at=int(expires_at * 1000))


def _named_user(gateway: Gateway, caller: ServerCaller, user_id: str, asked: TicketRequest) -> Identity:
    """Return the user that a server names. Raises ApiError, InvalidName."""
    user_id = normalize_name(user_id, "userId")
    if user_id == SERVER_USER_ID:
        raise ApiError(ErrorCode.INVALID_NAME, f"`{SERVER_USER_ID}` is no user")
    grants = gateway.settings.default_grants
    if not isinstance(asked.grants, UnsetType):
        try:
            grants = Grants.parse(asked.grants)
        except ValueError as fault:
            raise ApiError(ErrorCode.INVALID_FIELD, f"`grants`: {fault}") from None
    if grants.admin and caller.scopes != EVERY_SCOPE:
        # It would be the whole server API for a key that is not for all of it.
        raise ApiError(ErrorCode.FORBIDDEN, "a ticket with `admin` needs a key of every scope")
    username = normalize_name(asked.name, "name") if asked.name else user_id
    return Identity(user_id, username, grants, issued_at=float(int(time.time())))
