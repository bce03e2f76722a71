"""OTLP over HTTP: accepted points of an export, and the answers."""

import asyncio
import gzip
import math
import time
from collections.abc import Callable, Generator
from typing import Any

import httpx
import msgspec
import numpy as np
import pytest
from google.protobuf import json_format
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import (
    ExportMetricsServiceRequest,
    ExportMetricsServiceResponse,
)
from opentelemetry.proto.metrics.v1.metrics_pb2 import AggregationTemporality, DataPointFlags, Metric

from gateway.api.histograms import from_explicit, from_exponential
from gateway.api.otlp.split import pieces_of
from gateway.api.pushes import SLICE_S, Slices
from gateway.limits import Limit
from services.bus.errors import Unavailable
from services.latency_sketch import BadSample
from tests.support.api import FakeDeps

DELTA = AggregationTemporality.AGGREGATION_TEMPORALITY_DELTA
CUMULATIVE = AggregationTemporality.AGGREGATION_TEMPORALITY_CUMULATIVE
PROTOBUF = {"content-type": "application/x-protobuf"}


class Exporting:
    """An export of one resource, as an SDK would build it."""

    def __init__(self, **resource: str) -> None:
        self.request = ExportMetricsServiceRequest()
        self.resource = self.request.resource_metrics.add()
        self.scope = self.resource.scope_metrics.add()
        for name, value in ({"service.name": "shop"} | resource).items():
            attribute = self.resource.resource.attributes.add(key=name)
            attribute.value.string_value = value

    def metric(self, name: str) -> Metric:
        return self.scope.metrics.add(name=name)

    def point(self, points: Any, **labels: str) -> Any:
        point = points.add(time_unix_nano=time.time_ns())
        for name, value in labels.items():
            point.attributes.add(key=name).value.string_value = value
        return point

    def gauge(self, name: str, value: float, **labels: str) -> None:
        self.point(self.metric(name).gauge.data_points, **labels).as_double = value

    def sum(
        self, name: str, value: int, temporality: Any = DELTA, monotonic: bool = True, **labels: str
    ) -> None:
        sum = self.metric(name).sum
        sum.aggregation_temporality, sum.is_monotonic = temporality, monotonic
        self.point(sum.data_points, **labels).as_int = value

    def histogram(
        self, name: str, bounds: list[float], counts: list[int], temporality: Any = DELTA, **labels: str
    ) -> None:
        histogram = self.metric(name).histogram
        histogram.aggregation_temporality = temporality
        point = self.point(histogram.data_points, **labels)
        point.explicit_bounds.extend(bounds)
        point.bucket_counts.extend(counts)
        point.count = sum(counts)

    def gauged(self) -> bytes:
        """Return it as bytes, with a gauge."""
        self.gauge("depth", 1)
        return self.request.SerializeToString()


async def push(client: httpx.AsyncClient, export: Exporting) -> ExportMetricsServiceResponse:
    answer = await client.post("/v1/metrics", content=export.request.SerializeToString(), headers=PROTOBUF)
    assert answer.status_code == 200
    assert answer.headers["content-type"] == "application/x-protobuf"
    response = ExportMetricsServiceResponse()
    response.ParseFromString(answer.content)
    return response


def reports(deps: FakeDeps) -> list[dict[str, Any]]:
    return [report for _, report in deps.bus.published]


async def test_gauges_and_sums(client: httpx.AsyncClient, deps: FakeDeps) -> None:
    export = Exporting(**{"service.namespace": "eu", "service.instance.id": "i-1"})
    export.gauge("queue.depth", 2.5)
    export.sum("sold", 4)
    export.sum("served", 400, CUMULATIVE)
    export.sum("open", 7, CUMULATIVE, monotonic=False)
    response = await push(client, export)
    assert not response.HasField("partial_success")
    (report,) = reports(deps)
    assert (report["source"], report["kind"], report["instance"], report["seq"]) == (
        "eu/shop",
        "app",
        "i-1",
        1,
    )
    assert report["gauges"] == {"queue.depth": 2.5, "open": 7}
    assert report["counters"] == {"sold": 4}
    assert report["totals"] == {"served": {"value": 400}}


async def test_deltas_count_since_their_start(client: httpx.AsyncClient, deps: FakeDeps) -> None:
    export = Exporting()
    export.sum("sold", 5)
    export.sum("lost", 5)
    export.sum("known", 5, CUMULATIVE)
    for metric, since_s in zip(export.scope.metrics, (1000, 990, 1), strict=True):
        metric.sum.data_points[0].start_time_unix_nano = since_s * 10**9
    await push(client, export)
    assert reports(deps)[0]["countsSince"] == 990_000


