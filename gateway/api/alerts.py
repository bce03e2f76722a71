"""Alerts: active ones, their history, acknowledging, and silences."""

import time
from typing import Annotated

import msgspec
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from gateway.api.access import require_channel, require_server
from gateway.api.body import read_json
from gateway.api.declarations import Access, Operation, Query, between
from gateway.api.deps import ApiDeps
from gateway.api.matchers import MatcherRequest, matchers_of
from gateway.api.query import MAX_TIME_MS, integer
from gateway.api.responses import ApiError, JsonResponse
from gateway.auth.api_keys import Scope
from services.wire.alerting import (
    ALERTS_TRANSITIONS,
    RECEIVERS_LIST,
    Receiver,
    ReceiverList,
    TransitionList,
    TransitionQuery,
)
from services.wire.codes import ErrorCode
from services.wire.records import UNSET, Alert, AlertLogEntry, AlertTransition, Record, UnsetType
from services.wire.rpc import (
    ALERTS_ACK,
    ALERTS_ACTIVE,
    ALERTS_LOG,
    SILENCES_END,
    SILENCES_LIST,
    SILENCES_SET,
    AlertAck,
    AlertList,
    AlertLog,
    AlertLogQuery,
    Empty,
    Silence,
    SilenceId,
    SilenceList,
)

_MAX_ENTRIES = 1000

_Word = Annotated[str, msgspec.Meta(max_length=128)]
_Remark = Annotated[str, msgspec.Meta(max_length=1000)]
_TimeMs = Annotated[int, msgspec.Meta(ge=0, le=MAX_TIME_MS)]
_YEAR_S = 366 * 24 * 3600


class AckRequest(Record, frozen=True, kw_only=True):
    """Who has seen the alert, and what they say of it."""

    by: _Word = ""
    comment: _Remark = ""


class SilenceRequest(Record, frozen=True, kw_only=True):
    """Which alerts to keep quiet, from `starts_at` (now) until `ends_at`, or for `duration` seconds."""

    matchers: Annotated[list[MatcherRequest], msgspec.Meta(min_length=1, max_length=16)]
    starts_at: _TimeMs | UnsetType = UNSET
    ends_at: _TimeMs | UnsetType = UNSET
    duration: Annotated[int, msgspec.Meta(ge=1, le=_YEAR_S)] | UnsetType = UNSET
    comment: _Remark = ""
    created_by: _Word = ""


def silence_of(asked: SilenceRequest, now_ms: int) -> Silence:
    """Return the silence that is asked for at `now_ms`.

    Raises:
        ApiError: `invalid_field`: not exactly one end, or one that is over or before the start.
    """
    starts_at = now_ms if asked.starts_at is UNSET else asked.starts_at
    if asked.ends_at is not UNSET and asked.duration is UNSET:
        ends_at = asked.ends_at
    elif asked.duration is not UNSET and asked.ends_at is UNSET:
        ends_at = starts_at + asked.duration * 1000
    else:
        raise ApiError(ErrorCode.INVALID_FIELD, "exactly one of `endsAt` and `duration` is needed")
    if ends_at <= max(starts_at, now_ms):
        raise ApiError(ErrorCode.INVALID_FIELD, "the silence would be over before it begins")
    return Silence(
        matchers=matchers_of(asked.matchers),
        starts_at=starts_at,
        ends_at=ends_at,
        comment=asked.comment,
        created_by=asked.created_by,
    )


