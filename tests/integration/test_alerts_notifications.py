"""Notifications from real processes: webhooks over a replica's death, a real Alertmanager, services through apprise."""

import subprocess
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import httpx
import pytest

from services.settings import Settings
from services.wire import alerting, rpc
from tests.support.deadline import PATIENCE_S, eventually
from tests.support.metrics_fleet import Fleet
from tests.support.requires import need
from tests.support.webhook_receiver import WebhookReceiver
from tidings_cli.local.processes import free_port

pytestmark = pytest.mark.timeout(120)

QUICK = {"TIDINGS_NOTIFY_GROUP_WAIT_S": "0", "TIDINGS_NOTIFY_GROUP_INTERVAL_S": "1"}
HOT, COOL = {"cpu": 95}, {"cpu": 5}


@pytest.fixture
async def fleet(make_settings: Callable[..., Settings], tmp_path: Path) -> AsyncIterator[Fleet]:
    async with Fleet(make_settings(), tmp_path) as running:
        yield running


async def test_posted_when_it_fires_and_when_it_ends(fleet: Fleet, receiver: WebhookReceiver) -> None:
    await fleet.leader(fleet.start(TIDINGS_WEBHOOK_URLS=receiver.url, **QUICK))
    await fleet.report_until(lambda: receiver.bodies, "the notification", gauges=HOT)
    await fleet.report_until(lambda: len(receiver.bodies) > 1, "the end of it", gauges=COOL)
    assert [body["status"] for body in receiver.bodies] == ["firing", "resolved"]
    firing, resolved = (body["alerts"][0] for body in receiver.bodies)
    assert firing["fingerprint"] == resolved["fingerprint"]
    assert firing["startsAt"] == resolved["startsAt"] < resolved["endsAt"]
    assert len(set(receiver.keys)) == 2
    (shown,) = (await fleet.ask(alerting.RECEIVERS_LIST, rpc.Empty())).receivers
    assert (shown.name, shown.up, shown.error) == ("webhook-1", True, "")
    assert shown.last_success > 0


async def test_a_receiver_that_is_down_is_shown_and_notified_later(
    fleet: Fleet, receiver: WebhookReceiver
) -> None:
    receiver.status = 503
    health = free_port()
    service = fleet.start(TIDINGS_WEBHOOK_URLS=receiver.url, TIDINGS_HEALTH_PORT=str(health), **QUICK)
    await fleet.leader(service)
    await fleet.report_until(lambda: len(receiver.bodies) > 1, "two attempts", gauges=HOT)

    async def shown() -> bool:
        receivers = (await fleet.ask(alerting.RECEIVERS_LIST, rpc.Empty())).receivers
        return [(one.up, one.error, one.waiting) for one in receivers] == [(False, "HTTP 503", 1)]

    await eventually(shown, "the receiver shown as down")
    async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{health}", timeout=PATIENCE_S) as client:
        assert (await client.get("/readyz")).json()["details"]["receivers_down"] == ["webhook-1"]
        assert 'tidings_notify_receiver_up{receiver="webhook-1"} 0.0' in (await client.get("/metrics")).text
    assert len(set(receiver.keys)) == 1  # every attempt is the same message
    attempts = len(receiver.bodies)
    receiver.status = 200
    await fleet.report_until(lambda: len(receiver.bodies) > attempts, "the next attempt", gauges=HOT)
    await eventually(lambda: service.logged("receiver is up again"), "the recovery in the log")


async def test_at_least_once_over_a_replicas_death_and_with_the_same_key(
    fleet: Fleet, receiver: WebhookReceiver
) -> None:
    first, second = (fleet.start(TIDINGS_WEBHOOK_URLS=receiver.url, **QUICK) for _ in range(2))
    leader = await fleet.leader(first, second)
    receiver.drip_s = 60.0  # it took the message, and the replica dies before it hears of that
    await fleet.report_until(lambda: receiver.bodies, "the notification", gauges=HOT)
    leader.kill()
    receiver.drip_s = 0.0
    await fleet.report_until(lambda: len(receiver.bodies) > 1, "the same again", gauges=HOT)
    assert receiver.keys[0] == receiver.keys[1] != ""
    assert receiver.bodies[0]["alerts"][0]["startsAt"] == receiver.bodies[1]["alerts"][0]["startsAt"]
    await fleet.report_until(lambda: receiver.bodies[-1]["status"] == "resolved", "the end", gauges=COOL)
    # At least once: however often it came, it is one message, and the end is another.
    assert set(receiver.keys[:-1]) == {receiver.keys[0]} != {receiver.keys[-1]}, receiver.bodies


async def test_a_resolve_between_two_replicas_is_notified(fleet: Fleet, receiver: WebhookReceiver) -> None:
    leader = await fleet.leader(fleet.start(TIDINGS_WEBHOOK_URLS=receiver.url, **QUICK))
    await fleet.report_until(lambda: receiver.bodies, "the notification", gauges=HOT)
    await eventually(lambda: leader.logged("notified"), "its success noted")
    leader.kill()
    await fleet.leader(fleet.start(TIDINGS_WEBHOOK_URLS=receiver.url, **QUICK))
    await fleet.report_until(lambda: len(receiver.bodies) > 1, "the end", gauges=COOL)
    assert [body["status"] for body in receiver.bodies] == ["firing", "resolved"]


