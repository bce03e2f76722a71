"""What waits for others to hear of it, pure: steps until they are published, events until they are delivered."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace

from presence_svc.changes import Changes
from presence_svc.hooks import HookEvent, HookKind, HookTurn
from presence_svc.policy import Telling
from services.wire.server import UserJoined


class Outbox:
    """Steps not yet confirmed: whoever took one may have died before it reached the bus."""

    def __init__(self, confirm_ms: int) -> None:
        self._confirm_ms = confirm_ms
        self._steps: dict[int, Changes] = {}
        self._due: dict[int, int] = {}
        self._last = 0

    def __len__(self) -> int:
        return len(self._steps)

    def keep(self, changes: Changes, now: int) -> Changes:
        """Number a step and keep it, if there is anything to publish."""
        if changes.empty:
            return changes
        self._last += 1
        changes = replace(changes, step=self._last)
        self._steps[self._last] = changes
        self._due[self._last] = now + self._confirm_ms
        return changes

    def confirm(self, steps: Iterable[int]) -> None:
        """Forget steps."""
        for step in steps:
            self._steps.pop(step, None)
            self._due.pop(step, None)

    def overdue(self, now: int, epoch: str, is_member: Callable[[str, str], bool]) -> list[Changes]:
        """Return steps whose confirmation is late, reduced to what still holds; each call waits anew."""
        late = []
        for step, due in self._due.items():
            if due > now:
                continue
            changes = self._steps[step]
            if changes.epoch != epoch:
                changes = replace(changes, users=[], rooms=[], count=None)
            notices = [
                notice
                for notice in changes.notices
                if is_member(notice.user_id, notice.room) == isinstance(notice, UserJoined)
            ]
            late.append(replace(changes, notices=notices))
            self._due[step] = now + self._confirm_ms
        return late


FORGOTTEN_AFTER_MS = 86_400_000


@dataclass(slots=True)
class _Target:
    delivered: int = 0
    holder: str = ""
    held_until: int = 0


class Hooks:
    """Events for webhook targets: in order, each target at its own pace, the oldest dropped when too many wait."""

    def __init__(self, telling: Telling) -> None:
        self._telling = telling
        self._events: list[HookEvent] = []
        self._targets: dict[str, _Target] = {}
        self._last = 0

    def note(self, kind: HookKind, about: str, username: str, now: int) -> None:
        """Keep an event, if it is wanted."""
        if kind not in self._telling.hooks:
            return
        self._last += 1
        self._events.append(HookEvent(self._last, kind, about, username, now))
        del self._events[: -self._telling.hooks_kept]

    def take(self, target: str, holder: str, hold_ms: int, limit: int, now: int, epoch: str) -> HookTurn:
        """Return the next events of a target, unless it is another's turn."""
        state = self._targets.setdefault(target, _Target())
        if state.holder != holder and state.held_until > now:
            return HookTurn()
        state.holder, state.held_until = holder, now + hold_ms
        events = [event for event in self._events if event.number > state.delivered][:limit]
        lost = events[0].number - state.delivered - 1 if events and state.delivered else 0
        return HookTurn(epoch, lost, events)

    def delivered(self, target: str, last: HookEvent, now: int) -> None:
        """Note what a target has got, and forget what all have, and targets for which nobody asked for a day."""
        state = self._targets.setdefault(target, _Target(held_until=now))
        state.delivered = max(state.delivered, last.number)
        self._targets = {
            name: one for name, one in self._targets.items() if one.held_until >= now - FORGOTTEN_AFTER_MS
        }
        least = min([state.delivered, *(one.delivered for one in self._targets.values())])
        self._events = [event for event in self._events if event.number > least]

    def give_up(self, target: str, holder: str, now: int) -> None:
        """End a turn."""
        state = self._targets.get(target)
        if state is not None and state.holder == holder:
            state.held_until = now
