"""Ending a user's connections."""

import msgspec
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from gateway.api.access import require_server
from gateway.api.declarations import Access, Operation, Query
from gateway.api.deps import ApiDeps
from gateway.api.query import boolean
from gateway.api.responses import ApiError, JsonResponse
from gateway.api.revocations import revocation
from gateway.auth.api_keys import Scope
from services.wire.codes import ErrorCode
from services.wire.events import DisconnectUser
from services.wire.names import normalize_name
from services.wire.records import Record

# A close frame has room for 123 bytes of reason (RFC 6455 §5.5).
_MAX_REASON_BYTES = 120


class Ordered(Record, frozen=True, kw_only=True):
    """The order is out to all gateways."""

    user_id: str


def user_routes(deps: ApiDeps) -> list[Route]:
    """Return `DELETE /api/users/{id}/connections`."""

    async def disconnect(request: Request) -> Response:
        """Order every gateway to end the user's connections; 202, for whether there were any is not known.

        With `revoke=true` the tokens issued to the user until now count no more either.
        """
        await require_server(deps, request, Scope.USERS)
        user_id = normalize_name(request.path_params["id"], "user id")
        reason = request.query_params.get("reason", "")
        if len(reason.encode("utf-8", "replace")) > _MAX_REASON_BYTES:
            raise ApiError(ErrorCode.INVALID_FIELD, f"`reason` is longer than {_MAX_REASON_BYTES} bytes")
        if boolean(request, "revoke"):
            await deps.revocation_log.publish(revocation(deps, user_id=user_id))
        order = DisconnectUser(user_id=user_id, reason=reason)
        deps.bus.publish(deps.subjects.control, msgspec.json.encode(order))
        await deps.bus.flush()  # or it might wait in a buffer of a connection that is already dead
        return JsonResponse(Ordered(user_id=user_id), 202)

    return [Route("/api/users/{id:path}/connections", disconnect, methods=["DELETE"])]


OPERATIONS = (
    Operation(
        method="DELETE",
        path="/api/users/{id}/connections",
        name="disconnectUser",
        summary="Order every gateway to end a user's connections, with close code 4502",
        access=Access.SERVER,
        answer=Ordered,
        status=202,
        query=(
            Query("reason", str, f"Sent to the client; at most {_MAX_REASON_BYTES} bytes."),
            Query("revoke", bool, "Refuse the tokens issued to the user until now, too."),
        ),
    ),
)
