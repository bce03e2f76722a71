"""Presence state in Redis: one script per operation (`lua/`), Redis' clock, one hash tag for all keys.

Works on Redis 6.2 and later and on Valkey, alone or in a cluster (all keys are in one slot). Memory must
not be evicted (`maxmemory-policy noeviction`): a key that vanishes alone would leave users without their
connections.
"""

import asyncio
import secrets
from collections import deque
from collections.abc import Callable
from typing import Any

import msgspec

from presence_svc import script_queue
from presence_svc.changes import Applied, Changes, Outcome, Page, RoomChanges, Stats, Swept, user_record
from presence_svc.hooks import HookEvent, HookKind, HookTurn
from presence_svc.policy import Telling, Timing
from presence_svc.script_queue import Argument, Script, ScriptQueue
from presence_svc.status import RANK, STATUS_OF_RANK
from services.redis_client import MAX_CONNECTIONS, AnyRedis
from services.wire.events import PresenceChange
from services.wire.records import RoomSummary
from services.wire.rpc import (
    AnyPresenceOp,
    Connected,
    DataSet,
    Disconnected,
    Joined,
    Left,
    PresenceBatch,
)
from services.wire.server import (
    PresenceUpdated,
    StatusChanged,
    UserJoined,
    UserLeft,
    UserOffline,
    UserOnline,
)

APPLY = Script.load("apply", "state", "change_set", "commit", "apply")
SWEEP = Script.load("sweep", "state", "change_set", "commit", "sweep")
CONFIRM = Script.load("ack", "state", "ack")
PAGE = Script.load("page", "state", "page")
ROOMS = Script.load("rooms", "state", "rooms")
STATS = Script.load("stats", "state", "stats")
AUDIT = Script.load("audit", "state", "audit")
HOOKS_TAKE = Script.load("claim_events", "state", "claim_events")
HOOKS_DONE = Script.load("ack_events", "state", "ack_events")

# What one script may do before others get their turn, in units of `lua/change_set.lua`.
WORK_PER_CALL = 300
# Writes need one connection, checks another; who reads waits for its turn.
MAX_READING = MAX_CONNECTIONS - 4
# What one audit looks at: a millisecond or two of Redis' time.
AUDITED_ROOMS = 20
AUDITED_MEMBERSHIPS = 1000
# Steps kept for publication: what a million users mean who leave while the bus is away.
OUTBOX_BYTES = 64 * 1024 * 1024


class _Change(msgspec.Struct, array_like=True, frozen=True):
    """A change as `lua/commit.lua` packs it."""

    kind: int
    user_id: str
    username: str
    rank: int
    seen: int
    data: str

    def on_the_wire(self, room: str | None = None) -> PresenceChange:
        """Return the change as followers receive it."""
        if self.kind == 1:
            user = user_record(self.user_id, self.username, STATUS_OF_RANK[self.rank], self.seen, self.data)
            return UserOnline(user=user) if room is None else UserOnline(user=user, room=room)
        if self.kind == 2:
            offline = UserOffline(user_id=self.user_id)
            return offline if room is None else UserOffline(user_id=self.user_id, room=room)
        if self.kind == 3:
            return StatusChanged(user_id=self.user_id, status=STATUS_OF_RANK[self.rank])
        return PresenceUpdated(user_id=self.user_id, custom_data=msgspec.Raw(self.data.encode()))


class _Settled(msgspec.Struct, array_like=True, frozen=True):
    """What `settle` in `lua/commit.lua` returns."""

    outcome: int
    epoch: str
    version: int
    changes: list[_Change]
    rooms: list[tuple[str, int, list[int | _Change], int]]
    notices: list[tuple[bool, str, str, str]]
    again: bool
    count: int
    step: int
    mark: int = 0

    def net_changes(self) -> Changes:
        """Return the changes as the store's interface has them."""
        return Changes(
            epoch=self.epoch,
            version=self.version,
            users=[change.on_the_wire() for change in self.changes],
            rooms=[
                RoomChanges(
                    room,
                    version,
                    [self._change(one).on_the_wire(room) for one in changes],
                    None if count < 0 else count,
                )
                for room, version, changes, count in self.rooms
            ],
            count=None if self.count < 0 else self.count,
            step=self.step,
            notices=[
                (UserJoined if joined else UserLeft)(user_id=user_id, username=username, room=room)
                for joined, user_id, username, room in self.notices
            ],
        )

    def _change(self, one: "int | _Change") -> _Change:
        return self.changes[one - 1] if isinstance(one, int) else one


