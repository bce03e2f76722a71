"""`POST /v1/metrics`: OpenTelemetry exporters push over HTTP, as protobuf or JSON, plain or gzip.

https://opentelemetry.io/docs/specs/otlp/#otlphttp: what was accepted is answered with 200, with the number of points
that were not and why; what can be sent again with 429 or 503 and Retry-After, what cannot with 400 or 413.
"""

import zlib
from collections.abc import Iterator
from itertools import chain
from typing import Any

import msgspec
from google.protobuf import json_format
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import (
    ExportMetricsServiceResponse,
)
from starlette.responses import Response

from gateway.api.endpoint import Call, endpoint, server
from gateway.api.otlp.convert import Export, convert
from gateway.api.otlp.split import MAX_UNPACKED_BYTES, pieces_of
from gateway.api.responses import ApiError
from gateway.limits import Limit
from services.bus.errors import PayloadTooLarge
from services.clock import now_ms
from services.settings_values import Scope
from services.wire.codes import ErrorCode

_UNPACKED_AT_ONCE = 256 * 1024
_PROTOBUF = "application/x-protobuf"
_JSON = "application/json"
_MAX_REASONS = 5


@endpoint("POST", "/v1/metrics", server(Scope.METRICS), body=dict[str, Any], answer=dict[str, Any])
async def export_metrics(call: Call) -> Response:
    """OTLP/HTTP: an ExportMetricsServiceRequest as protobuf or JSON, plain or gzip."""
    headers = call.request.headers
    media_type = headers.get("content-type", "").partition(";")[0].strip().lower()
    if media_type not in (_PROTOBUF, _JSON):
        raise ApiError(ErrorCode.BAD_MESSAGE, f"the body must be {_PROTOBUF} or {_JSON}", status=415)
    encoding = headers.get("content-encoding", "identity").lower()
    if encoding not in ("identity", "", "gzip"):
        raise ApiError(ErrorCode.BAD_MESSAGE, "the content encoding must be gzip or none", status=415)
    body, found = await call.data(), Export()
    steps = steps_of(body, found, zipped=encoding == "gzip", json=media_type == _JSON)
    await call.pushes.exports.run(chain(steps, _publish(call, found)))
    return _answer(found, media_type)


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
    yield from convert(pieces_of(body, json=json), found, now_ms())


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


def _publish(call: Call, found: Export) -> Iterator[None]:
    """Publish the reports, one a step. Raises BusError when none was taken: all may be sent again."""
    gateway, pushes = call.gateway, call.pushes
    for report in found.reports:
        if report.labels and not pushes.label_sets.admit(report.source, report.labels):
            found.warnings.add("label sets over the limit of a source count in the source alone")
        boot, seq = pushes.numbers.next_of(report.source)
        numbered = msgspec.structs.replace(report, boot=boot, seq=seq)
        try:
            gateway.bus.publish(gateway.settings.subjects.metrics_report, msgspec.json.encode(numbered))
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
