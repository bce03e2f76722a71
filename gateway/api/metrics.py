"""Metrics: applications push theirs, and readers with the grant get the fleet's history."""

from collections.abc import Generator
from typing import Annotated

import msgspec
from starlette.responses import Response

from gateway.api.endpoint import MAX_TIME_MS, Call, IntegerQuery, Query, endpoint, reads, server
from gateway.api.metric_items import PushedItem, report_of
from gateway.api.pushes import MAX_ITEMS, PushResult, Tally, items_of
from gateway.api.responses import ApiError
from services.bus.errors import BusError
from services.clock import now_ms
from services.settings_values import Scope
from services.wire.codes import ErrorCode
from services.wire.names import METRIC_OR_PERCENTILE, InvalidName, normalize_name
from services.wire.records import MetricPoint, MetricsRecord, SourceRecord
from services.wire.rpc import METRICS_HISTORY, METRICS_SOURCES, Empty, HistoryQuery, SourceInfo

_MAX_SERIES_CHARS = 2400

_LIMIT = IntegerQuery("limit", 1, 3600, "Most rows answered; 100 when absent.")
_FROM = IntegerQuery("from", 0, MAX_TIME_MS, "Only rows from this time on, in ms.")
_TO = IntegerQuery("to", 0, MAX_TIME_MS, "Only rows up to this time, in ms.")
_STEP = IntegerQuery("step", 0, 86_400, "Seconds merged into one row; raw seconds when absent or 0.")
_SOURCE = Query(
    "source",
    str,
    "One source, or one label set of it, instead of the fleet; what it does not measure is absent.",
)
_METRIC = Query(
    "metric",
    str,
    "One metric instead of the record: rows are `{timestamp, value}`, with `min`, `max` and `count` where `step` is given.",
)


@endpoint(
    "POST",
    "/api/metrics",
    server(Scope.METRICS),
    body=PushedItem | Annotated[list[PushedItem], msgspec.Meta(max_length=MAX_ITEMS)],
    answer=PushResult,
    status=202,
)
async def push_metrics(call: Call) -> Response:
    """Push what an application measured since its last push."""
    items = items_of(await call.text())
    return await call.pushes.metrics.run(_publish(call, items))


def _publish(call: Call, items: list[msgspec.Raw]) -> Generator[None, None, Response]:
    """Publish the good items, a step at a time. Raises Unavailable before any was accepted."""
    gateway, pushes = call.gateway, call.pushes
    received_at = now_ms()
    tally = Tally()
    for index, raw in enumerate(items):
        yield
        try:
            report = yield from report_of(raw, received_at, pushes.numbers, pushes.label_sets)
            gateway.bus.publish(gateway.settings.subjects.metrics_report, msgspec.json.encode(report))
        except (ApiError, InvalidName, BusError) as fault:
            tally.reject(index, fault)
        else:
            tally.accepted += 1
    return tally.response()


@endpoint(
    "GET",
    "/api/metrics/history",
    reads("metrics"),
    query=(_LIMIT, _FROM, _TO, _STEP, _SOURCE, _METRIC),
)
async def metrics_history(call: Call) -> list[MetricsRecord] | list[SourceRecord] | list[MetricPoint]:
    """Records, oldest first."""
    start, end = _FROM.read(call), _TO.read(call)
    if start is not None and end is not None and start > end:
        raise ApiError(ErrorCode.INVALID_FIELD, "`from` must not be after `to`")
    source, metric = _series_name(call.query.get(_SOURCE.name, "")), call.query.get(_METRIC.name, "")
    if metric and not METRIC_OR_PERCENTILE.fullmatch(metric):
        raise ApiError(ErrorCode.INVALID_FIELD, "`metric` is not the name of a metric")
    query = HistoryQuery(
        limit=_LIMIT.read(call) or 100,
        start=start or 0,
        end=end or 0,
        step=_STEP.read(call) or 0,
        source=source,
        metric=metric,
    )
    found = await call.gateway.service_client.call(METRICS_HISTORY, query)
    if query.metric:
        return found.points
    if len(found.unmeasured) == len(found.rows):
        records = zip(found.rows, found.unmeasured, strict=True)
        return [SourceRecord.of(record, absent) for record, absent in records]
    return found.rows


def _series_name(source: str) -> str:
    """Return a source, or one label set of it: `shop{route="/cart"}`. Raises InvalidName, ApiError."""
    if not source:
        return ""
    if len(source) > _MAX_SERIES_CHARS:
        raise ApiError(ErrorCode.INVALID_FIELD, f"`source` has more than {_MAX_SERIES_CHARS} characters")
    name, brace, labels = source.partition("{")
    return normalize_name(name, "source") + brace + labels


@endpoint("GET", "/api/metrics/sources", reads("metrics"))
async def metrics_sources(call: Call) -> list[SourceInfo]:
    """Sources, and label sets of them, heard of within the last hour."""
    return (await call.gateway.service_client.call(METRICS_SOURCES, Empty())).sources
