"""Whether to notify a receiver about a group now, and why. Pure: the time is an argument.

The rules are those of Alertmanager's `group_wait`, `group_interval` and `repeat_interval`
(https://prometheus.io/docs/alerting/latest/configuration/#route) with these differences:

- A group's interval counts from its last message, not from its creation.
- `group_wait` counts from the first alert that the receiver does not know, also in a known group, and continues while
  that alert stops and starts again.
- An alert that turns critical does not wait for `group_wait`.
- The end of an alert under a silence is sent when the silence has ended.
- An acknowledged alert is not repeated.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from enum import Enum

import msgspec

from metrics_svc.notify.nflog import SentNotification, alert_key
from services.wire.records import UNSET, AlertLogEntry


@dataclass(frozen=True, slots=True)
class NotifyTimings:
    """Grouping, and the times of messages in seconds."""

    group_by: tuple[str, ...] = ("metric",)
    group_wait_s: float = 30.0
    group_interval_s: float = 300.0
    repeat_interval_s: float = 14_400.0


class NotifyReason(Enum):
    """Why a message is sent, or is not."""

    FIRST = "the group's first alerts"
    NEW_ALERTS = "alerts that the receiver does not know"
    ESCALATED = "an alert turned critical"
    SOME_RESOLVED = "some alerts ended"
    ALL_RESOLVED = "all alerts ended"
    REPEAT = "still firing since the last message, for the repeat interval"
    UNCONFIRMED = "sent before, but delivery is unknown"
    NOTHING = "nothing fires, and nothing was sent"
    GROUP_WAIT = "alerts of the same group may follow"
    GROUP_INTERVAL = "the last message about this group is too recent"
    UNCHANGED = "sent already, and not yet to be repeated"
    ACKNOWLEDGED = "sent already, and acknowledged"


_SENDS = frozenset(
    (
        NotifyReason.FIRST, NotifyReason.NEW_ALERTS, NotifyReason.ESCALATED, NotifyReason.SOME_RESOLVED,
        NotifyReason.ALL_RESOLVED, NotifyReason.REPEAT, NotifyReason.UNCONFIRMED,
    )
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Decision:
    """The reason, and the message: alerts that fire, and those that ended since they were sent.

    `replaced` were sent and now fire at another severity. `waits`: an alert fires that the receiver does not know.
    """

    reason: NotifyReason
    firing: Sequence[AlertLogEntry] = ()
    ended: Sequence[AlertLogEntry] = ()
    replaced: Sequence[AlertLogEntry] = ()
    waits: bool = False

    @property
    def sends(self) -> bool:
        return self.reason in _SENDS


@dataclass(frozen=True, slots=True)
class GroupState:
    """One group for one receiver.

    `alerts` are the group's, firing or ended. `muted` and `acknowledged` are ids of alerts; `firing` all that fire, in
    other groups too (the grouping may have changed). `sent` is the last delivered message, `pending` one that may have
    been delivered. `since` (ms) is when the oldest unknown alert was first seen.
    """

    alerts: Sequence[AlertLogEntry]
    sent: SentNotification | None = None
    pending: SentNotification | None = None
    muted: Collection[str] = ()
    acknowledged: Collection[str] = ()
    firing: Collection[str] = ()
    since: int | None = None


def decide(group: GroupState, timings: NotifyTimings, now: int) -> Decision:
    """Decide about a group at `now` (ms)."""
    # What the receiver believes to fire; a pending message may have been delivered.
    messages = [message for message in (group.sent, group.pending) if message is not None]
    known = {alert_key(entry): entry for message in messages for entry in message.firing}
    firing = [entry for entry in group.alerts if entry.id not in group.muted and entry.state == "firing"]
    ended = _ended(group, known, now)
    if not firing and not ended:
        return Decision(NotifyReason.NOTHING)
    known_ids = {entry.id for entry in known.values()}
    # An acknowledged alert needs no message, not even the first; a known one does at another severity.
    new = [
        entry
        for entry in firing
        if alert_key(entry) not in known and (entry.id in known_ids or entry.id not in group.acknowledged)
    ]
    types = {entry.id: entry.type for entry in firing}
    replaced = [entry for entry in known.values() if types.get(entry.id, entry.type) != entry.type]
    reason = _reason(group, known_ids, firing, ended, new, timings, now)
    return Decision(reason, firing, ended, replaced, bool(new))


def _ended(group: GroupState, known: dict[str, AlertLogEntry], now: int) -> list[AlertLogEntry]:
    """Known alerts that do not fire any more. Another severity of the same alert is no end."""
    current = {entry.id: entry for entry in group.alerts}
    ended: dict[str, AlertLogEntry] = {}
    for entry in known.values():
        alert = current.get(entry.id)
        still = alert is not None and alert.state == "firing"
        if still or entry.id in group.muted or entry.id in group.firing:
            continue
        at = alert.ended_at if alert is not None and alert.ended_at is not UNSET else now
        ended[entry.id] = msgspec.structs.replace(entry, state="resolved", ended_at=at)
    return list(ended.values())


def _reason(
    group: GroupState,
    known_ids: Collection[str],
    firing: list[AlertLogEntry],
    ended: list[AlertLogEntry],
    new: list[AlertLogEntry],
    timings: NotifyTimings,
    now: int,
) -> NotifyReason:
    if group.pending is not None:
        return NotifyReason.UNCONFIRMED
    if any(entry.type == "critical" and entry.id in known_ids for entry in new):
        return NotifyReason.ESCALATED
    if not new and not ended:
        if group.sent is None or all(entry.id in group.acknowledged for entry in firing):
            return NotifyReason.ACKNOWLEDGED
        due = group.sent.at + timings.repeat_interval_s * 1000
        return NotifyReason.REPEAT if now >= due else NotifyReason.UNCHANGED
    if new:
        since = min(entry.started_at for entry in new)
        if now < min(since, group.since or since) + timings.group_wait_s * 1000:
            return NotifyReason.GROUP_WAIT
    if group.sent is not None and now < group.sent.at + timings.group_interval_s * 1000:
        return NotifyReason.GROUP_INTERVAL
    if not firing:
        return NotifyReason.ALL_RESOLVED
    if new:
        return NotifyReason.NEW_ALERTS if known_ids else NotifyReason.FIRST
    return NotifyReason.SOME_RESOLVED
