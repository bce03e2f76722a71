"""`POST /v1/metrics`: OpenTelemetry exporters push over HTTP, as protobuf or JSON, plain or gzip.

https://opentelemetry.io/docs/specs/otlp/#otlphttp: what was taken is answered with 200, with the number of points
that were not and why; what can be sent again with 503 and Retry-After, what cannot with 400 or 413.
"""

import time
import zlib
from typing import Any

import msgspec
from google.protobuf import json_format
from google.protobuf.message import DecodeError
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import (
    ExportMetricsServiceRequest,
    ExportMetricsServiceResponse,
)
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from gateway.api.access import require_server
from gateway.api.body import read_bytes
from gateway.api.deps import ApiDeps
from gateway.api.errors import ApiError
from gateway.api.label_sets import LabelSets
from gateway.api.operations import Access, Operation
from gateway.api.otlp_points import Export, reports_of
from gateway.api.reports import ReportNumbers
from gateway.auth.server_keys import Scope
from services.bus.errors import TooLarge
from services.wire.codes import ErrorCode

# Of one export: that much more than it may have on the wire. Text compresses ten times, a bomb a thousand.
_MAX_INFLATION = 16
_PROTOBUF = "application/x-protobuf"
_JSON = "application/json"
_MAX_REASONS = 5


def otlp_routes(deps: ApiDeps, numbers: ReportNumbers, label_sets: LabelSets) -> list[Route]:
    """Return `POST /v1/metrics`."""

    async def export(request: Request) -> Response:
        """Take an export and answer what was not taken of it."""
        await require_server(deps, request, Scope.METRICS)
        media_type = request.headers.get("content-type", "").partition(";")[0].strip().lower()
        if media_type not in (_PROTOBUF, _JSON):
            raise _UnknownType(ErrorCode.BAD_MESSAGE, f"the body must be {_PROTOBUF} or {_JSON}")
        limit = deps.settings.max_body_bytes
        body = await read_bytes(request, limit, deps.settings.body_timeout_s)
        body = _decoded(
            body, request.headers.get("content-encoding", "identity").lower(), limit * _MAX_INFLATION
        )
        found = reports_of(_parsed(body, media_type), int(time.time() * 1000))
        _publish(deps, found, numbers, label_sets)
        return _answer(found, media_type)

    return [Route("/v1/metrics", export, methods=["POST"])]


class _UnknownType(ApiError):
    """Neither protobuf nor JSON."""

    status = 415


def _decoded(body: bytes, encoding: str, most: int) -> bytes:
    """Return the body as it was before compression. Raises ApiError."""
    if encoding in ("identity", ""):
        return body
    if encoding != "gzip":
        raise _UnknownType(ErrorCode.BAD_MESSAGE, "the content encoding must be gzip or none")
    inflating = zlib.decompressobj(16 + zlib.MAX_WBITS)
    try:
        plain = inflating.decompress(body, most + 1)
    except zlib.error:
        raise ApiError(ErrorCode.BAD_MESSAGE, "the body is not gzip") from None
    if len(plain) > most:
        raise ApiError(ErrorCode.TOO_LARGE, f"the body is larger than {most} bytes when it is unpacked")
    if not inflating.eof:
        raise ApiError(ErrorCode.BAD_MESSAGE, "the gzip body ends early")
    return plain


def _parsed(body: bytes, media_type: str) -> ExportMetricsServiceRequest:
    """Return the request. Raises ApiError."""
    request = ExportMetricsServiceRequest()
    try:
        if media_type == _PROTOBUF:
            request.ParseFromString(body)
        else:
            json_format.Parse(body, request, ignore_unknown_fields=True)
    except (DecodeError, json_format.ParseError, UnicodeDecodeError, RecursionError, ValueError):
        raise ApiError(ErrorCode.BAD_MESSAGE, "not an ExportMetricsServiceRequest") from None
    return request


def _publish(deps: ApiDeps, found: Export, numbers: ReportNumbers, label_sets: LabelSets) -> None:
    """Hand the reports to the bus. Raises BusError when it takes none: all may be sent again."""
    for report in found.reports:
        if report.labels and not label_sets.admit(report.source, report.labels):
            found.warnings.add("label sets over the limit of a source count in the source alone")
        boot, seq = numbers.next_of(report.source)
        numbered = msgspec.structs.replace(report, boot=boot, seq=seq)
        try:
            deps.bus.publish(deps.subjects.metrics_report, msgspec.json.encode(numbered))
        except TooLarge:
            found.refused["too large for the bus"] += 1


def _answer(found: Export, media_type: str) -> Response:
    answer = ExportMetricsServiceResponse()
    if found.refused or found.warnings:
        answer.partial_success.rejected_data_points = found.refused.total()
        reasons = [f"{reason} ({count})" for reason, count in found.refused.most_common(_MAX_REASONS)]
        answer.partial_success.error_message = "; ".join([*reasons, *sorted(found.warnings)])
    if media_type == _JSON:
        return Response(json_format.MessageToJson(answer, indent=None), media_type=_JSON)
    return Response(answer.SerializeToString(), media_type=_PROTOBUF)


OPERATIONS = (
    Operation(
        method="POST",
        path="/v1/metrics",
        name="exportMetrics",
        summary="OTLP/HTTP: an ExportMetricsServiceRequest as protobuf or JSON, plain or gzip",
        access=Access.SERVER,
        body=dict[str, Any],
        answer=dict[str, Any],
    ),
)