_SETTLED = msgspec.msgpack.Decoder(_Settled)


# A user's record as `lua/state.lua` has it: name, data, rank, and what others do not see.
_RECORDS = msgspec.msgpack.Decoder(list[tuple[str, str, int, int, int, int, int, int]])
_IDS = msgspec.msgpack.Decoder(list[str])
_HOOK = msgspec.msgpack.Decoder(tuple[int, int, str, str, int])
_EVERYTHING = Telling()


# Beyond every mark.
_FAR = 2**53
_REMEMBERED_EPOCHS = 32


class _Answered:
    """What the store answered last: by it a script notices that the store was set back since."""

    def __init__(self) -> None:
        self._replica = secrets.token_hex(8)
        self._epoch = ""
        self._mark = 0
        self._version = 0
        self._ended: deque[str] = deque(maxlen=_REMEMBERED_EPOCHS)

    def arguments(self) -> list[Argument]:
        """Return ARGV[4] to ARGV[7] of `lua/change_set.lua`."""
        return [self._replica, self._epoch, self._mark, self._version]

    def note(self, settled: _Settled) -> None:
        """Take an answer; they come in the order in which the store gave them."""
        if settled.epoch == self._epoch:
            self._mark, self._version = max(self._mark, settled.mark), max(self._version, settled.version)
            return
        self._ended.append(self._epoch)
        # An epoch that had ended holds again: the store was set back beyond its end. The next step begins another.
        self._mark = _FAR if settled.epoch in self._ended else settled.mark
        self._epoch, self._version = settled.epoch, settled.version


