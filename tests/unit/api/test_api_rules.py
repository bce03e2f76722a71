"""Rules, maintenance windows, receivers, transitions and series over HTTP."""

from typing import Any

import httpx
import pytest

from services.wire.alerting import (
    AlertRule,
    Receiver,
    ReceiverList,
    RuleList,
    TransitionList,
    Window,
    WindowList,
)
from services.wire.records import AlertTransition, MetricPoint
from services.wire.rpc import ById, Empty, HistoryQuery, Matcher, MetricsHistory, SourceInfo, SourceList
from tests.support.api import FakeDeps


async def test_rules(client: httpx.AsyncClient, deps: FakeDeps) -> None:
    deps.answers |= {
        "rules": RuleList(
            rules=[AlertRule(metric="cpu", warning=70, id="cpu", origin="builtin")], error="bad"
        ),
        "rule": lambda rule: rule,
        "unrule": Empty(),
    }
    body = (await client.get("/api/rules")).json()
    assert body["error"] == "bad"
    assert body["rules"][0] == {"metric": "cpu", "warning": 70, "id": "cpu", "origin": "builtin"}
    put = await client.put("/api/rules", json={"metric": "cpu", "warning": 5, "forS": 3, "noData": "alert"})
    assert put.status_code == 200
    assert deps.asked[-1] == AlertRule(metric="cpu", warning=5, for_s=3, no_data="alert")
    gone = await client.delete("/api/rules/errors@shop%2Feu%7Broute=%2Fa%7D")
    assert gone.status_code == 204
    assert deps.asked[-1] == ById(id="errors@shop/eu{route=/a}")


@pytest.mark.parametrize(
    "rule",
    [
        {},
        {"metric": ""},
        {"metric": "cpu", "warnig": 5},
        {"metric": "cpu", "op": ">"},
        {"metric": "cpu", "forS": -1},
    ],
)
async def test_bad_rules(client: httpx.AsyncClient, rule: dict[str, Any]) -> None:
    assert (await client.put("/api/rules", json=rule)).status_code == 400


async def test_windows(client: httpx.AsyncClient, deps: FakeDeps) -> None:
    deps.answers |= {"windows": WindowList(windows=[]), "window": lambda window: window, "unwindow": Empty()}
    asked = {
        "matchers": [{"name": "source", "value": "web-*", "op": "~"}],
        "start": "22:00",
        "end": "02:00",
        "days": ["fri"],
    }
    answer = await client.post("/api/windows", json=asked)
    assert answer.status_code == 201
    assert deps.asked[-1] == Window(
        matchers=[Matcher(name="source", value="web-*", op="~")], start="22:00", end="02:00", days=["fri"]
    )
    assert (await client.get("/api/windows")).json() == []
    assert (await client.delete("/api/windows/w1")).status_code == 204
    assert deps.asked[-1] == ById(id="w1")
    for bad in ({"start": "24:00"}, {"days": ["someday"]}, {"matchers": []}, {"end": 5}):
        assert (await client.post("/api/windows", json=asked | bad)).status_code == 400


async def test_receivers_and_transitions(client: httpx.AsyncClient, deps: FakeDeps) -> None:
    receiver = Receiver(name="webhook-1", kind="webhook", up=False, error="refused")
    step = AlertTransition(id="cpu-alert", timestamp=5, before="inactive", after="pending", reason="over")
    deps.answers |= {
        "receivers": ReceiverList(receivers=[receiver]),
        "transitions": TransitionList(transitions=[step]),
    }
    (shown,) = (await client.get("/api/receivers")).json()
    assert (shown["name"], shown["up"], shown["error"]) == ("webhook-1", False, "refused")
    assert (await client.get("/api/alerts/transitions?id=cpu-alert&limit=3")).json()[0]["reason"] == "over"
    assert (deps.asked[-1].id, deps.asked[-1].limit) == ("cpu-alert", 3)


async def test_one_metric_of_one_label_set(client: httpx.AsyncClient, deps: FakeDeps) -> None:
    deps.answers |= {
        "history": MetricsHistory(rows=[], points=[MetricPoint(timestamp=1, value=2.0)]),
        "sources": SourceList(sources=[SourceInfo(source="shop", last_seen=9)]),
    }
    answer = await client.get(
        "/api/metrics/history", params={"metric": "size.p95", "source": 'shop{route="/a"}', "step": "60"}
    )
    assert answer.json() == [{"timestamp": 1, "value": 2.0}]
    assert deps.asked[-1] == HistoryQuery(metric="size.p95", source='shop{route="/a"}', step=60)
    assert (await client.get("/api/metrics/history?metric=a%20b")).status_code == 400
    assert (await client.get("/api/metrics/sources")).json() == [{"source": "shop", "lastSeen": 9}]
