"""Applications push metrics over HTTP."""

import time
from typing import Any

import httpx
import pytest

from gateway.api.pushes import MAX_ITEMS, ReportNumbers
from services.bus.errors import PayloadTooLarge, Unavailable
from tests.support.api import FakeDeps


async def test_one_item(client: httpx.AsyncClient, deps: FakeDeps) -> None:
    now_ms = int(time.time() * 1000)
    item = {
        "source": "web", "labels": {"zone": "a"}, "timestamp": now_ms, "requests": 12, "errors": 1,
        "latencies": [1.5, 2], "gauges": {"queue": -3}, "counters": {"sales": 4},
    }  # fmt: skip
    answer = await client.post("/api/metrics", json=item)

    assert (answer.status_code, answer.json()) == (202, {"accepted": 1, "rejected": []})
    subject, report = deps.bus.published[0]
    assert subject == "tidings.metrics.report"
    assert report.pop("boot")
    assert report == item | {"type": "metrics_report", "kind": "app", "seq": 1}


async def test_defaults(client: httpx.AsyncClient, deps: FakeDeps) -> None:
    before = int(time.time() * 1000)
    assert (await client.post("/api/metrics", json={"requests": 1})).status_code == 202
    report = deps.bus.published[0][1]
    assert report["source"] == "app"
    assert before <= report["timestamp"] <= before + 10_000


async def test_a_push_counts_since_the_last_one_of_its_labels(
    client: httpx.AsyncClient, deps: FakeDeps
) -> None:
    now = int(time.time() * 1000)
    for at, labels in (
        (now - 60_000, {"route": "/a"}),
        (now - 60_000, {"route": "/b"}),
        (now, {"route": "/a"}),
    ):
        await client.post("/api/metrics", json={"requests": 1, "labels": labels, "timestamp": at})
    assert [report.get("countsSince") for _, report in deps.bus.published] == [None, None, now - 60_000]


async def test_an_array_keeps_the_good_and_names_the_bad(client: httpx.AsyncClient, deps: FakeDeps) -> None:
    items: list[Any] = [{"requests": 1}, {"requests": -1}, 7, {"source": ""}, {"errors": 2}]
    answer = await client.post("/api/metrics", json=items)

    assert answer.status_code == 202
    body = answer.json()
    assert body["accepted"] == 2
    assert [(entry["index"], entry["code"]) for entry in body["rejected"]] == [
        (1, "invalid_field"),
        (2, "invalid_field"),
        (3, "invalid_name"),
    ]
    assert all(entry["message"] for entry in body["rejected"])
    assert [(report["source"], report["seq"]) for _, report in deps.bus.published] == [("app", 1), ("app", 2)]


@pytest.mark.parametrize(
    "item",
    [
        {"requests": "many"},
        {"requests": None},
        {"errors": -0.5},
        {"latencies": [-1]},
        {"latencies": ["x"]},
        {"latencies": 5},
        {"latencies": [1] * 10_001},
        {"gauges": {"": 1}},
        {"gauges": {"a b": 1}},
        {"gauges": {"1a": 1}},
        {"gauges": {"x" * 65: 1}},
        {"gauges": {f"g{n}": 1 for n in range(101)}},
        {"gauges": {"a": "1"}},
        {"counters": {"a": -1}},
        {"labels": {"a": 1}},
        {"labels": {"a b": "x"}},
        {"labels": {"a": "x" * 129}},
        {"labels": {f"l{n}": "x" for n in range(17)}},
        {"timestamp": 1},
        {"timestamp": int(time.time())},
        {"timestamp": 99_999_999_999_999},
        {"timestamp": 10**30},
        {"timestamp": "now"},
        {"source": "x" * 129},
        {"source": "a\u0000b"},
    ],
)
async def test_a_bad_item_alone_is_an_error(
    client: httpx.AsyncClient, deps: FakeDeps, item: dict[str, Any]
) -> None:
    answer = await client.post("/api/metrics", json=item)

    assert answer.status_code == 400
    body = answer.json()
    assert (body["code"], body["retryable"], body["accepted"]) == ("invalid_field", False, 0)
    assert body["rejected"][0]["index"] == 0
    assert deps.bus.published == []


