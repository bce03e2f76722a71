"""Alerts posted to receivers, in the body of Alertmanager's webhooks (version 4): what reads those reads
ours.

A notification is tried a few times and then given up and counted; while many wait, the oldest go. It is the
business of the replica that ticks: one that dies between publishing an alert and posting it posts nothing.
The format: https://prometheus.io/docs/alerting/latest/configuration/#webhook_config
"""

import asyncio
import hashlib
import urllib.error
import urllib.request
from collections import deque
from datetime import UTC, datetime
from typing import Any

import msgspec
import structlog

from metrics_svc.alerts.rules import FLEET
from metrics_svc.alerts.rules_file import RulesFile
from metrics_svc.alerts.silences import silencing
from metrics_svc.clock import FleetClock
from metrics_svc.store import MAX_EPISODES, MetricsStore, StoreUnavailable
from services import telemetry
from services.telemetry import MetricName
from services.wire.events import AlertEvent
from services.wire.records import UNSET, Alert, AlertLogEntry
from services.wire.server import AlertRaised

log = structlog.get_logger(__name__)

RECEIVER = "tidings"
MAX_WAITING = 1000
ATTEMPT_S = 5.0
PAUSES_S = (1.0, 4.0, 15.0)
_NEVER = "0001-01-01T00:00:00Z"


def _rfc3339(ms: int) -> str:
    return datetime.fromtimestamp(ms / 1000, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def source_of(alert: Alert) -> str:
    """Return the source an alert is about, empty for the fleet (see `Rule.alert_id`)."""
    return (
        alert.id.removeprefix(f"{alert.metric}-").removesuffix("-alert")
        if alert.id != f"{alert.metric}-alert"
        else FLEET
    )


def body(alert: Alert, labels: dict[str, str], started_at: int, *, firing: bool) -> dict[str, Any]:
    """Return the body for one alert. Its fingerprint stays the same when its severity changes."""
    status = "firing" if firing else "resolved"
    own = {"alertname": alert.metric, "alert_id": alert.id, "severity": alert.type}
    if source := source_of(alert):
        own["source"] = source
    all_labels = labels | own
    annotations = {"summary": alert.message, "value": f"{alert.value:g}", "threshold": f"{alert.threshold:g}"}
    return {
        "version": "4",
        "groupKey": f'{{}}:{{alert_id="{alert.id}"}}',
        "truncatedAlerts": 0,
        "status": status,
        "receiver": RECEIVER,
        "groupLabels": {"alert_id": alert.id},
        "commonLabels": all_labels,
        "commonAnnotations": annotations,
        "externalURL": "",
        "alerts": [
            {
                "status": status,
                "labels": all_labels,
                "annotations": annotations,
                "startsAt": _rfc3339(started_at),
                "endsAt": _NEVER if firing else _rfc3339(alert.timestamp),
                "generatorURL": "",
                "fingerprint": hashlib.sha256(alert.id.encode()).hexdigest()[:16],
            }
        ],
    }


def _post(url: str, data: bytes) -> None:
    """Post JSON. Raises OSError (of which URLError, HTTPError and TimeoutError are kinds) or ValueError."""
    if not url.startswith(("http://", "https://")):
        raise ValueError("not an http or https URL")
    request = urllib.request.Request(url, data, {"Content-Type": "application/json"})  # noqa: S310  # checked above
    with urllib.request.urlopen(request, timeout=ATTEMPT_S) as answer:  # noqa: S310  # checked above
        answer.read(1024)


class Webhooks:
    """Posts alert events to every URL, in order."""

    def __init__(self, urls: list[str], store: MetricsStore, clock: FleetClock, rules: RulesFile) -> None:
        self._urls = urls
        self._store = store
        self._clock = clock
        self._rules = rules
        self._waiting: deque[AlertEvent] = deque()
        self._arrived = asyncio.Event()

    def notify(self, events: list[AlertEvent]) -> None:
        """Post these as soon as may be."""
        if not self._urls:
            return
        self._waiting.extend(events)
        while len(self._waiting) > MAX_WAITING:
            self._waiting.popleft()
            _count("dropped")
        self._arrived.set()

    async def run(self) -> None:
        """Post what arrives, for ever."""
        while True:
            await self._arrived.wait()
            self._arrived.clear()
            while self._waiting:
                await self.handle(self._waiting.popleft())

    async def handle(self, event: AlertEvent) -> None:
        """Post one event to every receiver, unless it is silenced."""
        alert, firing = event.data, isinstance(event, AlertRaised)
        rule = self._rules.rules.find(alert.metric, source_of(alert))
        labels = dict(rule.labels) if rule is not None else {}
        started_at = alert.timestamp
        try:
            now = int(self._clock.now() * 1000)
            silence = silencing(await self._store.silences(now), alert, labels, now)
            entry = _episode(await self._store.episodes(MAX_EPISODES), alert, firing)
            started_at = entry.started_at if entry is not None else started_at
        except StoreUnavailable:
            silence = None  # better one notification too many than one too few
        if silence is not None:
            log.info("notification silenced", alert=alert.id, silence=silence.id)
            _count("silenced")
            return
        data = msgspec.json.encode(body(alert, labels, started_at, firing=firing))
        await asyncio.gather(*(self._deliver(number, url, data) for number, url in enumerate(self._urls)))

    async def _deliver(self, number: int, url: str, data: bytes) -> None:
        reason = ""
        for pause_s in (*PAUSES_S, None):
            try:
                await asyncio.to_thread(_post, url, data)
            except (OSError, ValueError) as fault:
                reason = str(fault)
            else:
                _count("sent")
                return
            if pause_s is not None:
                await asyncio.sleep(pause_s)
        _count("failed")
        # By number: the URL of a webhook usually contains its secret.
        log.error("notification not delivered", receiver=number, reason=reason)


def _episode(entries: list[AlertLogEntry], alert: Alert, firing: bool) -> AlertLogEntry | None:
    """Return the line of the log that an event belongs to."""
    for entry in entries:
        ended = entry.ended_at if entry.ended_at is not UNSET else None
        if entry.id == alert.id and (firing or ended == alert.timestamp):
            return entry
    return None


def _count(outcome: str) -> None:
    telemetry.counter(MetricName.WEBHOOKS).labels(outcome).inc()