def alert_routes(deps: ApiDeps) -> list[Route]:
    """Return the paths under `/api/alerts` and `/api/silences`."""

    async def active(request: Request) -> Response:
        """Answer an array of the alerts that are active."""
        await require_channel(deps, request, "alerts")
        found: AlertList = await deps.asking.ask(ALERTS_ACTIVE, Empty())
        return JsonResponse(found.alerts)

    async def past(request: Request) -> Response:
        """Answer an array of what began and ended, newest first."""
        await require_channel(deps, request, "alerts")
        limit = integer(request, "limit", 100, low=1, high=_MAX_ENTRIES)
        found: AlertLog = await deps.asking.ask(ALERTS_LOG, AlertLogQuery(limit=limit))
        return JsonResponse(found.entries)

    async def acknowledge(request: Request) -> Response:
        """Acknowledge an active alert, and answer it."""
        await require_server(deps, request, Scope.ALERTS)
        asked = await read_json(
            request, deps.settings.max_body_bytes, AckRequest, deps.settings.body_timeout_s
        )
        ack = AlertAck(id=request.path_params["id"], by=asked.by, comment=asked.comment)
        return JsonResponse(await deps.asking.ask(ALERTS_ACK, ack))

    async def silences(request: Request) -> Response:
        """Answer an array of the silences that have not ended."""
        await require_channel(deps, request, "alerts")
        found: SilenceList = await deps.asking.ask(SILENCES_LIST, Empty())
        return JsonResponse(found.silences)

    async def silence(request: Request) -> Response:
        """Silence alerts, and answer the silence with its `id`."""
        await require_server(deps, request, Scope.ALERTS)
        asked = await read_json(
            request, deps.settings.max_body_bytes, SilenceRequest, deps.settings.body_timeout_s
        )
        wanted = silence_of(asked, int(time.time() * 1000))
        return JsonResponse(await deps.asking.ask(SILENCES_SET, wanted), 201)

    async def unsilence(request: Request) -> Response:
        """End a silence now."""
        await require_server(deps, request, Scope.ALERTS)
        await deps.asking.ask(SILENCES_END, SilenceId(id=request.path_params["id"]))
        return Response(status_code=204)

    async def transitions(request: Request) -> Response:
        """Answer an array of what alerts did, announced or not, and why; newest first."""
        await require_channel(deps, request, "alerts")
        limit = integer(request, "limit", 100, low=1, high=_MAX_ENTRIES)
        query = TransitionQuery(limit=limit, id=request.query_params.get("id", "")[:4096])
        found: TransitionList = await deps.asking.ask(ALERTS_TRANSITIONS, query)
        return JsonResponse(found.transitions)

    async def receivers(request: Request) -> Response:
        """Answer an array of how the receivers of notifications are doing."""
        await require_channel(deps, request, "alerts")
        found: ReceiverList = await deps.asking.ask(RECEIVERS_LIST, Empty())
        return JsonResponse(found.receivers)

    return [
        Route("/api/alerts", active),
        Route("/api/alerts/history", past),
        Route("/api/alerts/transitions", transitions),
        Route("/api/receivers", receivers),
        Route("/api/alerts/{id:path}/ack", acknowledge, methods=["POST"]),
        Route("/api/silences", silences, methods=["GET"]),
        Route("/api/silences", silence, methods=["POST"]),
        Route("/api/silences/{id}", unsilence, methods=["DELETE"]),
    ]


OPERATIONS = (
    Operation(
        method="GET",
        path="/api/alerts",
        name="activeAlerts",
        summary="Alerts that are active",
        access=Access.READER,
        answer=list[Alert],
    ),
    Operation(
        method="GET",
        path="/api/alerts/history",
        name="alertHistory",
        summary="What began and ended, newest first",
        access=Access.READER,
        answer=list[AlertLogEntry],
        query=(Query("limit", between(1, _MAX_ENTRIES), "Most entries answered; 100 when absent."),),
    ),
    Operation(
        method="GET",
        path="/api/alerts/transitions",
        name="alertTransitions",
        summary="What alerts did, announced or not, and why; newest first",
        access=Access.READER,
        answer=list[AlertTransition],
        query=(
            Query("limit", between(1, _MAX_ENTRIES), "Most entries answered; 100 when absent."),
            Query("id", str, "Only those of this alert."),
        ),
    ),
    Operation(
        method="GET",
        path="/api/receivers",
        name="receivers",
        summary="How the receivers of notifications are doing",
        access=Access.READER,
        answer=list[Receiver],
    ),
    Operation(
        method="POST",
        path="/api/alerts/{id}/ack",
        name="acknowledgeAlert",
        summary="Acknowledge an active alert",
        access=Access.SERVER,
        body=AckRequest,
        body_required=False,
        answer=Alert,
    ),
    Operation(
        method="GET",
        path="/api/silences",
        name="silences",
        summary="Silences that have not ended",
        access=Access.READER,
        answer=list[Silence],
    ),
    Operation(
        method="POST",
        path="/api/silences",
        name="silence",
        summary="Silence alerts",
        access=Access.SERVER,
        body=SilenceRequest,
        answer=Silence,
        status=201,
    ),
    Operation(
        method="DELETE",
        path="/api/silences/{id}",
        name="unsilence",
        summary="End a silence now",
        access=Access.SERVER,
        status=204,
    ),
)
