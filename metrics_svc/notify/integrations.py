"""Integrations: the kinds of receivers, and how each delivers a message.

- `WebhookIntegration`       Alertmanager's webhook body, version 4: what reads those reads ours
- `AlertmanagerIntegration`  a real Alertmanager, which groups, silences, inhibits, repeats and routes by itself
- `AppriseIntegration`       e-mail, chat and more by the `apprise` library (extra `notify` of the distribution)
"""

import asyncio
import logging
import time
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any, Protocol

import msgspec

from metrics_svc.notify.decision import NotifyTimings
from metrics_svc.notify.notification import (
    Notification,
    annotations_of,
    ended_at,
    fingerprint,
    labels_of,
    rfc3339,
    text,
    title,
)
from services.webhooks import NotTaken, WebhookSender
from services.wire.records import AlertLogEntry

# Concurrent messages to one receiver, each about another group; more wait.
MAX_CONCURRENT = 4
# For the whole of one post.
ATTEMPT_S = 10.0
# Of one webhook message, which also has the number of omitted ones.
MAX_ALERTS = 500
RESEND_S = 60.0
# As Prometheus: four times the interval in which alerts are sent again.
VALID_S = 4 * RESEND_S
# Alerts are posted to an Alertmanager as by Prometheus: again every minute while they fire, each time with an end some
# minutes ahead, so that they end by themselves if we stop. https://prometheus.io/docs/alerting/latest/clients/
ALERTMANAGER_TIMINGS = NotifyTimings(
    group_by=(), group_wait_s=0, group_interval_s=0, repeat_interval_s=RESEND_S
)
APPRISE_SEND_S = 30.0
# The library logs the URLs it is given, and they are secrets.
_APPRISE_LOG = logging.getLogger("apprise")
_APPRISE_LOG.propagate = False
_APPRISE_LOG.addHandler(logging.NullHandler())


class Integration(Protocol):
    """Delivery to one receiver."""

    async def send(self, notification: Notification) -> None:
        """Deliver one message. Raises NotTaken."""

    async def close(self) -> None:
        """Accept no more messages; close connections and threads."""


class WebhookIntegration:
    """Posts messages to one URL. A repeated message has the same `Idempotency-Key`.

    The format: https://prometheus.io/docs/alerting/latest/configuration/#webhook_config
    """

    def __init__(self, url: str) -> None:
        self._url = url
        self._sender = WebhookSender(attempt_s=ATTEMPT_S)

    async def send(self, notification: Notification) -> None:
        body = msgspec.json.encode(webhook_body(notification))
        await self._sender.post(self._url, body, {"Idempotency-Key": notification.key})

    async def close(self) -> None:
        await self._sender.close()


def webhook_body(notification: Notification) -> dict[str, Any]:
    entries = [*notification.firing, *notification.ended]
    alerts = [
        {
            "status": entry.state,
            "labels": labels_of(entry),
            "annotations": annotations_of(entry),
            "startsAt": rfc3339(entry.started_at),
            "endsAt": ended_at(entry),
            "generatorURL": notification.external_url,
            "fingerprint": fingerprint(entry),
        }
        for entry in entries[:MAX_ALERTS]
    ]
    return {
        "version": "4",
        "groupKey": notification.group_key,
        "truncatedAlerts": len(entries) - len(alerts),
        "status": "firing" if notification.firing else "resolved",
        "receiver": notification.receiver,
        "groupLabels": notification.group_labels,
        "commonLabels": _common([alert["labels"] for alert in alerts]),
        "commonAnnotations": _common([alert["annotations"] for alert in alerts]),
        "externalURL": notification.external_url,
        "alerts": alerts,
    }


def _common(all_of_them: list[Any]) -> dict[str, str]:
    first, *others = all_of_them
    return {name: value for name, value in first.items() if all(other.get(name) == value for other in others)}


class AlertmanagerIntegration(WebhookIntegration):
    """Posts alerts to one Alertmanager. `url` is its address without the path of the API."""

    def __init__(self, url: str) -> None:
        super().__init__(f"{url.rstrip('/')}/api/v2/alerts")

    async def send(self, notification: Notification) -> None:
        alerts = alertmanager_alerts(notification, int(time.time() * 1000))
        await self._sender.post(self._url, msgspec.json.encode(alerts))


def alertmanager_alerts(notification: Notification, now_ms: int) -> list[dict[str, Any]]:
    """Alerts of a message for Alertmanager's API.

    Its alerts are identified by their labels, including the severity. If an alert fires at another severity than
    before, the one before is ended.
    """

    def alert(entry: AlertLogEntry, ends_at: str) -> dict[str, Any]:
        posted = {
            "labels": labels_of(entry),
            "annotations": annotations_of(entry),
            "startsAt": rfc3339(entry.started_at),
            "endsAt": ends_at,
        }
        return posted | ({"generatorURL": notification.external_url} if notification.external_url else {})

    return [
        *(alert(entry, rfc3339(now_ms + int(VALID_S * 1000))) for entry in notification.firing),
        *(alert(entry, rfc3339(now_ms)) for entry in notification.replaced),
        *(alert(entry, ended_at(entry)) for entry in notification.ended),
    ]


class AppriseIntegration:
    """Sends messages as plain text to one apprise URL.

    https://github.com/caronc/apprise/wiki lists the services and the forms of their URLs. With an `error` the library
    is not installed, or does not know the URL, and nothing counts as delivered. The threads are not shared,
    because a call that hangs keeps its thread after the time-out: in a shared pool one receiver would block the others
    and history queries.
    """

    def __init__(self, url: str) -> None:
        self.error = ""
        self._threads = ThreadPoolExecutor(MAX_CONCURRENT, thread_name_prefix="notify")
        try:
            import apprise  # optional, and slow to load
        except ImportError:
            self.error = "install the optional part: pip install 'tidings[notify]'"
            return
        self._types = apprise.NotifyType
        self._apprise: Any = apprise.Apprise()
        if not self._apprise.add(url):
            self.error = "apprise does not know this kind of URL"

    async def send(self, notification: Notification) -> None:
        if self.error:
            raise NotTaken(self.error)
        kind = self._types.SUCCESS
        if notification.firing:
            critical = any(entry.type == "critical" for entry in notification.firing)
            kind = self._types.FAILURE if critical else self._types.WARNING
        notify = partial(
            self._apprise.notify, body=text(notification), title=title(notification), notify_type=kind
        )
        try:
            async with asyncio.timeout(APPRISE_SEND_S):
                accepted = await asyncio.get_running_loop().run_in_executor(self._threads, notify)
        except TimeoutError:
            raise NotTaken(f"not taken within {APPRISE_SEND_S:g} s", perhaps=True) from None
        if not accepted:
            # Only the library's log has the reason, and it may contain the URL.
            raise NotTaken("the service did not take it")

    async def close(self) -> None:
        self._threads.shutdown(wait=False, cancel_futures=True)  # calls that hang end with the process
