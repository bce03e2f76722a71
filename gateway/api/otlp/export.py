"""`POST /v1/metrics`: OpenTelemetry exporters push over HTTP, as protobuf or JSON, plain or gzip.

https://opentelemetry.io/docs/specs/otlp/#otlphttp: what was taken is answered with 200, with the number of points
that were not and why; what can be sent again with 429 or 503 and Retry-After, what cannot with 400 or 413.
"""

import time
import zlib
from collections.abc import Generator, Iterator
from typing import Any

import msgspec
from google.protobuf import json_format
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import (
    ExportMetricsServiceResponse,
)
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from gateway.api.access import require_server
from gateway.api.body import read_bytes
from gateway.api.declarations import Access, Operation
from gateway.api.deps import ApiDeps
from gateway.api.label_sets import LabelSets
from gateway.api.metric_items import ReportNumbers
from gateway.api.otlp.convert import Export, convert
from gateway.api.otlp.split import MAX_UNPACKED_BYTES, pieces_of
from gateway.api.responses import ApiError
from gateway.api.slices import Slices
from gateway.auth.api_keys import Scope
from gateway.limits import Limit
from services.bus.errors import PayloadTooLarge
from services.wire.codes import ErrorCode

_UNPACKED_AT_ONCE = 256 * 1024
_MAX_WAITING = 4
_PROTOBUF = "application/x-protobuf"
_JSON = "application/json"
_MAX_REASONS = 5


def otlp_routes(deps: ApiDeps, numbers: ReportNumbers, label_sets: LabelSets) -> list[Route]:
    """Return `POST /v1/metrics`."""
    slices = Slices(_MAX_WAITING, lambda: deps.on_limit(Limit.EXPORTS))

    async def export(request: Request) -> Response:
        """Take an export and answer what was not taken of it."""
        await require_server(deps, request, Scope.METRICS)
        media_type = request.headers.get("content-type", "").partition(";")[0].strip().lower()
        if media_type not in (_PROTOBUF, _JSON):
            raise _UnknownType(ErrorCode.BAD_MESSAGE, f"the body must be {_PROTOBUF} or {_JSON}")
        encoding = request.headers.get("content-encoding", "identity").lower()
        if encoding not in ("identity", "", "gzip"):
            raise _UnknownType(ErrorCode.BAD_MESSAGE, "the content encoding must be gzip or none")
        body = await read_bytes(request, deps.settings.max_body_bytes, deps.settings.body_timeout_s)
        found = Export()

        def steps() -> Generator[None, None, None]:
            yield from steps_of(body, found, zipped=encoding == "gzip", json=media_type == _JSON)
            yield from _publish(deps, found, numbers, label_sets)

        await slices.run(steps())
        return _answer(found, media_type)

    return [Route("/v1/metrics", export, methods=["POST"])]


class _UnknownType(ApiError):
    """Neither protobuf nor JSON."""

    status = 415


def steps_of(body: bytes, found: Export, *, zipped: bool, json: bool) -> Iterator[None]:
    """Convert a request into `found`, a step at a time.

    Raises:
        ApiError: the request is no export, or too large a one.
    """
    if zipped:
        plain = bytearray()
        for part in _unpacked(body):
            plain += part
            yield
        body = bytes(plain)
    elif len(body) > MAX_UNPACKED_BYTES:
        text = f"the body is larger than {MAX_UNPACKED_BYTES} bytes"
        raise ApiError(ErrorCode.TOO_LARGE, text, Limit.BODY_BYTES)
    yield from convert(pieces_of(body, json=json), found, int(time.time() * 1000))


def _unpacked(body: bytes) -> Iterator[bytes]:
    """Yield what a gzip body was before compression. Raises ApiError."""
    inflating = zlib.decompressobj(16 + zlib.MAX_WBITS)
    size = 0
    while not inflating.eof:
        try:
            part = inflating.decompress(body, _UNPACKED_AT_ONCE)
        except zlib.error:
            raise ApiError(ErrorCode.BAD_MESSAGE, "the body is not gzip") from None
        body = inflating.unconsumed_tail
        size += len(part)
        if size > MAX_UNPACKED_BYTES:
            text = f"the body is larger than {MAX_UNPACKED_BYTES} bytes when it is unpacked"
            raise ApiError(ErrorCode.TOO_LARGE, text, Limit.BODY_BYTES)
        if not part and not body and not inflating.eof:
            raise ApiError(ErrorCode.BAD_MESSAGE, "the gzip body ends early")
        yield part


def _publish(deps: ApiDeps, found: Export, numbers: ReportNumbers, label_sets: LabelSets) -> Iterator[None]:
    """Hand the reports to the bus, one a step. Raises BusError when it takes none: all may be sent again."""
    for report in found.reports:
        if report.labels and not label_sets.admit(report.source, report.labels):
            found.warnings.add("label sets over the limit of a source count in the source alone")
        boot, seq = numbers.next_of(report.source)
        numbered = msgspec.structs.replace(report, boot=boot, seq=seq)
        try:
            deps.bus.publish(deps.subjects.metrics_report, msgspec.json.encode(numbered))
        except PayloadTooLarge:
            found.refused["too large for the bus"] += 1
        yield


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