async def test_each_label_set_is_a_report(client: httpx.AsyncClient, deps: FakeDeps) -> None:
    export = Exporting()
    for route in ("/a", "/b"):
        export.sum("sold", 1, route=route)
        export.gauge("depth", 3, route=route)
    await push(client, export)
    assert [(report["labels"], report["counters"]) for report in reports(deps)] == [
        ({"route": "/a"}, {"sold": 1}),
        ({"route": "/b"}, {"sold": 1}),
    ]


async def test_durations_of_served_requests_are_requests_errors_and_latency(
    client: httpx.AsyncClient, deps: FakeDeps
) -> None:
    export = Exporting()
    export.histogram(
        "http.server.request.duration", [0.1, 0.2], [0, 5, 0], **{"http.response.status_code": "503"}
    )
    await push(client, export)
    (report,) = reports(deps)
    assert (report["requests"], report["errors"]) == (5, 5)
    assert report["histograms"]["latency"]["min"] == pytest.approx(105, rel=0.02)
    assert set(report["histograms"]) == {"latency", "http.server.request.duration"}
    deps.bus.published.clear()
    export = Exporting()
    export.histogram("http.server.request.duration", [0.1, 0.2], [0, 5, 0], CUMULATIVE)
    await push(client, export)
    (report,) = reports(deps)
    assert set(report["histogramTotals"]) == {"latency", "http.server.request.duration"}
    assert report["totals"] == {"requests": {"value": 5}, "errors": {"value": 0}}


async def test_exponential_histograms(client: httpx.AsyncClient, deps: FakeDeps) -> None:
    export = Exporting()
    histogram = export.metric("size").exponential_histogram
    histogram.aggregation_temporality = DELTA
    point = export.point(histogram.data_points)
    point.scale, point.zero_count, point.count = 5, 2, 12
    point.positive.offset = round(math.log2(100) * 32)
    point.positive.bucket_counts.extend([10])
    await push(client, export)
    sketch = reports(deps)[0]["histograms"]["size"]
    assert sketch["zero"] == 2
    assert sketch["max"] == pytest.approx(100, rel=0.03)


async def test_bad_points_are_refused_with_reasons_and_the_good_are_taken(
    client: httpx.AsyncClient, deps: FakeDeps
) -> None:
    export = Exporting()
    export.gauge("good", 1)
    export.gauge("bad", math.nan)
    export.gauge("worse", math.inf)
    export.gauge("no name", 1)
    export.sum("falls", 1, DELTA, monotonic=False)
    export.sum("negative", -1)
    export.sum("timeless", 1, AggregationTemporality.AGGREGATION_TEMPORALITY_UNSPECIFIED)
    export.gauge("labelled", 1, **{f"l{at}": "x" for at in range(20)})
    export.gauge("long", 1, label="x" * 200)
    export.histogram("odd", [1, 2], [1])
    export.histogram("unsorted", [2, 1], [1, 1, 1])
    late = export.point(export.metric("late").gauge.data_points)
    late.time_unix_nano, late.as_int = 1, 1
    early = export.point(export.metric("early").gauge.data_points)
    early.time_unix_nano, early.as_int = time.time_ns() + 10**12, 1
    export.point(export.metric("summary").summary.data_points)
    silent = export.point(export.metric("silent").gauge.data_points)
    silent.flags = DataPointFlags.DATA_POINT_FLAGS_NO_RECORDED_VALUE_MASK
    response = await push(client, export)
    (report,) = reports(deps)
    assert report["gauges"] == {"good": 1}
    assert response.partial_success.rejected_data_points == 13
    assert "finite (2)" in response.partial_success.error_message


async def test_json_and_gzip(client: httpx.AsyncClient, deps: FakeDeps) -> None:
    export = Exporting()
    export.gauge("depth", 5)
    text = json_format.MessageToJson(export.request).encode()
    headers = {"content-type": "application/json; charset=utf-8"}
    answer = await client.post("/v1/metrics", content=text, headers=headers)
    assert (answer.status_code, answer.json()) == (200, {})
    zipped = {"content-encoding": "gzip"}
    await client.post("/v1/metrics", content=gzip.compress(text), headers=headers | zipped)
    binary = gzip.compress(export.request.SerializeToString())
    assert (await client.post("/v1/metrics", content=binary, headers=PROTOBUF | zipped)).status_code == 200
    assert [report["gauges"] for report in reports(deps)] == [{"depth": 5}] * 3
    assert [report["seq"] for report in reports(deps)] == [1, 2, 3]


