"""Receivers of Alertmanager's webhook body, version 4: what reads those reads ours.

The format: https://prometheus.io/docs/alerting/latest/configuration/#webhook_config
"""

from typing import Any

import msgspec

from metrics_svc.notify.integrations import ATTEMPT_S, Posts
from metrics_svc.notify.notification import (
    Notification,
    annotations_of,
    ended_at,
    fingerprint,
    labels_of,
    rfc3339,
)
from services.wire.records import AlertLogEntry

# Of one message; how many more there are is said in it.
MAX_ALERTS = 500


def body(notification: Notification) -> dict[str, Any]:
    """Return the body for one message."""
    entries = [*notification.firing, *notification.ended]
    alerts = [_alert(entry, notification.external_url) for entry in entries[:MAX_ALERTS]]
    return {
        "version": "4",
        "groupKey": notification.group_key,
        "truncatedAlerts": len(entries) - len(alerts),
        "status": notification.status,
        "receiver": notification.receiver,
        "groupLabels": notification.group_labels,
        "commonLabels": _common([alert["labels"] for alert in alerts]),
        "commonAnnotations": _common([alert["annotations"] for alert in alerts]),
        "externalURL": notification.external_url,
        "alerts": alerts,
    }


def _alert(entry: AlertLogEntry, external_url: str) -> dict[str, Any]:
    return {
        "status": entry.state,
        "labels": labels_of(entry),
        "annotations": annotations_of(entry),
        "startsAt": rfc3339(entry.started_at),
        "endsAt": ended_at(entry),
        "generatorURL": external_url,
        "fingerprint": fingerprint(entry),
    }


def _common(all_of_them: list[dict[str, str]]) -> dict[str, str]:
    first, *others = all_of_them
    return {name: value for name, value in first.items() if all(other.get(name) == value for other in others)}


class Webhook:
    """Posts messages to one URL. `Idempotency-Key` is the same when a message is sent again."""

    def __init__(self, url: str, *, attempt_s: float = ATTEMPT_S) -> None:
        self._posts = Posts(url, attempt_s=attempt_s)

    async def send(self, notification: Notification) -> None:
        """Post one message. Raises DeliveryFailed."""
        await self._posts.post(msgspec.json.encode(body(notification)), {"Idempotency-Key": notification.key})

    async def close(self) -> None:
        """Close the connections."""
        await self._posts.close()
