"""The model as a store: the reference that the Redis store is compared with."""

import secrets
from collections.abc import Callable

from presence_svc.changes import Applied, Page, Stats, Swept
from presence_svc.hooks import HookEvent, HookTurn
from presence_svc.policy import Telling, Timing
from services.wire.records import RoomSummary
from services.wire.rpc import PresenceBatch
from tests.support.presence_model.model import Presence

_EVERYTHING = Telling()


class MemoryPresenceStore:
    """A PresenceStore and a HookQueue in this process. `clock` returns the time in ms."""

    def __init__(self, timing: Timing, clock: Callable[[], int], telling: Telling = _EVERYTHING) -> None:
        self._clock = clock
        self._presence = Presence(timing, secrets.token_hex(8), telling)

    async def apply(self, batch: PresenceBatch) -> Applied:
        """Apply a batch."""
        return self._presence.apply(batch, self._clock(), secrets.token_hex(8))

    async def sweep(self) -> Swept:
        """Let go what is due."""
        return self._presence.sweep(self._clock())

    async def confirm(self, steps: list[int]) -> None:
        """Forget steps that have been published."""
        self._presence.outbox.confirm(steps)

    async def everyone(self, *, cursor: str = "", limit: int = 1000, unless_large: bool = False) -> Page:
        """Return a page of all users."""
        return self._presence.everyone(cursor, limit, unless_large)

    async def members(
        self, room: str, *, cursor: str = "", limit: int = 1000, unless_large: bool = False
    ) -> Page:
        """Return a page of a room's members."""
        return self._presence.members(room, cursor, limit, self._clock(), unless_large)

    async def lookup(self, users: list[str], room: str | None = None) -> Page:
        """Return those of `users` who are online."""
        return self._presence.lookup(users, room)

    async def rooms(self, limit: int) -> list[RoomSummary]:
        """Return the largest rooms."""
        return self._presence.rooms(limit)

    async def stats(self) -> Stats:
        """Return counts."""
        return self._presence.stats()

    async def audit(self) -> int:
        """Correct nothing: what is counted here is counted where it is."""
        return 0

    async def take_hooks(self, target: str, holder: str, hold_ms: int, limit: int) -> HookTurn:
        """Return the next events of a target."""
        return self._presence.hooks.take(
            target, holder, hold_ms, limit, self._clock(), self._presence.ledger.epoch
        )

    async def hooks_delivered(self, target: str, last: HookEvent) -> None:
        """Note what a target has got."""
        self._presence.hooks.delivered(target, last, self._clock())

    async def give_up_hooks(self, target: str, holder: str) -> None:
        """End a turn."""
        self._presence.hooks.give_up(target, holder, self._clock())
