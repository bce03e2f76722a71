"""The interface to presence state, named by intent. `store` implements it, and a model in the tests.

Every operation is one atomic step, and results say what changed. An operation may be repeated when its
answer was lost: batches carry their number, and sweeping finds nothing due a second time.
"""

from dataclasses import dataclass
from typing import Protocol

from presence_svc.changes import Applied, Page, Stats, Swept
from presence_svc.hooks import NO_HOOKS, HookEvent, HookKind, HookTurn, kinds_named
from services.settings import Settings
from services.wire.records import RoomSummary
from services.wire.rpc import PresenceBatch


class StoreUnavailable(Exception):  # it is a state of the world, not a mistake
    """The store did not answer in time, or refuses to. Whether the operation happened is unknown."""


@dataclass(frozen=True, slots=True)
class Timing:
    """How long things live, in ms.

    `lease_ms` since a gateway's last batch; `grace_ms` since a connection was lost; `idle_room_ms` is how
    long the version of a room outlives its last member or the last follower's snapshot, so that followers need
    no new one. When nobody swept for `outage_ms`, nothing is let go for `hold_ms` (0: no such pause).
    What a step changed is handed to another replica when its publication is not confirmed for `confirm_ms`.
    """

    lease_ms: int
    grace_ms: int
    idle_room_ms: int = 600_000
    outage_ms: int = 3000
    hold_ms: int = 0
    confirm_ms: int = 2000

    @classmethod
    def of(cls, settings: Settings) -> "Timing":
        """Return the configured timing."""
        return cls(
            lease_ms=round(settings.presence_lease_s * 1000),
            grace_ms=round(settings.presence_grace_s * 1000),
            hold_ms=round(settings.presence_renew_s * 1000),
        )


@dataclass(frozen=True, slots=True)
class Telling:
    """What is told, and to whom.

    Above `room_limit` users of a room, and above `online_limit` users online, only counts are told (0: never).
    `hooks` are the events kept for webhooks, at most `hooks_kept` of them.
    """

    room_limit: int = 0
    online_limit: int = 0
    hooks: HookKind = NO_HOOKS
    hooks_kept: int = 10_000

    @classmethod
    def of(cls, settings: Settings) -> "Telling":
        """Return what is configured."""
        wanted = list(settings.presence_webhook_events) if settings.presence_webhook_urls else []
        return cls(
            room_limit=settings.presence_room_limit,
            online_limit=settings.presence_online_limit,
            hooks=kinds_named(wanted),
            hooks_kept=settings.presence_webhook_queue,
        )


class PresenceStore(Protocol):
    """Who is online. All operations raise StoreUnavailable."""

    async def apply(self, batch: PresenceBatch) -> Applied:
        """Renew a gateway's lease and apply its operations; on `Outcome.AGAIN` call again with the same
        batch. The changes of every piece are to be published."""

    async def sweep(self) -> Swept:
        """Let go what is due: leases not renewed, and graces that have run out. Any number may sweep at
        once."""

    async def confirm(self, steps: list[int]) -> None:
        """Forget steps whose changes have reached the bus; others are returned by a later sweep."""

    async def everyone(self, *, cursor: str = "", limit: int = 1000, unless_large: bool = False) -> Page:
        """Return up to `limit` users after `cursor`.

        `unless_large` is for who follows the scope from here: no users where only counts are told, and the version of
        an empty room is kept for a while. Without it, asking changes nothing.
        """

    async def members(
        self, room: str, *, cursor: str = "", limit: int = 1000, unless_large: bool = False
    ) -> Page:
        """Return up to `limit` members of a room after `cursor`."""

    async def lookup(self, users: list[str], room: str | None = None) -> Page:
        """Return those of `users` who are online (with `room`: who are members of it). One page, in order."""

    async def rooms(self, limit: int) -> list[RoomSummary]:
        """Return the rooms with members, most users first (ties: by name, descending)."""

    async def stats(self) -> Stats:
        """Return counts."""

    async def audit(self) -> int:
        """Compare some counts with what they count; return how many were wrong, and are right now."""


class HookQueue(Protocol):
    """Events that wait for webhook targets. All operations raise StoreUnavailable."""

    async def take_hooks(self, target: str, holder: str, hold_ms: int, limit: int) -> HookTurn:
        """Return the oldest events that a target has not got, none while another holder has its turn.

        A target exists from its first call on; events wait for it until it has them. It is forgotten when nobody
        called for a day. `limit` 0 only holds the turn.
        """

    async def hooks_delivered(self, target: str, last: HookEvent) -> None:
        """Note that a target has got events up to `last`, and forget those that all targets have."""

    async def give_up_hooks(self, target: str, holder: str) -> None:
        """End a holder's turn, if it has it."""
