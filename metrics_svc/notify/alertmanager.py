"""A real Alertmanager as receiver: it groups, silences, inhibits, repeats and routes; we tell it what fires.

Alerts are posted to its API as Prometheus does it: again every minute while they fire, each time with an end some
minutes ahead, so that they end by themselves should we fall silent.
https://prometheus.io/docs/alerting/latest/clients/
"""

import time
from typing import Any

import msgspec

from metrics_svc.notify.decision import NotifyTimings
from metrics_svc.notify.integrations import Posts
from metrics_svc.notify.notification import Notification, annotations_of, ended_at, labels_of, rfc3339
from services.wire.records import AlertLogEntry

RESEND_S = 60.0
# As Prometheus: four times the interval in which alerts are sent again.
VALID_S = 4 * RESEND_S
TIMING = NotifyTimings(group_by=(), group_wait_s=0, group_interval_s=0, repeat_interval_s=RESEND_S)


def alerts(notification: Notification, now_ms: int) -> list[dict[str, Any]]:
    """Return the alerts of a message as Alertmanager's API takes them.

    There an alert is known by its labels, and the severity is one: of an alert that fires at another severity than
    before, the one before is ended.
    """
    until = rfc3339(now_ms + int(VALID_S * 1000))
    posted = [_alert(entry, until, notification.external_url) for entry in notification.firing]
    posted += [_alert(entry, rfc3339(now_ms), notification.external_url) for entry in notification.replaced]
    posted += [_alert(entry, ended_at(entry), notification.external_url) for entry in notification.ended]
    return posted


def _alert(entry: AlertLogEntry, ends_at: str, external_url: str) -> dict[str, Any]:
    posted = {
        "labels": labels_of(entry),
        "annotations": annotations_of(entry),
        "startsAt": rfc3339(entry.started_at),
        "endsAt": ends_at,
    }
    return posted | ({"generatorURL": external_url} if external_url else {})


class Alertmanager:
    """Posts alerts to one Alertmanager. `url` is its address without the path of the API."""

    def __init__(self, url: str) -> None:
        self._posts = Posts(f"{url.rstrip('/')}/api/v2/alerts")

    async def send(self, notification: Notification) -> None:
        """Post the alerts of one message. Raises DeliveryFailed."""
        await self._posts.post(msgspec.json.encode(alerts(notification, int(time.time() * 1000))))

    async def close(self) -> None:
        """Close the connections."""
        await self._posts.close()
