"""The receivers of a configuration, and how each is doing."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import msgspec
import structlog

from metrics_svc.notify import alertmanager
from metrics_svc.notify.alertmanager import Alertmanager
from metrics_svc.notify.decision import NotifyTimings
from metrics_svc.notify.integrations import DeliveryFailed, Integration
from metrics_svc.notify.messages import AppriseIntegration, AppriseUnavailable
from metrics_svc.notify.notification import Notification
from metrics_svc.notify.webhook import Webhook
from services import telemetry
from services.backoff import delay_s
from services.settings import Settings
from services.telemetry import MetricName
from services.wire.alerting import Receiver

log = structlog.get_logger(__name__)

FIRST_PAUSE_S = 1.0
LONGEST_PAUSE_S = 60.0

Kind = Literal["webhook", "alertmanager", "apprise"]


class MisconfiguredIntegration:
    """Stands for a receiver that cannot work as configured: shown as down, never taken for delivered."""

    def __init__(self, reason: str) -> None:
        self._reason = reason

    async def send(self, notification: Notification) -> None:  # noqa: ARG002  # nothing can be sent
        raise DeliveryFailed(self._reason)

    async def close(self) -> None:
        """There is nothing to let go of."""


@dataclass(slots=True)
class ConfiguredReceiver:
    """One receiver. `raw`: it silences, inhibits and groups for itself, so it is told of everything."""

    status: Receiver
    outlet: Integration
    timing: NotifyTimings
    raw: bool = False

    @property
    def name(self) -> str:
        """The receiver's name: its kind and number, for its address usually is a secret."""
        return self.status.name

    def restore(self, stored: Receiver | None) -> None:
        """Go on from what an earlier replica noted."""
        if stored is not None and self.status.up:
            self.status = stored
        self._show()

    def succeeded(self, now: int) -> None:
        """Note a message that was taken at `now` (ms)."""
        if not self.status.up:
            log.info("receiver is up again", receiver=self.name, failures=self.status.failures)
        self._set(up=True, failures=0, error="", last_success=now)
        _count(self.name, "sent")

    def failed(self, fault: DeliveryFailed, now: int) -> None:
        """Note a message that was not taken at `now` (ms)."""
        if not fault.retry:
            log.error("receiver refuses a notification", receiver=self.name, reason=fault.reason)
        elif self.status.up:
            log.error("receiver is down; its notifications wait", receiver=self.name, reason=fault.reason)
        self._set(up=False, failures=self.status.failures + 1, error=fault.reason, last_failure=now)
        _count(self.name, "failed" if fault.retry else "refused")

    def wait(self, groups: int) -> bool:
        """Note how many groups wait; return whether that is news."""
        news = groups != self.status.waiting
        self._set(waiting=groups)
        return news

    def _set(self, **changes: object) -> None:
        self.status = msgspec.structs.replace(self.status, **changes)
        self._show()

    def _show(self) -> None:
        telemetry.gauge(MetricName.NOTIFY_RECEIVER_UP).labels(self.name).set(self.status.up)


def pause_s(attempts: int) -> float:
    """Return how long to wait after so many failed attempts: doubled each time, with jitter, bounded."""
    return delay_s(attempts - 1, FIRST_PAUSE_S, LONGEST_PAUSE_S, jitter=0.2)


def _count(receiver: str, outcome: str) -> None:
    telemetry.counter(MetricName.NOTIFICATIONS).labels(receiver, outcome).inc()


def configured(settings: Settings) -> list[ConfiguredReceiver]:
    """Return the receivers of the settings, named by kind and number."""
    timing = NotifyTimings(
        tuple(settings.notify_group_by),
        settings.notify_group_wait_s,
        settings.notify_group_interval_s,
        settings.notify_repeat_interval_s,
    )
    targets = [
        ConfiguredReceiver(_named("webhook", number), Webhook(url), timing)
        for number, url in enumerate(settings.webhook_urls, 1)
    ]
    targets += [
        ConfiguredReceiver(_named("alertmanager", number), Alertmanager(url), alertmanager.TIMING, raw=True)
        for number, url in enumerate(settings.alertmanager_urls, 1)
    ]
    targets += [ConfiguredReceiver(status, outlet, timing) for status, outlet in _messages(settings)]
    return targets


def _messages(settings: Settings) -> Iterator[tuple[Receiver, Integration]]:
    for number, url in enumerate(settings.notify_urls, 1):
        status = _named("apprise", number)
        try:
            yield status, AppriseIntegration(url.get_secret_value())
        except AppriseUnavailable as fault:
            log.error("receiver cannot be used", receiver=status.name, reason=str(fault))
            yield (
                msgspec.structs.replace(status, up=False, error=str(fault)),
                MisconfiguredIntegration(str(fault)),
            )


def _named(kind: Kind, number: int) -> Receiver:
    return Receiver(name=f"{kind}-{number}", kind=kind, up=True)
