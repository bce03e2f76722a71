"""Asking for a one-time ticket.

All tickets wait in one store of limited size, so each user has a rate: nobody fills it for everybody.
"""

import math

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from gateway.api.body import read_json
from gateway.api.declarations import Access, Operation
from gateway.api.deps import ApiDeps
from gateway.api.responses import ApiError, JsonResponse, refusal_response
from services.wire.codes import ErrorCode
from services.wire.records import Record

_MAX_ORIGIN_LENGTH = 300
_MAX_BODY_BYTES = 4096


class TicketRequest(Record, frozen=True, kw_only=True):
    """`origin` binds a ticket that a server fetches for a page; a page's own is bound by its header."""

    origin: str = ""


class Ticket(Record, frozen=True, kw_only=True):
    """Good once, as `?ticket=`, until `expires_at` (ms)."""

    ticket: str
    expires_at: int


def ticket_routes(deps: ApiDeps) -> list[Route]:
    """Return `POST /api/tickets`."""

    async def issue(request: Request) -> Response:
        """Answer 201 and a ticket with the rights of the token that the request shows."""
        if "ticket" in request.query_params:
            # A ticket that could beget tickets would never end.
            raise ApiError(ErrorCode.UNAUTHORIZED, "a ticket is asked for with a token, not with a ticket")
        identity = await deps.authenticator.authenticate(request.headers, request.query_params)
        if wait_s := deps.ticket_wait_s(identity.user_id):
            text = f"more than {deps.settings.ticket_rate:g} tickets per second for this user"
            return refusal_response(ErrorCode.RATE_LIMITED, text, math.ceil(wait_s * 1000))
        asked = await read_json(request, _MAX_BODY_BYTES, TicketRequest, deps.settings.body_timeout_s)
        origin = request.headers.get("origin") or asked.origin
        if len(origin) > _MAX_ORIGIN_LENGTH:
            raise ApiError(ErrorCode.INVALID_FIELD, "`origin` is too long")
        ticket, expires_at = await deps.tickets.issue(identity, origin)
        return JsonResponse(Ticket(ticket=ticket, expires_at=int(expires_at * 1000)), 201)

    return [Route("/api/tickets", issue, methods=["POST"])]


OPERATIONS = (
    Operation(
        method="POST",
        path="/api/tickets",
        name="issueTicket",
        summary="A one-time ticket with the rights of the token shown",
        access=Access.BEARER,
        body=TicketRequest,
        body_required=False,
        answer=Ticket,
        status=201,
    ),
)
