"""The interface to presence state, named by intent. `store_memory` and `store_redis` implement it alike.

Every operation is one atomic step, and results say what changed. An operation may be repeated when its
answer was lost: batches carry their number, and sweeping finds nothing due a second time.
"""

from dataclasses import dataclass
from typing import Protocol

from presence_svc.changes import Applied, Page, Stats, Swept
from services.settings import Settings
from services.wire.records import RoomSummary
from services.wire.rpc import PresenceBatch


class StoreUnavailable(Exception):  # it is a state of the world, not a mistake
    """The store did not answer in time, or refuses to. Whether the operation happened is unknown."""


@dataclass(frozen=True, slots=True)
class Timing:
    """How long things live, in ms.

    `lease_ms` since a gateway's last batch; `grace_ms` since a connection was lost; `idle_room_ms` is how
    long the version of a room outlives its last member or the last look at it, so that its followers need
    no new snapshot.
    """

    lease_ms: int
    grace_ms: int
    idle_room_ms: int = 600_000

    @classmethod
    def of(cls, settings: Settings) -> "Timing":
        """Return the configured timing."""
        return cls(
            lease_ms=round(settings.presence_lease_s * 1000), grace_ms=round(settings.presence_grace_s * 1000)
        )


class PresenceStore(Protocol):
    """Who is online. All operations raise StoreUnavailable."""

    async def apply(self, batch: PresenceBatch) -> Applied:
        """Renew a gateway's lease and apply its operations; on `Outcome.AGAIN` call again with the same
        batch."""

    async def sweep(self) -> Swept:
        """Let go what is due: leases not renewed, and graces that have run out. Any number may sweep at
        once."""

    async def everyone(self, *, cursor: str = "", limit: int = 1000) -> Page:
        """Return up to `limit` users after `cursor`."""

    async def members(self, room: str, *, cursor: str = "", limit: int = 1000) -> Page:
        """Return up to `limit` members of a room after `cursor`."""

    async def lookup(self, users: list[str], room: str | None = None) -> Page:
        """Return those of `users` who are online (with `room`: who are members of it). One page, in order."""

    async def rooms(self, limit: int) -> list[RoomSummary]:
        """Return the rooms with members, most users first (ties: by name, descending)."""

    async def stats(self) -> Stats:
        """Return counts."""