async def test_rules_windows_and_silences_by_api(fleet: Fleet, receiver: WebhookReceiver) -> None:
    await fleet.leader(fleet.start(TIDINGS_WEBHOOK_URLS=receiver.url, **QUICK))
    shop = {"source": "shop", "kind": "app", "gauges": {"depth": 7.0}}
    everyday = alerting.Window(
        matchers=[rpc.Matcher(name="source", value="sh*", op="~")], start="00:00", end="00:00"
    )
    window = await fleet.ask(alerting.WINDOWS_SET, everyday)
    rule = await fleet.ask(
        alerting.RULES_SET,
        alerting.AlertRule(metric="depth", source="*", warning=5, clear_for_s=0, labels={"team": "a"}),
    )
    assert (rule.id, rule.origin) == ("depth@*", "api")
    await fleet.report_until(lambda: fleet.alerts, "the alert", **shop)
    assert fleet.alerts[0].data.labels == {"team": "a"}
    (active,) = (await fleet.ask(rpc.ALERTS_ACTIVE, rpc.Empty())).alerts
    assert active.muted_by == [window.id]
    seconds = len(fleet.ticks)
    await fleet.report_until(lambda: len(fleet.ticks) > seconds + 2, "seconds without a word", **shop)
    assert receiver.bodies == []
    await fleet.ask(alerting.WINDOWS_END, rpc.ById(id=window.id))
    await fleet.report_until(lambda: receiver.bodies, "the notification after the window", **shop)
    assert receiver.bodies[0]["commonLabels"]["team"] == "a"
    assert receiver.bodies[0]["commonLabels"]["source"] == "shop"
    await fleet.ask(alerting.RULES_END, rpc.ById(id=rule.id))
    await fleet.report_until(
        lambda: len(fleet.alerts) > 1, "the end of a rule is the end of its alert", **shop
    )
    steps = (await fleet.ask(alerting.ALERTS_TRANSITIONS, alerting.TransitionQuery())).transitions
    assert [(step.after, step.reason) for step in reversed(steps)] == [
        ("firing", "over a threshold for long enough"),
        ("resolved", "the rule was removed"),
    ]


@pytest.fixture
def alertmanager(tmp_path: Path) -> Iterator[tuple[str, Callable[[str], None]]]:
    """A real Alertmanager, and how to give it its webhook: it is started then."""
    binary = need("prometheus-alertmanager", "Debian: apt-get install prometheus-alertmanager")
    port = free_port()
    running: list[subprocess.Popen[bytes]] = []

    def start(hook: str) -> None:
        config = tmp_path / "alertmanager.yml"
        config.write_text(
            "route: {receiver: receiver, group_by: [alertname], group_wait: 100ms, group_interval: 500ms}\n"
            f"receivers: [{{name: receiver, webhook_configs: [{{url: '{hook}'}}]}}]\n"
        )
        with (tmp_path / "alertmanager.log").open("wb") as output:
            running.append(
                subprocess.Popen(
                    [
                        binary, f"--config.file={config}", f"--storage.path={tmp_path / 'am'}",
                        f"--web.listen-address=127.0.0.1:{port}", "--cluster.listen-address=",
                    ],
                    stdout=output, stderr=output,
                )
            )  # fmt: skip

    yield f"http://127.0.0.1:{port}", start
    for process in running:
        process.terminate()
        process.wait(PATIENCE_S)


async def test_a_real_alertmanager_takes_over(
    fleet: Fleet, receiver: WebhookReceiver, alertmanager: tuple[str, Callable[[str], None]]
) -> None:
    """Its webhook, whose body format ours has, sends what it received; and severities replace each other."""
    url, start = alertmanager
    start(receiver.url)
    async with httpx.AsyncClient(base_url=url, timeout=PATIENCE_S) as client:

        async def ready() -> bool:
            try:
                return (await client.get("/-/ready")).status_code == 200
            except httpx.TransportError:
                return False

        async def alerts() -> list[tuple[str, str]]:
            found = (await client.get("/api/v2/alerts")).json()
            return [(alert["labels"]["alertname"], alert["labels"]["severity"]) for alert in found]

        await eventually(ready, "Alertmanager")
        await fleet.leader(fleet.start(TIDINGS_ALERTMANAGER_URLS=url))
        await fleet.report_until(lambda: receiver.bodies, "its webhook", gauges={"cpu": 75})
        assert await alerts() == [("cpu", "warning")]
        await fleet.report_until(
            lambda: any(alert["labels"]["severity"] == "critical" for alert in receiver.bodies[-1]["alerts"]),
            "the other severity",
            gauges=HOT,
        )
        assert await alerts() == [("cpu", "critical")]
        await fleet.report_until(lambda: receiver.bodies[-1]["status"] == "resolved", "the end", gauges=COOL)
        assert await alerts() == []
    first = receiver.bodies[0]
    assert first["version"] == "4"
    assert first["alerts"][0]["annotations"]["summary"].startswith("cpu is 75")


async def test_services_through_apprise(fleet: Fleet, receiver: WebhookReceiver) -> None:
    pytest.importorskip("apprise")
    url = receiver.url.replace("http://", "json://")
    service = fleet.start(TIDINGS_NOTIFY_URLS=f"{url},nonsense://x", **QUICK)
    await fleet.leader(service)
    await fleet.report_until(lambda: receiver.bodies, "the message", gauges=HOT)
    message = receiver.bodies[0]
    assert message["title"] == "[critical] cpu"
    assert "cpu is 95 %, critical at 90" in message["message"]
    assert message["type"] == "failure"

    async def shown() -> dict[str, str]:
        receivers = (await fleet.ask(alerting.RECEIVERS_LIST, rpc.Empty())).receivers
        return {one.name: one.error for one in receivers if not one.up}

    assert await eventually(shown, "the receiver that cannot work") == {
        "apprise-2": "apprise does not know this kind of URL"
    }
    assert "nonsense" not in service.log.read_text()