@pytest.mark.parametrize(
    ("content", "headers", "status"),
    [
        (b"\xff\xff\xff", {}, 400),
        (b"{", {"content-type": "application/json"}, 400),
        (b"[" * 100_000, {"content-type": "application/json"}, 400),
        (b'{"resourceMetrics":5}', {"content-type": "application/json"}, 400),
        (b"", {"content-type": "text/plain"}, 415),
        (b"x", {"content-encoding": "gzip"}, 400),
        (gzip.compress(b"x" * 100)[:-9], {"content-encoding": "gzip"}, 400),
        (b"x", {"content-encoding": "zstd"}, 415),
        (b"x" * 10_000_000, {}, 413),
        (gzip.compress(bytes(64_000_000)), {"content-encoding": "gzip"}, 413),
    ],
    ids=["garbage", "json", "bomb", "wrong", "type", "no gzip", "cut gzip", "zstd", "10 MB", "gzip bomb"],
)
async def test_bodies_that_are_no_exports(
    client: httpx.AsyncClient, deps: FakeDeps, content: bytes, headers: dict[str, str], status: int
) -> None:
    answer = await client.post("/v1/metrics", content=content, headers=PROTOBUF | headers)
    assert answer.status_code == status
    assert deps.bus.published == []


def batch(points: int) -> Exporting:
    """An export as a collector sends it: one resource, some metrics, many points."""
    export = Exporting()
    gauges = [export.metric(f"m{number}").gauge.data_points for number in range(10)]
    histogram = export.metric("took").histogram
    histogram.aggregation_temporality = DELTA
    for number in range(points):
        labels = {"route": f"/r{number % 7}", "method": "GET"}
        if number % 4:
            export.point(gauges[number % 10], **labels).as_double = number / 3
        else:
            point = export.point(histogram.data_points, **labels)
            point.explicit_bounds.extend(range(1, 15))
            point.bucket_counts.extend(range(15))
    return export


@pytest.mark.parametrize("kind", ["protobuf", "json"])
async def test_a_collectors_batch_is_taken(client: httpx.AsyncClient, deps: FakeDeps, kind: str) -> None:
    export = batch(8192)
    if kind == "json":
        text = json_format.MessageToJson(export.request, indent=None).encode()
        headers = {"content-type": "application/json", "content-encoding": "gzip"}
        answer = await client.post("/v1/metrics", content=gzip.compress(text), headers=headers)
        assert (answer.status_code, answer.json()) == (200, {})
    else:
        assert not (await push(client, export)).HasField("partial_success")
    found = {report["labels"]["route"]: report for report in reports(deps)}
    assert sorted(found) == [f"/r{number}" for number in range(7)]
    last = max(number for number in range(8192) if number % 10 == 1 and number % 7 == 3 and number % 4)
    assert found["/r3"]["gauges"]["m1"] == last / 3
    counted = sum(sum(report["histograms"]["took"]["bins"].values()) for report in found.values())
    assert counted == pytest.approx(2048 * sum(range(15)))


@pytest.mark.parametrize("points", [1, 2, 300])
async def test_a_metric_in_pieces_equals_the_complete_metric(points: int) -> None:
    """Whatever is between its points, and wherever its resource stands."""
    export = Exporting(**{"service.namespace": "eu"})
    export.metric("n").sum.aggregation_temporality = DELTA
    found = export.scope.metrics[0].sum
    found.is_monotonic = True
    for number in range(points):
        export.point(found.data_points, **{"l": "x" * 100}).as_int = number
    one, two = export.request.SerializeToString(), json_format.MessageToJson(export.request).encode()
    for pieces in (list(pieces_of(one, json=False)), list(pieces_of(two, json=True))):
        parts = [piece for piece in pieces if piece is not None]
        assert (len(parts) > 1) == (points == 300)
        merged = Metric()
        for part in parts:
            assert part.resource == export.resource.resource
            merged.MergeFrom(part.metric)
        assert merged == export.scope.metrics[0]


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (batch(25_000).request.SerializeToString, ""),
        (lambda: b"\x0a\x00" * 60_000, "more than 50000 resources"),
        (lambda: Exporting(**{f"a{n}": "x" for n in range(200)}).gauged(), "more than 128 attributes"),
        (lambda: Exporting(large="x" * 40_000).gauged(), "more than 32768 bytes"),
    ],
    ids=["points", "resources", "attributes", "bytes"],
)
async def test_too_much_in_one_export(
    client: httpx.AsyncClient, make: Callable[[], bytes], reason: str
) -> None:
    headers = PROTOBUF | {"content-encoding": "gzip"}
    answer = await client.post("/v1/metrics", content=gzip.compress(make()), headers=headers)
    if not reason:  # points over the limit are refused by themselves
        assert answer.status_code == 200
        assert b"more than 20000 points" in answer.content
        return
    assert (answer.status_code, answer.json()["code"]) == (413, "too_large")
    assert reason in answer.json()["message"]


