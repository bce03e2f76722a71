"""The model's queues, pure: commits until their publication is acknowledged, events until they are delivered."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace

from presence_svc.changes import Changes, DeliveryLease, EventKind, QueuedEvent
from presence_svc.policy import AnnouncePolicy
from services.wire.records import UNSET
from services.wire.server import UserJoined


class Outbox:
    """Commits not yet acknowledged: the replica that publishes one may die before it reaches the bus."""

    def __init__(self, ack_within_ms: int) -> None:
        self._ack_within_ms = ack_within_ms
        self._commits: dict[int, Changes] = {}
        self._due: dict[int, int] = {}
        self._last = 0

    def keep(self, changes: Changes, now: int) -> Changes:
        """Number a commit and keep it, if there is anything to publish."""
        if changes.empty:
            return changes
        self._last += 1
        changes = replace(changes, commit_id=self._last)
        self._commits[self._last] = changes
        self._due[self._last] = now + self._ack_within_ms
        return changes

    def ack(self, commit_ids: Iterable[int]) -> None:
        """Forget commits."""
        for commit_id in commit_ids:
            self._commits.pop(commit_id, None)
            self._due.pop(commit_id, None)

    def unacked(self, now: int, epoch: str, is_member: Callable[[str, str], bool]) -> list[Changes]:
        """Return commits whose acknowledgement is late, reduced to what is still true; the time starts again."""
        late = []
        for commit_id, due in self._due.items():
            if due > now:
                continue
            changes = self._commits[commit_id]
            if changes.epoch != epoch:
                changes = replace(changes, users=[], rooms=[], count=UNSET)
            notices = [
                notice
                for notice in changes.notices
                if is_member(notice.user_id, notice.room) == isinstance(notice, UserJoined)
            ]
            late.append(replace(changes, notices=notices))
            self._due[commit_id] = now + self._ack_within_ms
        return late


FORGOTTEN_AFTER_MS = 86_400_000


@dataclass(slots=True)
class _Target:
    delivered: int = 0
    owner: str = ""
    leased_until: int = 0


class WebhookQueue:
    """Events for webhook targets: in order, each target at its own pace, the oldest dropped when too many wait."""

    def __init__(self, policy: AnnouncePolicy) -> None:
        self._policy = policy
        self._events: list[QueuedEvent] = []
        self._targets: dict[str, _Target] = {}
        self._last = 0

    def add(self, kind: EventKind, subject: str, username: str, now: int, room: str = "") -> None:
        """Keep an event, if its kind is kept."""
        if kind not in self._policy.events:
            return
        self._last += 1
        self._events.append(QueuedEvent(self._last, kind, subject, username, now, room))
        del self._events[: -self._policy.events_kept]

    def claim(
        self, target: str, owner: str, lease_ms: int, limit: int, now: int, epoch: str
    ) -> DeliveryLease:
        """Return the next events of a target, unless another owner has the lease."""
        state = self._targets.setdefault(target, _Target())
        if state.owner != owner and state.leased_until > now:
            return DeliveryLease()
        state.owner, state.leased_until = owner, now + lease_ms
        events = [event for event in self._events if event.number > state.delivered][:limit]
        dropped = events[0].number - state.delivered - 1 if events and state.delivered else 0
        return DeliveryLease(epoch, dropped, events)

    def ack(self, target: str, last: QueuedEvent, now: int) -> None:
        """Note the last event of a target, and forget what all have, and targets without a claim for a day."""
        state = self._targets.setdefault(target, _Target(leased_until=now))
        state.delivered = max(state.delivered, last.number)
        self._targets = {
            name: one for name, one in self._targets.items() if one.leased_until >= now - FORGOTTEN_AFTER_MS
        }
        least = min([state.delivered, *(one.delivered for one in self._targets.values())])
        self._events = [event for event in self._events if event.number > least]

    def release(self, target: str, owner: str, now: int) -> None:
        """End a lease."""
        state = self._targets.get(target)
        if state is not None and state.owner == owner:
            state.leased_until = now
