"""Metrics: applications push theirs, and anybody with the grant reads the fleet's history."""

import time

import msgspec
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from gateway.api.access import require_channel, require_server
from gateway.api.body import read_body
from gateway.api.deps import ApiDeps
from gateway.api.errors import ApiError, ErrorBody, describe_bus_error
from gateway.api.query import MAX_TIME_MS, integer, optional_integer
from gateway.api.reports import ReportNumbers, items_of, report_of
from gateway.api.responses import JsonResponse
from services.bus import rpc
from services.bus.errors import BusError, Unavailable
from services.wire.codes import ErrorCode
from services.wire.names import normalize_name
from services.wire.records import Record
from services.wire.rpc import METRICS_HISTORY, History, HistoryQuery

_MAX_ROWS = 3600
_MAX_STEP_S = 86_400


class Rejection(Record, frozen=True, kw_only=True):
    """Why the item at `index` was not taken."""

    index: int
    code: str
    message: str


class PushResult(Record, frozen=True, kw_only=True):
    """What became of a push."""

    accepted: int
    rejected: list[Rejection]


class PushRefused(ErrorBody, frozen=True, kw_only=True):
    """No item was taken: an error, and why of each."""

    accepted: int
    rejected: list[Rejection]


def metric_routes(deps: ApiDeps) -> list[Route]:
    """Return the paths under `/api/metrics`."""
    numbers = ReportNumbers()

    async def push(request: Request) -> Response:
        """Take one item or an array: 202 when any was handed to the bus, with the reasons for the rest."""
        await require_server(deps, request)
        items = items_of(await read_body(request, deps.settings.max_body_bytes))
        return _answer(_take(deps, items, numbers))

    async def history(request: Request) -> Response:
        """Answer an array of records, oldest first; with `step` (seconds) of rollups."""
        await require_channel(deps, request, "metrics")
        query = _history_query(request)
        found: History = await rpc.ask(deps.bus, deps.subjects, METRICS_HISTORY, query)
        return JsonResponse(found.rows)

    return [
        Route("/api/metrics", push, methods=["POST"]),
        Route("/api/metrics/history", history),
    ]


def _take(deps: ApiDeps, items: list[msgspec.Raw], numbers: ReportNumbers) -> PushResult:
    now_ms = int(time.time() * 1000)
    accepted = 0
    rejected: list[Rejection] = []
    for index, raw in enumerate(items):
        try:
            report = report_of(raw, now_ms, numbers)
            deps.bus.publish(deps.subjects.metrics_report, msgspec.json.encode(report))
        except ApiError as fault:
            rejected.append(Rejection(index=index, code=fault.code.code, message=fault.message))
        except BusError as fault:
            if isinstance(fault, Unavailable) and not accepted:
                raise  # nothing was taken: the whole push may be sent again
            code, message = describe_bus_error(fault)
            rejected.append(Rejection(index=index, code=code.code, message=message))
        else:
            accepted += 1
    return PushResult(accepted=accepted, rejected=rejected)


def _answer(result: PushResult) -> Response:
    if result.accepted or not result.rejected:
        return JsonResponse(result, 202)
    refused = PushRefused(
        code=ErrorCode.INVALID_FIELD.code,
        message="no item was taken",
        retryable=False,
        accepted=0,
        rejected=result.rejected,
    )
    return JsonResponse(refused, 400)


def _history_query(request: Request) -> HistoryQuery:
    start = optional_integer(request, "from", low=0, high=MAX_TIME_MS)
    end = optional_integer(request, "to", low=0, high=MAX_TIME_MS)
    if start is not None and end is not None and start > end:
        raise ApiError(ErrorCode.INVALID_FIELD, "`from` must not be after `to`")
    source = request.query_params.get("source", "")
    return HistoryQuery(
        limit=integer(request, "limit", 100, low=1, high=_MAX_ROWS),
        start=start or 0,
        end=end or 0,
        step=integer(request, "step", 0, low=0, high=_MAX_STEP_S),
        source=normalize_name(source, "source") if source else "",
    )
