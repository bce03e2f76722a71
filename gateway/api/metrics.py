"""Metrics: applications push theirs, and anybody with the grant reads the fleet's history."""

import time
from collections.abc import Generator
from typing import Annotated

import msgspec
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from gateway.api.access import require_channel, require_server
from gateway.api.body import read_body
from gateway.api.declarations import Access, Operation, Query, between
from gateway.api.deps import ApiDeps
from gateway.api.label_sets import LabelSets
from gateway.api.metric_items import MAX_ITEMS, PushedItem, ReportNumbers, items_of, report_of
from gateway.api.push_result import PushResult, Rejection, push_answer
from gateway.api.query import MAX_TIME_MS, integer, optional_integer
from gateway.api.responses import ApiError, JsonResponse, describe_bus_error
from gateway.api.slices import MAX_PUSHES_WAITING, Slices
from gateway.auth.api_keys import Scope
from gateway.limits import Limit
from services.bus.errors import BusError, Unavailable
from services.wire.codes import ErrorCode
from services.wire.names import METRIC_OR_PERCENTILE, normalize_name
from services.wire.records import MetricPoint, MetricsRecord, SourceRecord
from services.wire.rpc import (
    METRICS_HISTORY,
    METRICS_SOURCES,
    Empty,
    HistoryQuery,
    MetricsHistory,
    SourceInfo,
    SourceList,
)

_MAX_ROWS = 3600
_MAX_STEP_S = 86_400
_MAX_SERIES_CHARS = 2400


def metric_routes(deps: ApiDeps, numbers: ReportNumbers, label_sets: LabelSets) -> list[Route]:
    """Return the paths under `/api/metrics`."""
    slices = Slices(MAX_PUSHES_WAITING, lambda: deps.on_limit(Limit.PUSHES))

    async def push(request: Request) -> Response:
        """Take one item or an array: 202 when any was handed to the bus, with the reasons for the rest."""
        await require_server(deps, request, Scope.METRICS)
        items = items_of(await read_body(request, deps.settings.max_body_bytes, deps.settings.body_timeout_s))
        return push_answer(await slices.run(_take(deps, items, numbers, label_sets)))

    async def history(request: Request) -> Response:
        """Answer an array of records, oldest first; with `step` (seconds) of rollups."""
        await require_channel(deps, request, "metrics")
        query = _history_query(request)
        found: MetricsHistory = await deps.asking.ask(METRICS_HISTORY, query)
        if query.metric:
            return JsonResponse(found.points)
        if len(found.unmeasured) == len(found.rows):
            records = zip(found.rows, found.unmeasured, strict=True)
            return JsonResponse([SourceRecord.of(record, absent) for record, absent in records])
        return JsonResponse(found.rows)

    async def sources(request: Request) -> Response:
        """Answer an array of the sources heard of within the last hour."""
        await require_channel(deps, request, "metrics")
        found: SourceList = await deps.asking.ask(METRICS_SOURCES, Empty())
        return JsonResponse(found.sources)

    return [
        Route("/api/metrics", push, methods=["POST"]),
        Route("/api/metrics/history", history),
        Route("/api/metrics/sources", sources),
    ]


def _take(
    deps: ApiDeps,
    items: list[msgspec.Raw],
    numbers: ReportNumbers,
    label_sets: LabelSets,
) -> Generator[None, None, PushResult]:
    """Hand the good items to the bus, a step at a time."""
    now_ms = int(time.time() * 1000)
    accepted = 0
    rejected: list[Rejection] = []
    for index, raw in enumerate(items):
        yield
        try:
            report = yield from report_of(raw, now_ms, numbers, label_sets)
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
        source=_series_name(source),
        metric=_metric_name(request.query_params.get("metric", "")),
    )


def _series_name(source: str) -> str:
    """Return a source, or one label set of it: `shop{route="/cart"}`. Raises InvalidName, ApiError."""
    name, brace, _ = source.partition("{")
    if not source:
        return ""
    if len(source) > _MAX_SERIES_CHARS:
        raise ApiError(ErrorCode.INVALID_FIELD, f"`source` has more than {_MAX_SERIES_CHARS} characters")
    return normalize_name(name, "source") + source[len(name) :] if brace else normalize_name(name, "source")


def _metric_name(metric: str) -> str:
    if metric and not METRIC_OR_PERCENTILE.fullmatch(metric):
        raise ApiError(ErrorCode.INVALID_FIELD, "`metric` is not the name of a metric")
    return metric


_TimeMs = between(0, MAX_TIME_MS)

OPERATIONS = (
    Operation(
        method="POST",
        path="/api/metrics",
        name="pushMetrics",
        summary="Push what an application measured since its last push",
        access=Access.SERVER,
        body=PushedItem | Annotated[list[PushedItem], msgspec.Meta(max_length=MAX_ITEMS)],
        answer=PushResult,
        status=202,
    ),
    Operation(
        method="GET",
        path="/api/metrics/history",
        name="metricsHistory",
        summary="Records, oldest first",
        access=Access.READER,
        answer=list[MetricsRecord],
        other_answers=(list[SourceRecord], list[MetricPoint]),
        query=(
            Query("limit", between(1, _MAX_ROWS), "Most rows answered; 100 when absent."),
            Query("from", _TimeMs, "Only rows from this time on, in ms."),
            Query("to", _TimeMs, "Only rows up to this time, in ms."),
            Query(
                "step", between(0, _MAX_STEP_S), "Seconds merged into one row; raw seconds when absent or 0."
            ),
            Query(
                "source",
                str,
                "One source, or one label set of it, instead of the fleet; what it does not measure is absent.",
            ),
            Query(
                "metric",
                str,
                "One metric instead of the record: rows are `{timestamp, value}`, with `min`, `max` and `count` where `step` is given.",
            ),
        ),
    ),
    Operation(
        method="GET",
        path="/api/metrics/sources",
        name="metricsSources",
        summary="Sources, and label sets of them, heard of within the last hour",
        access=Access.READER,
        answer=list[SourceInfo],
    ),
)