class RedisPresenceStore:
    """A PresenceStore and a HookQueue in Redis.

    Args:
        redis: a client with short timeouts and `decode_responses=False`; closed by its owner.
        prefix: the deployment's; keys start with `{PREFIX:presence}`.
        clock: for tests, the time in ms in place of Redis' own.
        work: what one script may do, in units of `lua/change_set.lua`.
    """

    def __init__(
        self,
        redis: AnyRedis,
        prefix: str,
        timing: Timing,
        telling: Telling = _EVERYTHING,
        *,
        clock: Callable[[], int] = lambda: 0,
        work: int = WORK_PER_CALL,
    ) -> None:
        self._redis = redis
        self._writes = ScriptQueue(redis)
        self._reading = asyncio.Semaphore(MAX_READING)
        self._keys = [f"{{{prefix}:presence}}"]
        self._timing = timing
        self._telling = telling
        self._clock = clock
        self._answered = _Answered()
        self._policy = msgspec.msgpack.encode(
            {
                "lease_ms": timing.lease_ms,
                "grace_ms": timing.grace_ms,
                "idle_room_ms": timing.idle_room_ms,
                "outage_ms": timing.outage_ms,
                "hold_ms": timing.hold_ms,
                "confirm_ms": timing.confirm_ms,
                "room_limit": telling.room_limit,
                "online_limit": telling.online_limit,
                "hooks": int(telling.hooks),
                "hooks_kept": telling.hooks_kept,
                "outbox_bytes": OUTBOX_BYTES,
                "work": work,
            }
        )

    async def apply(self, batch: PresenceBatch) -> Applied:
        """Apply a batch; AGAIN while an earlier lease of the gateway has connections to let go."""
        settled = _SETTLED.decode(await self._write(APPLY, _pack(batch)))
        self._answered.note(settled)
        return Applied(Outcome(settled.outcome), settled.net_changes())

    async def sweep(self) -> Swept:
        """Let go some of what is due."""
        first, *overdue = [_SETTLED.decode(packed) for packed in await self._write(SWEEP)]
        self._answered.note(first)
        return Swept(first.net_changes(), first.again, [step.net_changes() for step in overdue])

    async def confirm(self, steps: list[int]) -> None:
        """Forget steps that have been published."""
        if steps:
            await self._read(CONFIRM, *steps)

    async def everyone(self, *, cursor: str = "", limit: int = 1000, unless_large: bool = False) -> Page:
        """Return a page of all users."""
        return await self._page("", cursor, limit, unless_large=unless_large)

    async def members(
        self, room: str, *, cursor: str = "", limit: int = 1000, unless_large: bool = False
    ) -> Page:
        """Return a page of a room's members."""
        return await self._page(room, cursor, limit, unless_large=unless_large)

    async def lookup(self, users: list[str], room: str | None = None) -> Page:
        """Return those of `users` who are online."""
        return await self._page(room or "", "", 0, wanted=msgspec.msgpack.encode(sorted(set(users))))

    async def rooms(self, limit: int) -> list[RoomSummary]:
        """Return the largest rooms."""
        flat = await self._read(ROOMS, limit)
        rows = zip(*[iter(flat)] * 3, strict=True)
        return [
            RoomSummary(room=room.decode(), users=users, connections=conns) for room, users, conns in rows
        ]

    async def stats(self) -> Stats:
        """Return counts."""
        users, connections, rooms, gateways = await self._read(STATS)
        return Stats(users, connections, rooms, gateways)

    async def audit(self) -> int:
        """Correct counts of everything, and of some rooms."""
        wrong: int = await self._read(AUDIT, AUDITED_ROOMS, AUDITED_MEMBERSHIPS)
        return wrong

    async def take_hooks(self, target: str, holder: str, hold_ms: int, limit: int) -> HookTurn:
        """Return the next events of a target."""
        epoch, lost, *packed = await self._read(HOOKS_TAKE, target, holder, hold_ms, limit, self._clock())
        events = [
            HookEvent(number, HookKind(kind), about, username, at_ms)
            for number, kind, about, username, at_ms in map(_HOOK.decode, packed)
        ]
        return HookTurn(epoch.decode(), lost, events)

    async def hooks_delivered(self, target: str, last: HookEvent) -> None:
        """Note what a target has got."""
        packed = msgspec.msgpack.encode((last.number, int(last.kind), last.about, last.username, last.at_ms))
        await self._read(HOOKS_DONE, target, "", packed, self._clock())

    async def give_up_hooks(self, target: str, holder: str) -> None:
        """End a turn."""
        await self._read(HOOKS_DONE, target, holder, "", self._clock())

    async def close(self) -> None:
        """Give up what is waiting."""
        await self._writes.close()

    async def _write(self, script: Script, *arguments: Argument) -> Any:
        common: list[Argument] = [self._policy, _new_epoch(), self._clock(), *self._answered.arguments()]
        return await self._writes.run(script, self._keys, [*common, *arguments])

    async def _read(self, script: Script, *arguments: Argument) -> Any:
        async with self._reading:
            return await script_queue.run(self._redis, script, self._keys, list(arguments))

    async def _page(
        self, room: str, cursor: str, limit: int, *, wanted: bytes = b"", unless_large: bool = False
    ) -> Page:
        size_limit = self._telling.room_limit if room else self._telling.online_limit
        epoch, version, ids, records, seen, more, count, large = await self._read(
            PAGE,
            room,
            cursor,
            limit,
            self._timing.idle_room_ms,
            _new_epoch(),
            self._clock(),
            wanted,
            size_limit,
            int(unless_large),
        )
        rows = zip(_IDS.decode(ids), _RECORDS.decode(records), map(int, seen.split()), strict=True)
        users = [
            user_record(user_id, username, STATUS_OF_RANK[rank], last_seen, data)
            for user_id, (username, data, rank, *_), last_seen in rows
        ]
        return Page(epoch.decode(), version, users, users[-1].user_id if more else "", count, bool(large))


def _new_epoch() -> str:
    return secrets.token_hex(8)


def _pack(batch: PresenceBatch) -> bytes:
    """Return a batch as `lua/apply.lua` reads it: only what cmsgpack knows, too."""
    ops = [_pack_op(op) for op in batch.ops]
    return msgspec.msgpack.encode((batch.gateway, batch.boot, batch.batch, batch.fresh, ops, batch.active))


def _pack_op(op: AnyPresenceOp) -> tuple[str | bool | int, ...]:
    if isinstance(op, Connected):
        return "c", op.connection_id, op.user_id, op.username, op.idle_ms
    if isinstance(op, Disconnected):
        return "d", op.connection_id, op.clean
    if isinstance(op, Joined):
        return "j", op.connection_id, op.room
    if isinstance(op, Left):
        return "l", op.connection_id, op.room
    if isinstance(op, DataSet):
        return "u", op.connection_id, msgspec.json.encode(op.custom_data).decode(), op.age_ms
    return "s", op.connection_id, RANK[op.status]
