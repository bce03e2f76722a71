"""All sources of metrics through their real endpoints: OTLP, pushes, logs, several hosts."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import httpx
import msgspec
import pytest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from websockets.asyncio.client import connect

from services.settings import Settings
from services.wire import rpc
from tests.support.deadline import PATIENCE_S, eventually, fetched
from tests.support.metrics_fleet import Fleet
from tidings_cli.local.processes import free_port

pytestmark = pytest.mark.timeout(90)


@pytest.fixture
async def fleet(make_settings: Callable[..., Settings], tmp_path: Path) -> AsyncIterator[Fleet]:
    async with Fleet(make_settings(), tmp_path) as running:
        yield running


@pytest.fixture
async def http(fleet: Fleet) -> AsyncIterator[httpx.AsyncClient]:
    """A gateway's HTTP surface, beside a metrics_svc that ticks."""
    port = free_port()
    fleet.start("gateway", TIDINGS_PORT=str(port))
    await fleet.leader(fleet.start())
    async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", timeout=PATIENCE_S) as client:

        async def ready() -> bool:
            try:
                return (await client.get("/readyz")).status_code == 200
            except httpx.TransportError:
                return False

        await eventually(ready, "the gateway")
        await eventually(lambda: fleet.ticks, "the first whole second")
        yield client


def export(served: int) -> bytes:
    """Return an export of totals: requests of half a second each, so far."""
    request = ExportMetricsServiceRequest()
    resource = request.resource_metrics.add()
    resource.resource.attributes.add(key="service.name").value.string_value = "shop"
    metric = resource.scope_metrics.add().metrics.add(name="http.server.request.duration", unit="s")
    metric.histogram.aggregation_temporality = 2
    point = metric.histogram.data_points.add(time_unix_nano=time.time_ns(), count=served)
    point.attributes.add(key="http.route").value.string_value = "/cart"
    point.explicit_bounds.extend([0.49, 0.51])
    point.bucket_counts.extend([0, served, 0])
    return request.SerializeToString()


async def test_what_an_exporter_sends_is_on_the_page_and_in_history(
    fleet: Fleet, http: httpx.AsyncClient
) -> None:
    served = 0

    async def exported() -> bool:
        nonlocal served
        served += 10
        answer = await http.post(
            "/v1/metrics", content=export(served), headers={"content-type": "application/x-protobuf"}
        )
        assert answer.status_code == 200
        assert answer.content == b""
        return any(tick.record.latency_p50 > 400 for tick in fleet.ticks)

    await eventually(exported, "its latency in the fleet's record")
    series = 'shop{http.route="/cart"}'

    async def stored() -> list[dict[str, float]]:
        asked = {"source": series, "metric": "http.server.request.duration.p95"}
        return list(await fetched(http, "/api/metrics/history", params=asked))

    points = await eventually(stored, "points of the label set")
    assert points[-1]["value"] == pytest.approx(0.5, rel=0.05)
    sources = {source["source"] for source in await fetched(http, "/api/metrics/sources")}
    assert {"shop", series} < sources


async def test_pushed_histograms_and_refusals(fleet: Fleet, http: httpx.AsyncClient) -> None:
    item = {
        "source": "shop",
        "histograms": {"basket": {"bounds": [10, 20], "counts": [0, 50, 0]}, "latency": [250.0]},
    }
    items = [item, {"source": "shop", "gauges": {"x": "high"}}, {"timestamp": 99_999_999_999_999}]

    async def pushed() -> bool:
        body = (await http.post("/api/metrics", json=items)).json()
        assert (body["accepted"], [bad["index"] for bad in body["rejected"]]) == (1, [1, 2])
        return any(tick.record.latency_p99 > 240 for tick in fleet.ticks)

    await eventually(pushed, "the latency in the record")

    async def stored() -> list[dict[str, float]]:
        asked = {"source": "shop", "metric": "basket.p50"}
        return list(await fetched(http, "/api/metrics/history", params=asked))

    points = await eventually(stored, "points of the histogram")
    assert points[-1]["value"] == pytest.approx(15, rel=0.1)
    assert (await http.post("/api/metrics", content=b"x" * 10_000_000)).status_code == 413


async def test_application_logs_are_tailed_counted_and_kept(fleet: Fleet, http: httpx.AsyncClient) -> None:
    url = f"ws://127.0.0.1:{http.base_url.port}/ws?username=ann&channels=logs"
    async with connect(url) as socket:
        await socket.send('{"type":"heartbeat","id":"h"}')
        async with asyncio.timeout(PATIENCE_S):
            while msgspec.json.decode(await socket.recv())["type"] != "heartbeat_ack":
                pass
            await http.post("/api/logs", json=[{"source": "shop", "level": "error", "event": "card refused"}])
            while (line := msgspec.json.decode(await socket.recv()))["type"] != "log" or line["data"][
                "source"
            ] != "shop":
                pass
    assert line["data"]["event"] == "card refused"
    await eventually(lambda: any(tick.record.errors >= 1 for tick in fleet.ticks), "the error counted")
    kept = (await http.get("/api/logs?source=shop&level=warning")).json()
    assert [entry["event"] for entry in kept] == ["card refused"]


async def test_several_hosts_and_one_that_falls_silent(fleet: Fleet, tmp_path: Path) -> None:
    rules = tmp_path / "rules.toml"
    rules.write_text(
        '[[rule]]\nmetric = "up"\nsource = "*"\ncritical = 0\nop = "<="\nno_data = "alert"\nno_data_for_s = 6\n'
    )
    await fleet.leader(fleet.start(TIDINGS_RULES_FILE=str(rules)))
    hosts = {name: fleet.start("metrics_svc.agent", TIDINGS_INSTANCE=name) for name in ("web-1", "web-2")}

    async def both() -> bool:
        rows = [
            (await fleet.ask(rpc.METRICS_HISTORY, rpc.HistoryQuery(source=name, metric="memory"))).points
            for name in hosts
        ]
        return all(rows)

    await eventually(both, "both hosts in the history")
    hosts["web-2"].kill()
    await eventually(lambda: "up@web-2-alert critical" in fleet.said, "the silent host")
    assert fleet.said == ["up@web-2-alert critical"]
    fleet.start("metrics_svc.agent", TIDINGS_INSTANCE="web-2")
    await eventually(lambda: len(fleet.said) > 1, "its return")
    assert fleet.said == ["up@web-2-alert critical", "up@web-2-alert resolved"]
