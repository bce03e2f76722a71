"""How long presence lives, and what is announced of it."""

from dataclasses import dataclass
from functools import reduce
from operator import or_
from typing import Self

from presence_svc.changes import EventKind
from services.settings import Settings

NO_EVENTS = EventKind(0)


@dataclass(frozen=True, slots=True)
class LeaseTimings:
    """How long things live, in ms.

    `lease_ms` since a gateway's last batch; `grace_ms` since a connection was lost; `idle_room_ms` is how
    long the version of a room outlives its last member or the last follower's snapshot, so that followers need
    no new one. When no replica swept for `outage_after_ms`, nothing expires for `recovery_pause_ms` (0: no pause).
    What a step changed is given to another replica when its publication is not acknowledged within `ack_within_ms`.
    """

    lease_ms: int
    grace_ms: int
    idle_room_ms: int = 600_000
    outage_after_ms: int = 3000
    recovery_pause_ms: int = 0
    ack_within_ms: int = 2000

    @classmethod
    def of(cls, settings: Settings) -> Self:
        return cls(
            lease_ms=round(settings.presence_lease_s * 1000),
            grace_ms=round(settings.presence_grace_s * 1000),
            recovery_pause_ms=round(settings.presence_renew_s * 1000),
        )


@dataclass(frozen=True, slots=True)
class AnnouncePolicy:
    """Above `room_limit` users of a room, and above `online_limit` users online, only counts are announced (0: never).

    `events` are the kinds kept for webhooks, at most `events_kept` events of them.
    """

    room_limit: int = 0
    online_limit: int = 0
    events: EventKind = NO_EVENTS
    events_kept: int = 10_000

    @classmethod
    def of(cls, settings: Settings) -> Self:
        names = settings.presence_webhook_events if settings.presence_webhook_urls else []
        return cls(
            room_limit=settings.presence_room_limit,
            online_limit=settings.presence_online_limit,
            events=reduce(or_, (EventKind[name.upper()] for name in names), NO_EVENTS),
            events_kept=settings.presence_webhook_queue,
        )
