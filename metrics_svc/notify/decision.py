"""Whether a receiver is to be told about a group now, and why. Pure: the time is passed in.

The rules are those of Alertmanager's `group_wait`, `group_interval` and `repeat_interval`
(https://prometheus.io/docs/alerting/latest/configuration/#route) with these differences: a group's interval counts
from its last message, not from its creation; `group_wait` counts from the first alert that the receiver has not been
told of, also in a group that it knows, and goes on while that alert comes and goes; an alert that turns critical does not wait for it; what ends while it
is silenced is told when the silence has ended; an acknowledged alert is not repeated.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from enum import Enum

from metrics_svc.notify.nflog import SentNotification, identity
from services.wire.records import UNSET, AlertLogEntry


@dataclass(frozen=True, slots=True)
class NotifyTimings:
    """How alerts are grouped and how often they are told; all in seconds."""

    group_by: tuple[str, ...] = ("metric",)
    group_wait_s: float = 30.0
    group_interval_s: float = 300.0
    repeat_interval_s: float = 14_400.0


class NotifyReason(Enum):
    """Why a message is sent, or is not."""

    FIRST = "the group's first alerts"
    NEW_ALERTS = "alerts that the receiver has not been told of"
    ESCALATED = "an alert turned critical"
    SOME_RESOLVED = "some alerts ended"
    ALL_RESOLVED = "all alerts ended"
    REPEAT = "still firing since the last message, for the repeat interval"
    UNCONFIRMED = "sent before, and nobody knows whether it arrived"
    NOTHING = "nothing fires, and nothing was told"
    GROUP_WAIT = "alerts that belong together may follow"
    GROUP_INTERVAL = "the last message about this group is too recent"
    UNCHANGED = "told already, and not yet to be repeated"
    ACKNOWLEDGED = "told already, and somebody has seen it"


_SENDS = frozenset(
    (
        NotifyReason.FIRST, NotifyReason.NEW_ALERTS, NotifyReason.ESCALATED, NotifyReason.SOME_RESOLVED, NotifyReason.ALL_RESOLVED,
        NotifyReason.REPEAT, NotifyReason.UNCONFIRMED,
    )
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Decision:
    """Why, and what the message says: the alerts that fire and those that ended since they were told.

    `replaced` are those that were told and now fire at another severity. `waits` says that something fires of which the
    receiver has not been told.
    """

    reason: NotifyReason
    firing: Sequence[AlertLogEntry] = ()
    ended: Sequence[AlertLogEntry] = ()
    replaced: Sequence[AlertLogEntry] = ()
    waits: bool = False

    @property
    def sends(self) -> bool:
        """Whether a message is to be sent now."""
        return self.reason in _SENDS


@dataclass(frozen=True, slots=True)
class GroupState:
    """One group as one receiver is to see it.

    `notices` are the group's alerts, firing or ended. `muted` and `acknowledged` name alerts by id; `firing` all that
    fire, in other groups too (the grouping was changed). `sent` is the last message taken, `intent` one that may have been.
    `since` (ms) is when the oldest alert that waits to be told was first seen, None where none was.
    """

    notices: Sequence[AlertLogEntry]
    sent: SentNotification | None = None
    intent: SentNotification | None = None
    muted: Collection[str] = ()
    acknowledged: Collection[str] = ()
    firing: Collection[str] = ()
    since: int | None = None


def decide(situation: GroupState, timing: NotifyTimings, now: int) -> Decision:
    """Return what is to be done about a group at `now` (ms)."""
    told = _told(situation)
    heard = [entry for entry in situation.notices if entry.id not in situation.muted]
    firing = [entry for entry in heard if entry.state == "firing"]
    ended = _ended(situation, told, now)
    if not firing and not ended:
        return Decision(NotifyReason.NOTHING)
    new = _new(situation, told, firing)
    reason = _reason(situation, told, firing, ended, new, timing, now)
    types = {entry.id: entry.type for entry in firing}
    replaced = [entry for entry in told.values() if types.get(entry.id, entry.type) != entry.type]
    return Decision(reason, firing, ended, replaced, bool(new))


def _new(
    situation: GroupState, told: dict[str, AlertLogEntry], firing: list[AlertLogEntry]
) -> list[AlertLogEntry]:
    """Return what fires and was not told, or not at this severity."""
    known = {entry.id for entry in told.values()}
    # Who acknowledged an alert needs no message about it, not even the first.
    return [
        entry
        for entry in firing
        if identity(entry) not in told and (entry.id in known or entry.id not in situation.acknowledged)
    ]


def _told(situation: GroupState) -> dict[str, AlertLogEntry]:
    """Return what the receiver believes to fire, by identity; it may have heard of an intent."""
    believed = [message for message in (situation.sent, situation.intent) if message is not None]
    return {identity(entry): entry for message in believed for entry in message.firing}


def _ended(situation: GroupState, told: dict[str, AlertLogEntry], now: int) -> list[AlertLogEntry]:
    """Return what the receiver believes to fire and does not. Another severity of the same alert is no end."""
    current = {entry.id: entry for entry in situation.notices}
    ended: dict[str, AlertLogEntry] = {}
    for entry in told.values():
        notice = current.get(entry.id)
        still = notice is not None and notice.state == "firing"
        if still or entry.id in situation.muted or entry.id in situation.firing:
            continue
        at = notice.ended_at if notice is not None and notice.ended_at is not UNSET else now
        ended[entry.id] = _as_ended(entry, at)
    return list(ended.values())


def _as_ended(entry: AlertLogEntry, at: int) -> AlertLogEntry:
    fields = {name: getattr(entry, name) for name in entry.__struct_fields__}
    return AlertLogEntry(**(fields | {"state": "resolved", "ended_at": at}))


def _reason(
    situation: GroupState,
    told: dict[str, AlertLogEntry],
    firing: list[AlertLogEntry],
    ended: list[AlertLogEntry],
    new: list[AlertLogEntry],
    timing: NotifyTimings,
    now: int,
) -> NotifyReason:
    if situation.intent is not None:
        return NotifyReason.UNCONFIRMED
    if any(entry.type == "critical" for entry in new):
        known = {entry.id for entry in told.values()}
        if any(entry.type == "critical" and entry.id in known for entry in new):
            return NotifyReason.ESCALATED
    if not new and not ended:
        return _repetition(situation, firing, timing, now)
    if new:
        since = min(entry.started_at for entry in new)
        if now < min(since, situation.since or since) + timing.group_wait_s * 1000:
            return NotifyReason.GROUP_WAIT
    if situation.sent is not None and now < situation.sent.at + timing.group_interval_s * 1000:
        return NotifyReason.GROUP_INTERVAL
    if not firing:
        return NotifyReason.ALL_RESOLVED
    if new:
        return NotifyReason.NEW_ALERTS if told else NotifyReason.FIRST
    return NotifyReason.SOME_RESOLVED


def _repetition(
    situation: GroupState, firing: list[AlertLogEntry], timing: NotifyTimings, now: int
) -> NotifyReason:
    if situation.sent is None or all(entry.id in situation.acknowledged for entry in firing):
        return NotifyReason.ACKNOWLEDGED
    due = situation.sent.at + timing.repeat_interval_s * 1000
    return NotifyReason.REPEAT if now >= due else NotifyReason.UNCHANGED
