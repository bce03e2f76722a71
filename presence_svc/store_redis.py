"""Presence state in Redis: one script per operation (`lua/`), Redis' clock, one hash tag for all keys.

Works on Redis 6.2 and later and on Valkey, alone or in a cluster (all keys are in one slot). Memory must
not be evicted (`maxmemory-policy noeviction`): a key that vanishes alone would leave users without their
connections.
"""

import secrets
from collections.abc import Callable
from typing import Any

import msgspec
from redis.asyncio import Redis

from presence_svc import scripts
from presence_svc.changes import Applied, Changes, Outcome, Page, RoomChanges, Stats, Swept, user_record
from presence_svc.scripts import Argument, Script, ScriptQueue
from presence_svc.status import RANK, STATUS_OF_RANK
from presence_svc.store import Timing
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

APPLY = Script.load("apply", "state", "ledger", "apply")
SWEEP = Script.load("sweep", "state", "ledger", "sweep")
PAGE = Script.load("page", "state", "page")
ROOMS = Script.load("rooms", "state", "rooms")
STATS = Script.load("stats", "state", "stats")

# What one script may do before others get their turn: about 10 ms of Redis' time.
WORK_PER_CALL = 500


class _Change(msgspec.Struct, array_like=True, frozen=True):
    """A change as `lua/ledger.lua` packs it."""

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
    """What `settle` in `lua/ledger.lua` returns."""

    outcome: int
    epoch: str
    version: int
    changes: list[_Change]
    rooms: list[tuple[str, int, list[_Change]]]
    notices: list[tuple[bool, str, str, str]]
    again: bool

    def net_changes(self) -> Changes:
        """Return the changes as the store's interface has them."""
        return Changes(
            epoch=self.epoch,
            version=self.version,
            users=[change.on_the_wire() for change in self.changes],
            rooms=[
                RoomChanges(room, version, [change.on_the_wire(room) for change in changes])
                for room, version, changes in self.rooms
            ],
            notices=[
                (UserJoined if joined else UserLeft)(user_id=user_id, username=username, room=room)
                for joined, user_id, username, room in self.notices
            ],
        )


_SETTLED = msgspec.msgpack.Decoder(_Settled)


# A user's record as `lua/state.lua` has it: name, data, rank, and what others do not see.
_RECORDS = msgspec.msgpack.Decoder(list[tuple[str, str, int, int, int, int, int]])
_IDS = msgspec.msgpack.Decoder(list[str])
_TIMES = msgspec.msgpack.Decoder(list[int])


class RedisPresenceStore:
    """A PresenceStore in Redis.

    Args:
        redis: a client with short timeouts and `decode_responses=False`; closed by its owner.
        prefix: the deployment's; keys start with `{PREFIX:presence}`.
        clock: for tests, the time in ms in place of Redis' own.
    """

    def __init__(
        self, redis: Redis, prefix: str, timing: Timing, *, clock: Callable[[], int] = lambda: 0
    ) -> None:
        self._redis = redis
        self._writes = ScriptQueue(redis)
        self._keys = [f"{{{prefix}:presence}}"]
        self._timing = timing
        self._clock = clock

    async def apply(self, batch: PresenceBatch) -> Applied:
        """Apply a batch; AGAIN while an earlier lease of the gateway has connections to let go."""
        settled = await self._write(
            APPLY,
            _pack(batch),
            self._timing.lease_ms,
            self._timing.grace_ms,
            self._timing.idle_room_ms,
            _new_epoch(),
            self._clock(),
            WORK_PER_CALL,
        )
        return Applied(Outcome(settled.outcome), settled.net_changes())

    async def sweep(self) -> Swept:
        """Let go some of what is due."""
        settled = await self._write(
            SWEEP,
            self._timing.grace_ms,
            self._timing.idle_room_ms,
            _new_epoch(),
            self._clock(),
            WORK_PER_CALL,
        )
        return Swept(settled.net_changes(), settled.again)

    async def everyone(self, *, cursor: str = "", limit: int = 1000) -> Page:
        """Return a page of all users."""
        return await self._page("", cursor, limit)

    async def members(self, room: str, *, cursor: str = "", limit: int = 1000) -> Page:
        """Return a page of a room's members."""
        return await self._page(room, cursor, limit)

    async def lookup(self, users: list[str], room: str | None = None) -> Page:
        """Return those of `users` who are online."""
        return await self._page(room or "", "", 0, msgspec.msgpack.encode(sorted(set(users))))

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

    async def close(self) -> None:
        """Give up what is waiting."""
        await self._writes.close()

    async def _write(self, script: Script, *arguments: Argument) -> _Settled:
        return _SETTLED.decode(await self._writes.run(script, self._keys, list(arguments)))

    async def _read(self, script: Script, *arguments: Argument) -> Any:
        return await scripts.run(self._redis, script, self._keys, list(arguments))

    async def _page(self, room: str, cursor: str, limit: int, wanted: bytes = b"") -> Page:
        epoch, version, ids, records, seen, more = await self._read(
            PAGE, room, cursor, limit, self._timing.idle_room_ms, _new_epoch(), self._clock(), wanted
        )
        rows = zip(_IDS.decode(ids), _RECORDS.decode(records), _TIMES.decode(seen), strict=True)
        users = [
            user_record(user_id, username, STATUS_OF_RANK[rank], last_seen, data)
            for user_id, (username, data, rank, *_), last_seen in rows
        ]
        return Page(epoch.decode(), version, users, users[-1].user_id if more else "")


def _new_epoch() -> str:
    return secrets.token_hex(8)


def _pack(batch: PresenceBatch) -> bytes:
    """Return a batch as `lua/apply.lua` reads it: only what cmsgpack knows, too."""
    ops = [_pack_op(op) for op in batch.ops]
    return msgspec.msgpack.encode((batch.gateway, batch.boot, batch.batch, batch.fresh, ops, batch.active))


def _pack_op(op: AnyPresenceOp) -> tuple[str | bool | int, ...]:
    if isinstance(op, Connected):
        return "c", op.connection_id, op.user_id, op.username
    if isinstance(op, Disconnected):
        return "d", op.connection_id, op.clean
    if isinstance(op, Joined):
        return "j", op.connection_id, op.room
    if isinstance(op, Left):
        return "l", op.connection_id, op.room
    if isinstance(op, DataSet):
        return "u", op.connection_id, msgspec.json.encode(op.custom_data).decode()
    return "s", op.connection_id, RANK[op.status]
