"""Notifications: the body, silences, retries."""

from typing import Any

import msgspec
import pytest

from metrics_svc import webhook
from metrics_svc.alerts.rules_file import RulesFile
from metrics_svc.clock import FleetClock
from metrics_svc.store import Tick
from metrics_svc.store_memory import MemoryStore
from metrics_svc.webhook import Webhooks, body, source_of
from services.wire.records import Alert, AlertLogEntry
from services.wire.rpc import Matcher, Silence
from services.wire.server import AlertRaised, AlertResolved
from tests.support.metrics import T0, ManualTime

URL = "http://receiver.test/hook"


def alert(at: int = T0, id: str = "cpu-alert", severity: str = "critical") -> Alert:
    return Alert(
        id=id,
        type=severity,  # type: ignore[arg-type]
        metric="cpu",
        value=95.5,
        threshold=90.0,
        message="cpu is 95.5 %, critical at 90",
        timestamp=at * 1000,
    )


class Receiver:
    """Takes what would be posted; fails as often as told."""

    def __init__(self) -> None:
        self.got: list[dict[str, Any]] = []
        self.failures = 0

    def post(self, url: str, data: bytes) -> None:
        if self.failures:
            self.failures -= 1
            raise ConnectionRefusedError("down")
        self.got.append(msgspec.json.decode(data))


@pytest.fixture
def receiver(monkeypatch: pytest.MonkeyPatch) -> Receiver:
    receiver = Receiver()
    monkeypatch.setattr(webhook, "_post", receiver.post)
    monkeypatch.setattr(webhook, "PAUSES_S", (0.0, 0.0))
    return receiver


@pytest.fixture
def store() -> MemoryStore:
    return MemoryStore(ManualTime())


@pytest.fixture
def webhooks(store: MemoryStore) -> Webhooks:
    return Webhooks([URL], store, FleetClock(ManualTime(), ManualTime()), RulesFile(None))


def test_the_body_is_alertmanagers_version_4() -> None:
    said = body(alert(), {"team": "ops"}, T0 * 1000, firing=True)
    assert (said["version"], said["status"], said["receiver"]) == ("4", "firing", "tidings")
    (one,) = said["alerts"]
    assert one["labels"] == {
        "alertname": "cpu",
        "alert_id": "cpu-alert",
        "severity": "critical",
        "team": "ops",
    }
    assert one["annotations"]["summary"] == "cpu is 95.5 %, critical at 90"
    assert (one["startsAt"], one["endsAt"]) == ("2023-11-14T22:14:00.000Z", "0001-01-01T00:00:00Z")
    other = body(alert(severity="warning"), {}, T0 * 1000, firing=True)
    assert other["alerts"][0]["fingerprint"] == one["fingerprint"]


def test_source_of() -> None:
    assert source_of(alert()) == ""
    assert source_of(alert(id="cpu-web-1-alert")) == "web-1"


async def test_firing_and_resolved_name_the_same_start(
    webhooks: Webhooks, store: MemoryStore, receiver: Receiver
) -> None:
    term = (await store.acquire("a", 10**6)).term
    fields = msgspec.structs.asdict(alert()) | {"state": "resolved", "started_at": T0 * 1000}
    entry = AlertLogEntry(**fields | {"ended_at": (T0 + 9) * 1000})
    await store.write("a", term, Tick(T0 + 9, [], entries=[entry]))
    await webhooks.handle(AlertRaised(data=alert()))
    await webhooks.handle(AlertResolved(data=alert(T0 + 9)))
    firing, resolved = receiver.got
    assert firing["alerts"][0]["startsAt"] == resolved["alerts"][0]["startsAt"]
    assert resolved["status"] == "resolved"
    assert resolved["alerts"][0]["endsAt"] == "2023-11-14T22:14:09.000Z"


async def test_a_silenced_alert_is_not_posted(
    webhooks: Webhooks, store: MemoryStore, receiver: Receiver
) -> None:
    silence = Silence(
        id="s",
        matchers=[Matcher(name="metric", value="cpu")],
        starts_at=0,
        ends_at=(T0 + 100) * 1000,
    )
    await store.put_silence(silence, 0)
    await webhooks.handle(AlertRaised(data=alert()))
    assert receiver.got == []
    await store.end_silence("s")
    await webhooks.handle(AlertRaised(data=alert()))
    assert len(receiver.got) == 1


async def test_a_receiver_that_is_down_is_tried_again(webhooks: Webhooks, receiver: Receiver) -> None:
    receiver.failures = 2
    await webhooks.handle(AlertRaised(data=alert()))
    assert len(receiver.got) == 1
    receiver.failures = 3
    await webhooks.handle(AlertRaised(data=alert()))
    assert len(receiver.got) == 1


@pytest.mark.parametrize("url", ["file:///etc/passwd", "ftp://x/y", "receiver"])
def test_only_http(url: str) -> None:
    with pytest.raises(ValueError, match="http"):
        webhook._post(url, b"{}")
