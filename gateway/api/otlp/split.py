"""An OTLP export split before it is parsed: a metric with some of its points at a time. Pure.

The parsers of protobuf and JSON parse a whole request at once, and allocate hundreds of bytes for every two: 6 kB of
gzip blocked a gateway for 6 s. So the elements of a request (resources, scopes, metrics, points) are counted, and the
parsers get pieces that take a millisecond or two.
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import ClassVar, TypeVar

import msgspec
from google.protobuf import json_format
from google.protobuf.message import DecodeError
from opentelemetry.proto.metrics.v1.metrics_pb2 import Metric
from opentelemetry.proto.resource.v1.resource_pb2 import Resource

from gateway.api.responses import ApiError
from services.wire.codes import ErrorCode

MAX_UNPACKED_BYTES = 4 * 1024 * 1024
MAX_ELEMENTS = 50_000  # resources, scopes, metrics and points together, and fields beside them
_MAX_JSON_COMMAS = 400_000
# Of what cannot be split: a resource, a point, a metric without its points.
_MAX_PART_BYTES = 32 * 1024
_MAX_PART_OBJECTS = 300  # of JSON: its parser takes 10 µs for each
_MAX_PART_COMMAS = 3000
# A piece has as many points as fit these, but at least one.
_PIECE_BYTES = 8 * 1024
_PIECE_OBJECTS = 100
_PIECE_COMMAS = 500


@dataclass(frozen=True, slots=True)
class Piece:
    """Some points of one metric. `resource` is the same object for all pieces of a resource."""

    resource: Resource
    metric: Metric


def pieces_of(body: bytes, *, json: bool) -> Iterator[Piece | None]:
    """Yield an ExportMetricsServiceRequest piece by piece; None for a step without a piece.

    Raises:
        ApiError: `bad_message` for anything else, `too_large` for a request with too many or too large parts.
    """
    try:
        yield from _json_pieces(body) if json else _protobuf_pieces(body)
    except (DecodeError, json_format.ParseError, msgspec.DecodeError, RecursionError, ValueError):
        raise ApiError(ErrorCode.BAD_MESSAGE, "not an ExportMetricsServiceRequest") from None


class _Counter:
    """Counts the elements of one request."""

    def __init__(self) -> None:
        self._left = MAX_ELEMENTS

    def one(self) -> None:
        """Count one. Raises ApiError."""
        self._left -= 1
        if self._left < 0:
            raise _too_large(f"more than {MAX_ELEMENTS} resources, scopes, metrics and points")


def _too_large(what: str) -> ApiError:
    return ApiError(ErrorCode.TOO_LARGE, f"{what} in one request: send smaller batches")


_PointT = TypeVar("_PointT", memoryview, msgspec.Raw)


def _grouped(
    points: Iterable[_PointT], sizes_of: Callable[[_PointT], tuple[int, int, int]]
) -> Iterator[list[_PointT]]:
    """Yield the points of one piece at a time. Sizes are objects, commas and bytes."""
    group, sizes = list[_PointT](), (0, 0, 0)
    for point in points:
        more = sizes_of(point)
        sizes = (sizes[0] + more[0], sizes[1] + more[1], sizes[2] + more[2])
        if group and (sizes[0] > _PIECE_OBJECTS or sizes[1] > _PIECE_COMMAS or sizes[2] > _PIECE_BYTES):
            yield group
            group, sizes = [], more
        group.append(point)
    if group:
        yield group


def _check_part(data: bytes | memoryview | bytearray) -> None:
    if len(data) > _MAX_PART_BYTES:
        raise _too_large(f"a resource, a metric or a point of more than {_MAX_PART_BYTES} bytes")


# --- protobuf: https://protobuf.dev/programming-guides/encoding/ ---

# Numbers of fields in opentelemetry/proto/metrics/v1/metrics.proto.
_RESOURCE_METRICS = 1
_RESOURCE, _SCOPE_METRICS = 1, 2
_METRICS = 2
_DATA = {5: "gauge", 7: "sum", 9: "histogram", 10: "exponential_histogram", 11: "summary"}
_DATA_POINTS = 1


def _varint(data: memoryview, at: int) -> tuple[int, int]:
    """Return the number at offset `at`, and the offset after it."""
    value = shift = 0
    for end, byte in enumerate(data[at : at + 10], at + 1):
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, end
        shift += 7
    raise ValueError("a number without end")


def _fields(data: memoryview, count: _Counter) -> Iterator[tuple[int, memoryview, memoryview]]:
    """Yield the fields of a message: number, value (empty unless it has a length), and all of it."""
    at, end = 0, len(data)
    while at < end:
        count.one()
        began = at
        tag, at = _varint(data, at)
        value = data[:0]
        match tag & 7:
            case 2:  # a length
                size, at = _varint(data, at)
                value = data[at : at + size]
                at += size
            case 0:  # a varint
                _, at = _varint(data, at)
            case 1:  # 64 bits
                at += 8
            case 5:  # 32 bits
                at += 4
            case _:
                raise ValueError("a group")
        if at > end or not tag >> 3:
            raise ValueError("a field that is none, or is cut off")
        yield tag >> 3, value, data[began:at]


def _protobuf_pieces(body: bytes) -> Iterator[Piece | None]:
    count = _Counter()
    for number, value, _ in _fields(memoryview(body), count):
        yield None
        if number == _RESOURCE_METRICS:
            yield from _protobuf_resource(value, count)


def _protobuf_resource(data: memoryview, count: _Counter) -> Iterator[Piece | None]:
    resource, scopes = bytearray(), list[memoryview]()
    for number, value, _ in _fields(data, count):
        yield None
        if number == _RESOURCE:
            resource += value  # a field that occurs twice is merged, as protobuf requires
            _check_part(resource)
        elif number == _SCOPE_METRICS:
            scopes.append(value)
    parsed = Resource.FromString(bytes(resource))
    for scope in scopes:
        for number, value, _ in _fields(scope, count):
            yield None
            if number == _METRICS:
                yield from _protobuf_metric(parsed, value, count)


def _protobuf_metric(resource: Resource, metric: memoryview, count: _Counter) -> Iterator[Piece | None]:
    head, kind, data = bytearray(), 0, metric[:0]
    for number, value, whole in _fields(metric, count):
        yield None
        if number in _DATA:
            kind, data = number, value
        else:
            head += whole
            _check_part(head)
    if not kind:
        return
    rest, points = bytearray(), list[memoryview]()
    for number, value, whole in _fields(data, count):
        yield None
        if number == _DATA_POINTS:
            _check_part(value)
            points.append(whole)
        else:
            rest += whole
            _check_part(rest)
    for some in _grouped(points, lambda point: (0, 0, len(point))):
        parsed = Metric.FromString(bytes(head))
        getattr(parsed, _DATA[kind]).MergeFromString(bytes(rest) + b"".join(some))
        yield Piece(resource, parsed)


# --- JSON: https://opentelemetry.io/docs/specs/otlp/#json-protobuf-encoding ---


class _Counted(msgspec.Struct, rename="camel"):
    """An object that is counted as soon as it is decoded, so that a list of too many is not decoded to its end."""

    count: ClassVar[_Counter] = _Counter()  # of the request that is decoded now: decoding is not interrupted

    def __post_init__(self) -> None:
        self.count.one()


class _Metric(_Counted):
    name: str | None = None
    gauge: msgspec.Raw = msgspec.Raw()
    sum: msgspec.Raw = msgspec.Raw()
    histogram: msgspec.Raw = msgspec.Raw()
    exponential_histogram: msgspec.Raw = msgspec.Raw()
    summary: msgspec.Raw = msgspec.Raw()


class _Scope(_Counted):
    metrics: list[_Metric] | None = None


class _Resource(_Counted):
    resource: msgspec.Raw = msgspec.Raw()
    scope_metrics: list[_Scope] | None = None


class _Request(msgspec.Struct, rename="camel"):
    resource_metrics: list[_Resource] | None = None


class _Point(_Counted):
    pass


class _Data(msgspec.Struct, rename="camel"):
    data_points: msgspec.Raw = msgspec.Raw()
    aggregation_temporality: msgspec.Raw = msgspec.Raw()
    is_monotonic: msgspec.Raw = msgspec.Raw()


_KINDS = ("gauge", "sum", "histogram", "exponentialHistogram", "summary")
_read_request = msgspec.json.Decoder(_Request).decode
_read_data = msgspec.json.Decoder(_Data).decode
_count_points = msgspec.json.Decoder(list[_Point]).decode
_read_points = msgspec.json.Decoder(list[msgspec.Raw]).decode


def _json_pieces(body: bytes) -> Iterator[Piece | None]:
    count = _Counter()
    if body.count(b",") > _MAX_JSON_COMMAS:
        raise _too_large(f"more than {_MAX_JSON_COMMAS} values")
    yield None
    _Counted.count = count
    request = _read_request(body)
    yield None
    for resource in request.resource_metrics or ():
        parsed = Resource()
        if _is_given(resource.resource):
            _check_json_part(resource.resource)
            json_format.Parse(bytes(resource.resource), parsed, ignore_unknown_fields=True)
        yield None
        for scope in resource.scope_metrics or ():
            for metric in scope.metrics or ():
                yield None
                yield from _json_metric(parsed, metric, count)


def _json_metric(resource: Resource, metric: _Metric, count: _Counter) -> Iterator[Piece | None]:
    found = (metric.gauge, metric.sum, metric.histogram, metric.exponential_histogram, metric.summary)
    given = [(kind, data) for kind, data in zip(_KINDS, found, strict=True) if _is_given(data)]
    if len(given) > 1:
        raise ValueError("a metric of two kinds")
    for kind, raw in given:
        data = _read_data(raw)
        yield None
        if not _is_given(data.data_points):
            continue
        _Counted.count = count
        _count_points(data.data_points)
        yield None
        points = _read_points(data.data_points)
        yield None
        head = b'{"name":' + msgspec.json.encode(metric.name or "") + b',"' + kind.encode() + b'":{'
        for name, value in (
            (b'"aggregationTemporality":', data.aggregation_temporality),
            (b'"isMonotonic":', data.is_monotonic),
        ):
            if _is_given(value):
                head += name + bytes(value) + b","
        _check_json_part(head)
        for some in _grouped(points, _check_json_part):
            text = head + b'"dataPoints":[' + b",".join(some) + b"]}}"
            yield Piece(resource, json_format.Parse(text, Metric(), ignore_unknown_fields=True))


def _is_given(raw: msgspec.Raw) -> bool:
    return len(raw) > 0 and (len(raw) != 4 or bytes(raw) != b"null")


def _check_json_part(data: bytes | msgspec.Raw) -> tuple[int, int, int]:
    """Return the objects, commas and bytes of a part that is parsed at once. Raises ApiError."""
    text = bytes(data)
    _check_part(text)
    objects, commas = text.count(b"{"), text.count(b",")
    if objects > _MAX_PART_OBJECTS or commas > _MAX_PART_COMMAS:
        raise _too_large("a resource, a metric or a point of too many values")
    return objects, commas, len(text)