async def test_what_is_too_much_for_one_message_of_the_bus_becomes_several(
    client: httpx.AsyncClient, deps: FakeDeps
) -> None:
    exporting = Exporting()
    for number in range(500):
        exporting.histogram(f"h{number}", [float(bound) for bound in range(1, 100)], [1] * 100)
    response = await push(client, exporting)
    assert not response.HasField("partial_success")
    sent = reports(deps)
    assert len({report["seq"] for report in sent}) == len(sent) > 1
    assert {name for report in sent for name in report["histograms"]} == {f"h{n}" for n in range(500)}
    assert max(len(msgspec.json.encode(report)) for report in sent) < 600_000


async def test_exports_wait_for_each_other_and_few_do(client: httpx.AsyncClient, deps: FakeDeps) -> None:
    body = batch(3000).request.SerializeToString()
    answers = await asyncio.gather(
        *[client.post("/v1/metrics", content=body, headers=PROTOBUF) for _ in range(20)]
    )
    taken = [answer for answer in answers if answer.status_code == 200]
    refused = [answer for answer in answers if answer.status_code == 429]
    assert len(taken) + len(refused) == 20
    assert len(taken) >= 5
    assert deps.limited == [Limit.EXPORTS] * len(refused)
    assert {answer.headers["retry-after"] for answer in refused} == {"2"}


async def test_others_are_served_between_the_slices() -> None:
    served = [0]

    async def others() -> None:
        while True:
            await asyncio.sleep(0)
            served.append(served[-1] + 1)

    def steps() -> Generator[None, None, None]:
        for _ in range(50):
            before = served[-1]
            yield
            until = time.perf_counter() + 2 * SLICE_S
            counts.append(served[-1] - before)
            while time.perf_counter() < until:
                pass

    counts: list[int] = []
    task = asyncio.create_task(others())
    await Slices(1, lambda: None).run(steps())
    task.cancel()
    assert sum(count > 0 for count in counts) > 40


async def test_an_empty_export_is_fine(client: httpx.AsyncClient) -> None:
    assert (await client.post("/v1/metrics", content=b"", headers=PROTOBUF)).content == b""


async def test_too_many_label_sets_are_reported(client: httpx.AsyncClient, deps: FakeDeps) -> None:
    export = Exporting()
    for user in range(40):
        export.sum("sold", 1, user=str(user))
    response = await push(client, export)
    assert response.partial_success.rejected_data_points == 0
    assert "label sets over the limit" in response.partial_success.error_message
    assert len(reports(deps)) == 40


async def test_without_bus_an_exporter_comes_again(client: httpx.AsyncClient, deps: FakeDeps) -> None:
    deps.bus.fault = Unavailable("no bus")
    export = Exporting()
    export.gauge("depth", 5)
    answer = await client.post("/v1/metrics", content=export.request.SerializeToString(), headers=PROTOBUF)
    assert answer.status_code == 503
    assert answer.headers["retry-after"]


def test_percentiles_from_buckets_are_as_exact_as_the_buckets() -> None:
    values = np.random.default_rng(1).lognormal(3, 1, 50_000)
    bounds = [float(bound) for bound in np.geomspace(0.5, 2000, 60)]
    counts = np.histogram(values, [0, *bounds, np.inf])[0].tolist()
    sketch = from_explicit(bounds, counts)
    for q in (0.5, 0.95, 0.99):
        assert sketch.quantile(q) == pytest.approx(np.quantile(values, q), rel=0.08)


def test_percentiles_from_fine_exponential_buckets_are_within_two_percent() -> None:
    values = np.random.default_rng(1).lognormal(3, 1, 50_000)
    indices = np.ceil(np.log2(values) * 2**6).astype(int) - 1
    offset = int(indices.min())
    counts = np.bincount(indices - offset).tolist()
    sketch = from_exponential(6, 0, offset, [float(count) for count in counts])
    for q in (0.5, 0.95, 0.99):
        assert sketch.quantile(q) == pytest.approx(np.quantile(values, q), rel=0.02)


@pytest.mark.parametrize(
    ("bounds", "counts"), [([1.0], [1.0]), ([-5.0, 5.0], [0, 1.0, 0]), ([1.0], [-1.0, 0]), ([math.nan], [1, 1])]
)  # fmt: skip
def test_histograms_that_cannot_be(bounds: list[float], counts: list[float]) -> None:
    with pytest.raises(BadSample):
        from_explicit(bounds, counts)


def test_the_first_default_bucket_of_sdks_holds_zeros() -> None:
    sketch = from_explicit([0.0, 5.0], [3, 0, 0])
    assert (sketch.zero, sketch.count) == (3, 3)
