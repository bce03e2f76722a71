"""Alerts, acknowledgements and silences over HTTP."""

import time
from typing import Any

import httpx
import pytest

from services.bus.errors import RequestRefused
from services.wire.records import Alert, AlertLogEntry
from services.wire.rpc import AlertAck, AlertList, AlertLog, ById, Empty, Matcher, Silence, SilenceList
from tests.support.api import FakeDeps

ALERT = Alert(
    id="cpu-alert",
    type="warning",
    metric="cpu",
    value=71.0,
    threshold=70.0,
    message="cpu is high",
    timestamp=5,
)
AS_JSON = {
    "id": "cpu-alert", "type": "warning", "metric": "cpu", "value": 71.0, "threshold": 70.0,
    "message": "cpu is high", "timestamp": 5,
}  # fmt: skip


async def test_active_alerts(client: httpx.AsyncClient, deps: FakeDeps) -> None:
    deps.answers["alerts"] = AlertList(alerts=[ALERT])
    assert (await client.get("/api/alerts")).json() == [AS_JSON]


async def test_history(client: httpx.AsyncClient, deps: FakeDeps) -> None:
    entry = AlertLogEntry(
        id="cpu-alert", type="warning", metric="cpu", value=71.0, threshold=70.0, message="cpu is high",
        timestamp=5, state="resolved", started_at=5, ended_at=9,
    )  # fmt: skip
    deps.answers["alert_log"] = AlertLog(entries=[entry])
    answer = await client.get("/api/alerts/history?limit=3")
    assert answer.json() == [AS_JSON | {"state": "resolved", "startedAt": 5, "endedAt": 9}]
    assert deps.asked[0].limit == 3


@pytest.mark.parametrize(("body", "by"), [(b"", ""), (b'{"by":"ada","comment":"on it"}', "ada")])
async def test_acknowledging(client: httpx.AsyncClient, deps: FakeDeps, body: bytes, by: str) -> None:
    deps.answers["ack"] = ALERT
    answer = await client.post("/api/alerts/cpu-web%2F1-alert/ack", content=body)

    assert answer.json() == AS_JSON
    assert deps.asked == [AlertAck(id="cpu-web/1-alert", by=by, comment="on it" if by else "")]


async def test_acknowledging_what_is_not_active(client: httpx.AsyncClient, deps: FakeDeps) -> None:
    deps.answers["ack"] = RequestRefused("not_found", "no such active alert")
    answer = await client.post("/api/alerts/nothing/ack")
    assert (answer.status_code, answer.json()["message"]) == (404, "no such active alert")


async def test_silences_can_be_listed_and_ended(client: httpx.AsyncClient, deps: FakeDeps) -> None:
    matchers = [Matcher(name="metric", value="cpu")]
    deps.answers["silences"] = SilenceList(
        silences=[Silence(id="s", matchers=matchers, starts_at=1, ends_at=2)]
    )
    deps.answers["unsilence"] = Empty()

    listed = (await client.get("/api/silences")).json()
    assert listed == [
        {"id": "s", "matchers": [{"name": "metric", "value": "cpu"}], "startsAt": 1, "endsAt": 2}
    ]
    assert (await client.delete("/api/silences/s")).status_code == 204
    assert deps.asked[-1] == ById(id="s")


async def test_a_silence_with_a_duration(client: httpx.AsyncClient, deps: FakeDeps) -> None:
    deps.answers["silence"] = lambda silence: silence
    before = int(time.time() * 1000)
    body = {
        "matchers": [{"name": "metric", "value": "cpu"}],
        "duration": 60,
        "comment": "deploy",
        "createdBy": "ada",
    }
    answer = await client.post("/api/silences", json=body)

    asked = deps.asked[0]
    assert answer.status_code == 201
    assert asked.ends_at - asked.starts_at == 60_000
    assert before <= asked.starts_at <= before + 10_000
    assert (asked.comment, asked.created_by) == ("deploy", "ada")


@pytest.mark.parametrize(
    "change",
    [
        {"matchers": []},
        {"matchers": [{"name": "", "value": "x"}]},
        {"matchers": [{"name": "x"}]},
        {"matchers": [{"name": "x", "value": "y"}] * 21},
        {"duration": 0},
        {"duration": 10**9},
        {"endsAt": 99_999_999_999_999},
        {"duration": None},
        {"comment": "x" * 1001},
        {"startsAt": -1},
        {"startsAt": 1, "duration": 1},
    ],
)
async def test_silences_that_are_none(
    client: httpx.AsyncClient, deps: FakeDeps, change: dict[str, Any]
) -> None:
    body = {"matchers": [{"name": "metric", "value": "cpu"}], "duration": 60} | change
    answer = await client.post("/api/silences", json=body)
    assert (answer.status_code, answer.json()["code"]) == (400, "invalid_field")
    assert deps.asked == []
