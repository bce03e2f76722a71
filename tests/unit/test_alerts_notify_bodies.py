"""Bodies of notifications: Alertmanager's webhook body, posts to an Alertmanager, plain text."""

import msgspec

from metrics_svc.notify.integrations import MAX_ALERTS, VALID_S, alertmanager_alerts, webhook_body
from metrics_svc.notify.notification import Notification, text, title
from services.wire.records import AlertLogEntry
from tests.support.metrics import T0
from tests.support.notifying import entry

WARNING = entry("cpu-alert", "warning", team="ops")
CRITICAL = entry("cpu-alert", "critical", team="ops")
ENDED = entry("cpu-web-alert", "warning", source="web", ended=T0 + 60)


def message(firing: list[AlertLogEntry], ended: list[AlertLogEntry], **more: object) -> Notification:
    return Notification("webhook-1", '{}:{alertname="cpu"}', {"alertname": "cpu"}, firing, ended, "k", **more)  # type: ignore[arg-type]


def test_the_body_is_alertmanagers_version_4() -> None:
    said = webhook_body(message([CRITICAL], [ENDED], external_url="https://t.example"))
    assert {name: said[name] for name in said if name not in ("alerts", "commonAnnotations")} == {
        "version": "4",
        "groupKey": '{}:{alertname="cpu"}',
        "truncatedAlerts": 0,
        "status": "firing",
        "receiver": "webhook-1",
        "groupLabels": {"alertname": "cpu"},
        "commonLabels": {"alertname": "cpu"},
        "externalURL": "https://t.example",
    }
    assert said["alerts"][0] == {
        "status": "firing",
        "labels": {"alertname": "cpu", "alert_id": "cpu-alert", "severity": "critical", "team": "ops"},
        "annotations": {"summary": "cpu-alert is high", "value": "95", "threshold": "90"},
        "startsAt": "2023-11-14T22:14:00.000Z",
        "endsAt": "0001-01-01T00:00:00Z",
        "generatorURL": "https://t.example",
        "fingerprint": said["alerts"][0]["fingerprint"],
    }
    assert said["alerts"][1]["status"] == "resolved"
    assert said["alerts"][1]["endsAt"] == "2023-11-14T22:15:00.000Z"
    assert webhook_body(message([], [ENDED]))["status"] == "resolved"


def test_the_fingerprint_is_the_same_when_the_severity_changes() -> None:
    one, other = (
        webhook_body(message([line], []))["alerts"][0]["fingerprint"] for line in (WARNING, CRITICAL)
    )
    assert one == other


def test_large_groups_are_cut_with_a_note() -> None:
    many = [entry(f"cpu-{at}-alert") for at in range(MAX_ALERTS + 7)]
    said = webhook_body(message(many, []))
    assert (len(said["alerts"]), said["truncatedAlerts"]) == (MAX_ALERTS, 7)


def test_alertmanager_gets_firing_resolved_and_replaced_alerts() -> None:
    now = (T0 + 100) * 1000
    firing, replaced, ended = alertmanager_alerts(message([CRITICAL], [ENDED], replaced=[WARNING]), now)
    assert firing["labels"]["severity"] == "critical"
    assert firing["endsAt"] == "2023-11-14T22:19:40.000Z"
    assert VALID_S == 240
    assert (replaced["labels"]["severity"], replaced["endsAt"]) == ("warning", "2023-11-14T22:15:40.000Z")
    assert ended["endsAt"] == "2023-11-14T22:15:00.000Z"
    msgspec.json.encode(firing)


def test_plain_text() -> None:
    both = message([WARNING, CRITICAL], [ENDED], external_url="https://t.example")
    assert title(both) == "[critical] cpu, cpu-web"
    assert title(message([], [ENDED])) == "[resolved] cpu-web"
    assert title(message([entry(f"a{at}-alert") for at in range(5)], [])) == "[warning] a0, a1, a2 and 2 more"
    assert text(both).splitlines() == [
        "warning: cpu-alert is high (since 2023-11-14T22:14:00.000Z)",
        "critical: cpu-alert is high (since 2023-11-14T22:14:00.000Z)",
        "resolved: cpu-web-alert is high (ended 2023-11-14T22:15:00.000Z)",
        "https://t.example",
    ]
