"""Revoking tokens before they expire, on all gateways at once."""

import time
from typing import Annotated

import msgspec
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from gateway.api.access import require_server
from gateway.api.body import read_json
from gateway.api.declarations import Access, Operation
from gateway.api.deps import ApiDeps
from gateway.api.responses import ApiError, JsonResponse
from gateway.auth.api_keys import Scope
from gateway.auth.tokens import CLOCK_SKEW_S
from services.wire.codes import ErrorCode
from services.wire.events import Revoked
from services.wire.names import normalize_name
from services.wire.records import UNSET, Record, UnsetType

_MAX_BODY_BYTES = 4096
_MAX_LISTED = 1000


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


def revocation_routes(deps: ApiDeps) -> list[Route]:
    """Return `GET` and `POST /api/revocations`."""

    async def listed(request: Request) -> Response:
        """Answer what is revoked now, at most 1000 of them."""
        await require_server(deps, request, Scope.USERS)
        entries = deps.authenticator.revocations.entries(time.time())
        return JsonResponse([_shown(revoked) for revoked in entries[:_MAX_LISTED]])

    async def revoke(request: Request) -> Response:
        """Revoke, or lift a revocation. Answer when it is stored; connections end some milliseconds later."""
        await require_server(deps, request, Scope.USERS)
        asked = await read_json(request, _MAX_BODY_BYTES, RevocationRequest, deps.settings.body_timeout_s)
        if (asked.user_id is UNSET) == (asked.token_id is UNSET):
            raise ApiError(ErrorCode.INVALID_FIELD, "exactly one of `userId` and `tokenId` is needed")
        user_id = "" if asked.user_id is UNSET else normalize_name(asked.user_id, "userId")
        token_id = "" if asked.token_id is UNSET else asked.token_id
        revoked = revocation(deps, user_id=user_id, token_id=token_id, lift=asked.lift)
        await deps.revocation_log.publish(revoked)
        return JsonResponse(_shown(revoked), 201)

    return [
        Route("/api/revocations", listed),
        Route("/api/revocations", revoke, methods=["POST"]),
    ]


def revocation(deps: ApiDeps, *, user_id: str = "", token_id: str = "", lift: bool = False) -> Revoked:
    """Return the revocation, as of now, of a user's tokens or of one token.

    The clock of an issuer may be ahead, and its tokens are believed: those that exist now say that they were issued up
    to `CLOCK_SKEW_S` from now.
    """
    now = time.time()
    until = now if lift else now + deps.settings.revocation_s
    issued_before = now + CLOCK_SKEW_S if user_id else 0.0
    return Revoked(until=until, user_id=user_id, token_id=token_id, issued_before=issued_before)


def _shown(revoked: Revoked) -> Revocation:
    return Revocation(
        until=int(revoked.until * 1000),
        user_id=revoked.user_id or UNSET,
        token_id=revoked.token_id or UNSET,
        issued_before=int(revoked.issued_before * 1000) if revoked.user_id else UNSET,
    )


OPERATIONS = (
    Operation(
        method="GET",
        path="/api/revocations",
        name="revocations",
        summary="What is revoked now",
        access=Access.SERVER,
        answer=list[Revocation],
    ),
    Operation(
        method="POST",
        path="/api/revocations",
        name="revoke",
        summary="Revoke a user's tokens or one token, or lift that",
        access=Access.SERVER,
        body=RevocationRequest,
        answer=Revocation,
        status=201,
    ),
)