@pytest.mark.parametrize("number", ["1e999", "-1e999", "NaN", "Infinity"])
async def test_numbers_that_are_none(client: httpx.AsyncClient, number: str) -> None:
    answer = await client.post("/api/metrics", content=f'{{"gauges":{{"a":{number}}}}}')
    assert answer.status_code == 400


@pytest.mark.parametrize("body", [b"", b"[", b"x", b"[" * 100_000, b'[{"requests":1},]'])
async def test_malformed_pushes(client: httpx.AsyncClient, deps: FakeDeps, body: bytes) -> None:
    answer = await client.post("/api/metrics", content=body)
    assert (answer.status_code, answer.json()["code"]) == (400, "bad_message")
    assert deps.bus.published == []


async def test_an_empty_array_is_nothing_to_do(client: httpx.AsyncClient) -> None:
    assert (await client.post("/api/metrics", json=[])).json() == {"accepted": 0, "rejected": []}


async def test_too_many_items(client: httpx.AsyncClient) -> None:
    answer = await client.post("/api/metrics", json=[{}] * (MAX_ITEMS + 1))
    assert (answer.status_code, answer.json()["code"]) == (413, "too_large")


async def test_without_bus_the_push_may_be_sent_again(client: httpx.AsyncClient, deps: FakeDeps) -> None:
    deps.bus.fault = Unavailable("no bus")
    answer = await client.post("/api/metrics", json=[{"requests": 1}, {"requests": 2}])
    assert (answer.status_code, answer.json()["code"]) == (503, "unavailable")


async def test_an_item_too_large_for_the_bus(client: httpx.AsyncClient, deps: FakeDeps) -> None:
    deps.bus.fault = PayloadTooLarge(2, 1)
    answer = await client.post("/api/metrics", json={"requests": 1})
    assert answer.json()["rejected"] == [
        {"index": 0, "code": "too_large", "message": "the message is larger than 1 bytes"}
    ]


def test_reports_are_numbered_by_source_and_sources_are_bounded() -> None:
    numbers = ReportNumbers()
    boot, first = numbers.next_of("a")
    assert (first, numbers.next_of("a"), numbers.next_of("b")) == (1, (boot, 2), (boot, 1))

    for number in range(20_000):
        numbers.next_of(f"s{number}")
    later, seq = numbers.next_of("a")
    assert later != boot
    assert seq == 1


async def test_what_is_too_costly_in_a_push(client: httpx.AsyncClient, deps: FakeDeps) -> None:
    many, few, large = ["9e307"] * 101, ["9e7", "1.5e-05"] * 100, ["1"] * 150_000
    items = [f'{{"latencies":[{",".join(numbers)}]}}' for numbers in (many, few, large, ["1"])]
    answer = await client.post("/api/metrics", content=f"[{','.join(items)}]")
    assert answer.status_code == 202
    assert answer.json()["accepted"] == 2
    refused = [(item["index"], item["code"]) for item in answer.json()["rejected"]]
    assert refused == [(0, "invalid_field"), (2, "too_large")]
    assert "more than 100 numbers with an exponent of 3 digits" in answer.json()["rejected"][0]["message"]
    named = {"labels": {f"e{number}": "1e307" * 20 for number in range(16)}}
    assert (await client.post("/api/metrics", json=[named] * 3)).json()["accepted"] == 3


async def test_a_source_has_its_label_sets_once_whichever_way_it_pushes(
    client: httpx.AsyncClient, deps: FakeDeps
) -> None:
    points = [
        {"asInt": 1, "attributes": [{"key": "user", "value": {"stringValue": str(number)}}]}
        for number in range(32)
    ]
    metric = {"name": "sold", "sum": {"aggregationTemporality": 1, "isMonotonic": True, "dataPoints": points}}
    resource = {"attributes": [{"key": "service.name", "value": {"stringValue": "shop"}}]}
    export = {"resourceMetrics": [{"resource": resource, "scopeMetrics": [{"metrics": [metric]}]}]}
    assert (await client.post("/v1/metrics", json=export)).json() == {}
    answer = await client.post("/api/metrics", json={"source": "shop", "labels": {"user": "33"}})
    assert answer.json()["rejected"][0]["code"] == "conflict"
    assert [report["seq"] for _, report in deps.bus.published] == list(range(1, 33))
