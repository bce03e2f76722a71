"""The configured receivers, and the status of each."""

import asyncio
from dataclasses import dataclass, field
from typing import Literal

import msgspec
import structlog

from metrics_svc.notify.decision import NotifyTimings
from metrics_svc.notify.integrations import (
    ALERTMANAGER_TIMINGS,
    MAX_CONCURRENT,
    AlertmanagerIntegration,
    AppriseIntegration,
    Integration,
    WebhookIntegration,
)
from metrics_svc.notify.notification import Notification
from services import telemetry
from services.backoff import delay_s
from services.settings import Settings
from services.telemetry import MetricName
from services.webhooks import NotTaken
from services.wire.alerting import Receiver

log = structlog.get_logger(__name__)

FIRST_BACKOFF_S = 1.0
MAX_BACKOFF_S = 60.0

Kind = Literal["webhook", "alertmanager", "apprise"]


@dataclass(slots=True)
class ConfiguredReceiver:
    """One receiver. `delegates_policy`: it silences, inhibits and groups by itself, so it gets everything."""

    status: Receiver
    integration: Integration
    timings: NotifyTimings
    delegates_policy: bool = False
    _slots: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(MAX_CONCURRENT))

    @property
    def name(self) -> str:
        """Kind and number: the address usually is a secret."""
        return self.status.name

    async def send(self, notification: Notification) -> None:
        """Deliver one message, `MAX_CONCURRENT` at a time. Raises NotTaken."""
        async with self._slots:
            await self.integration.send(notification)

    def restore(self, stored: Receiver | None) -> None:
        """Continue from the status that an earlier leader stored."""
        if stored is not None and self.status.up:
            self.status = stored
        self._set()

    def succeeded(self, now: int) -> None:
        """Note a message delivered at `now` (ms)."""
        if not self.status.up:
            log.info("receiver is up again", receiver=self.name, failures=self.status.failures)
        self._set(up=True, failures=0, error="", last_success=now)
        telemetry.counter(MetricName.NOTIFICATIONS).labels(self.name, "sent").inc()

    def failed(self, fault: NotTaken, now: int) -> None:
        """Note a message not delivered at `now` (ms)."""
        reason = str(fault)
        if not fault.retry:
            log.error("receiver refused a notification", receiver=self.name, reason=reason)
        elif self.status.up:
            log.error("receiver is down; its notifications are delayed", receiver=self.name, reason=reason)
        self._set(up=False, failures=self.status.failures + 1, error=reason, last_failure=now)
        outcome = "failed" if fault.retry else "refused"
        telemetry.counter(MetricName.NOTIFICATIONS).labels(self.name, outcome).inc()

    def set_waiting(self, groups: int) -> bool:
        """Set the number of groups that wait; return whether it changed."""
        changed = groups != self.status.waiting
        self._set(waiting=groups)
        return changed

    def _set(self, **changes: object) -> None:
        self.status = msgspec.structs.replace(self.status, **changes)
        telemetry.gauge(MetricName.NOTIFY_RECEIVER_UP).labels(self.name).set(self.status.up)


def backoff_s(failures: int) -> float:
    """Pause after so many failed attempts: exponential with jitter."""
    return delay_s(failures - 1, FIRST_BACKOFF_S, MAX_BACKOFF_S, jitter=0.2)


def configured_receivers(settings: Settings) -> list[ConfiguredReceiver]:
    """Receivers of the settings, named by kind and number."""
    timings = NotifyTimings(
        tuple(settings.notify_group_by),
        settings.notify_group_wait_s,
        settings.notify_group_interval_s,
        settings.notify_repeat_interval_s,
    )
    receivers = [
        ConfiguredReceiver(_named("webhook", number), WebhookIntegration(url), timings)
        for number, url in enumerate(settings.webhook_urls, 1)
    ]
    receivers += [
        ConfiguredReceiver(
            _named("alertmanager", number),
            AlertmanagerIntegration(url),
            ALERTMANAGER_TIMINGS,
            delegates_policy=True,
        )
        for number, url in enumerate(settings.alertmanager_urls, 1)
    ]
    for number, url in enumerate(settings.notify_urls, 1):
        integration = AppriseIntegration(url.get_secret_value())
        status = _named("apprise", number)
        if integration.error:
            log.error("receiver cannot be used", receiver=status.name, reason=integration.error)
            status = msgspec.structs.replace(status, up=False, error=integration.error)
        receivers.append(ConfiguredReceiver(status, integration, timings))
    return receivers


def _named(kind: Kind, number: int) -> Receiver:
    return Receiver(name=f"{kind}-{number}", kind=kind, up=True)
