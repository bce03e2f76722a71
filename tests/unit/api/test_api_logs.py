"""Applications push log lines over HTTP, and read the stream."""

import time
from typing import Any

import httpx

from services.bus.errors import Unavailable
from services.wire.rpc import LogPage, LogQuery
from tests.support.api import FakeDeps


async def test_one_line(client: httpx.AsyncClient, deps: FakeDeps) -> None:
    now_ms = int(time.time() * 1000)
    line = {"event": "paid", "level": "error", "source": "shop", "timestamp": now_ms, "fields": {"order": 7}}
    answer = await client.post("/api/logs", json=line)
    assert (answer.status_code, answer.json()) == (202, {"accepted": 1, "rejected": []})
    ((subject, report),) = deps.bus.published
    assert subject == "tidings.logs.report.app"
    assert report == {"type": "log_report", "source": "shop", "entries": [line]}


async def test_an_array_keeps_the_good_names_the_bad_and_sorts_by_source(
    client: httpx.AsyncClient, deps: FakeDeps
) -> None:
    lines: list[Any] = [
        {"event": "a"}, {"event": ""}, {"level": "info"}, {"event": "b", "level": "fatal"}, 5,
        {"event": "c", "source": "x"}, {"event": "d", "timestamp": 1}, {"event": "e" * 5000},
        {"event": "f", "fields": {"big": "x" * 9000}}, {"event": "g", "source": "a\nb"}, {"event": "h"},
    ]  # fmt: skip
    answer = await client.post("/api/logs", json=lines)
    body = answer.json()
    assert (answer.status_code, body["accepted"]) == (202, 3)
    assert [item["index"] for item in body["rejected"]] == [1, 2, 3, 4, 6, 7, 8, 9]
    assert all(item["message"] for item in body["rejected"])
    assert {
        report["source"]: [line["event"] for line in report["entries"]] for _, report in deps.bus.published
    } == {
        "app": ["a", "h"],
        "x": ["c"],
    }


async def test_many_lines_go_in_messages_the_bus_takes(client: httpx.AsyncClient, deps: FakeDeps) -> None:
    await client.post(
        "/api/logs", json=[{"event": f"e{at}", "fields": {"x": "y" * 100}} for at in range(1000)]
    )
    assert [len(report["entries"]) for _, report in deps.bus.published] == [50] * 20


async def test_nothing_good_is_an_error(client: httpx.AsyncClient) -> None:
    answer = await client.post("/api/logs", json={"event": 5})
    assert (answer.status_code, answer.json()["accepted"]) == (400, 0)
    assert (await client.post("/api/logs", content=b"{" * 10)).status_code == 400
    assert (await client.post("/api/logs", content=b"x" * 10_000_000)).status_code == 413


async def test_without_bus_the_push_may_be_sent_again(client: httpx.AsyncClient, deps: FakeDeps) -> None:
    deps.bus.fault = Unavailable("no bus")
    assert (await client.post("/api/logs", json={"event": "a"})).status_code == 503


async def test_reading_by_source_and_level(client: httpx.AsyncClient, deps: FakeDeps) -> None:
    deps.answers["logs"] = LogPage(entries=[])
    assert (await client.get("/api/logs?limit=5&source=shop&level=warning")).json() == []
    assert deps.asked == [LogQuery(limit=5, source="shop", level="warning")]
    assert (await client.get("/api/logs?level=loud")).status_code == 400
