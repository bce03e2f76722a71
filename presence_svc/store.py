"""Presence state in Redis: one script per operation (`lua/`), Redis' clock, one hash tag for all keys.

Works on Redis 6.2 and later and on Valkey, alone or in a cluster (all keys are in one slot). Memory must
not be evicted (`maxmemory-policy noeviction`): a key that vanishes alone would leave users without their
connections.
"""

import asyncio
import secrets
from collections import deque
from collections.abc import Callable, Iterator
from typing import Any

import msgspec

from presence_svc import script_queue
from presence_svc.changes import (
    RANK,
    STATUS_OF_RANK,
    AppliedBatch,
    BatchResult,
    Changes,
    DeliveryLease,
    QueuedEvent,
    Sweep,
    raw_data,
    user_record,
)
from presence_svc.policy import AnnouncePolicy, LeaseTimings
from presence_svc.script_queue import ScriptQueue
from services.redis_client import MAX_CONNECTIONS, AnyRedis
from services.redis_scripts import Argument, Script
from services.wire.events import PresenceChange, PresenceDiff
from services.wire.records import UNSET, RoomSummary
from services.wire.rpc import (
    AnyPresenceOp,
    Connected,
    DataSet,
    Disconnected,
    Joined,
    Left,
    PresenceBatch,
    PresencePage,
    PresenceStats,
)
from services.wire.server import (
    PresenceUpdated,
    StatusChanged,
    UserJoined,
    UserLeft,
    UserOffline,
    UserOnline,
)


def _script(name: str, *before: str) -> Script:
    return Script.read("presence_svc", name, "state", *before, name)


APPLY = _script("apply", "change_set", "commit")
SWEEP = _script("sweep", "change_set", "commit")
ACK = _script("ack")
PAGE = _script("page")
ROOMS = _script("rooms")
STATS = _script("stats")
AUDIT = _script("audit")
CLAIM_EVENTS = _script("claim_events")
ACK_EVENTS = _script("ack_events")

# Operations of a batch, as `lua/apply.lua` names them.
CONNECT, DISCONNECT, JOIN, LEAVE, SET_STATUS, SET_DATA = "c", "d", "j", "l", "s", "u"
# Kinds of change, as `lua/commit.lua` numbers them; the fourth is a change of data.
ONLINE, OFFLINE, STATUS = 1, 2, 3

# What one script may do before others get their turn, in units of `lua/change_set.lua`.
WORK_PER_CALL = 300
# Writes need one connection, checks another; reads wait for the others.
MAX_READING = MAX_CONNECTIONS - 4
# What one audit looks at: a millisecond or two of Redis' time.
AUDITED_ROOMS = 20
AUDITED_MEMBERSHIPS = 1000
# Limit of the steps kept until published: the changes of a million users who leave while the bus is away.
OUTBOX_BYTES = 64 * 1024 * 1024


class _PackedChange(msgspec.Struct, array_like=True, frozen=True):
    """A change as `lua/commit.lua` packs it."""

    kind: int
    user_id: str
    username: str
    rank: int
    seen: int
    data: str
    member_data: str = ""

    def to_change(self, room: str | None = None) -> PresenceChange:
        in_room = UNSET if room is None else room
        if self.kind == ONLINE:
            status = STATUS_OF_RANK[self.rank]
            user = user_record(self.user_id, self.username, status, self.seen, self.data, self.member_data)
            return UserOnline(user=user, room=in_room)
        if self.kind == OFFLINE:
            return UserOffline(user_id=self.user_id, room=in_room)
        if self.kind == STATUS:
            return StatusChanged(user_id=self.user_id, status=STATUS_OF_RANK[self.rank])
        return PresenceUpdated(user_id=self.user_id, custom_data=msgspec.Raw(self.data.encode()))


class _CommitResult(msgspec.Struct, array_like=True, frozen=True):
    """The answer of `commit` in `lua/commit.lua`."""

    outcome: int
    epoch: str
    version: int
    changes: list[_PackedChange]
    rooms: list[tuple[str, int, list[int | _PackedChange], int]]
    notices: list[tuple[bool, str, str, str]]
    more: bool
    count: int
    commit_id: int
    mark: int = 0
    shown: list[tuple[str, str, str]] = []

    def to_changes(self) -> Changes:
        return Changes(
            epoch=self.epoch,
            version=self.version,
            users=[change.to_change() for change in self.changes],
            rooms=[
                PresenceDiff(
                    epoch=self.epoch,
                    version=version,
                    changes=[self._change(one).to_change(room) for one in changes],
                    room=room,
                    count=UNSET if count < 0 else count,
                )
                for room, version, changes, count in self.rooms
            ],
            count=UNSET if self.count < 0 else self.count,
            commit_id=self.commit_id,
            notices=list(self._notices()),
        )

    def _notices(self) -> Iterator[UserJoined | UserLeft]:
        shown = {(user_id, room): raw_data(data) for user_id, room, data in self.shown}
        for joined, user_id, username, room in self.notices:
            if joined:
                member_data = shown.get((user_id, room), UNSET)
                yield UserJoined(user_id=user_id, username=username, room=room, member_data=member_data)
            else:
                yield UserLeft(user_id=user_id, username=username, room=room)

    def _change(self, one: "int | _PackedChange") -> _PackedChange:
        return self.changes[one - 1] if isinstance(one, int) else one


_COMMIT_RESULT = msgspec.msgpack.Decoder(_CommitResult)
# A user's record as in `lua/state.lua`: name, data, rank, and fields that others do not see.
_RECORDS = msgspec.msgpack.Decoder(list[tuple[str, str, int, int, int, int, int, int]])
_IDS = msgspec.msgpack.Decoder(list[str])
_MEMBER_DATA = msgspec.msgpack.Decoder(list[str | bool])
_EVENT = msgspec.msgpack.Decoder(QueuedEvent)

_BEYOND_EVERY_MARK = 2**53
_REMEMBERED_EPOCHS = 32


class _HighWaterMarks:
    """The highest mark and version that the store answered: a script that finds less knows that it was set back."""

    def __init__(self) -> None:
        self._replica = secrets.token_hex(8)
        self._epoch = ""
        self._mark = 0
        self._version = 0
        self._ended: deque[str] = deque(maxlen=_REMEMBERED_EPOCHS)

    def arguments(self) -> list[Argument]:
        """Return ARGV[4] to ARGV[7] of `lua/change_set.lua`."""
        return [self._replica, self._epoch, self._mark, self._version]

    def update(self, result: _CommitResult) -> None:
        """Note an answer; they come in the order in which the store gave them."""
        if result.epoch == self._epoch:
            self._mark, self._version = max(self._mark, result.mark), max(self._version, result.version)
            return
        self._ended.append(self._epoch)
        # An epoch that had ended is current again: the store was set back beyond its end. The next step begins another.
        self._mark = _BEYOND_EVERY_MARK if result.epoch in self._ended else result.mark
        self._epoch, self._version = result.epoch, result.version


class PresenceStore:
    """Who is online, and events for webhooks. All operations raise PresenceStoreUnavailable.

    Every operation is one atomic step, and results say what changed. An operation may be repeated when its
    answer was lost: batches carry their number, and sweeping finds nothing due a second time.

    Args:
        redis: a client with short timeouts and `decode_responses=False`; closed by its owner.
        prefix: the deployment's; keys start with `{PREFIX:presence}`.
        clock: for tests, the time in ms in place of Redis' own.
        work: limit of one script, in units of `lua/change_set.lua`.
    """

    def __init__(
        self,
        redis: AnyRedis,
        prefix: str,
        timings: LeaseTimings,
        policy: AnnouncePolicy | None = None,
        *,
        clock: Callable[[], int] = lambda: 0,
        work: int = WORK_PER_CALL,
    ) -> None:
        self._redis = redis
        self._writes = ScriptQueue(redis)
        self._reading = asyncio.Semaphore(MAX_READING)
        self._keys = [f"{{{prefix}:presence}}"]
        self._timings = timings
        self._policy = policy or AnnouncePolicy()
        self._clock = clock
        self._marks = _HighWaterMarks()
        limits = {"outbox_bytes": OUTBOX_BYTES, "work": work}
        self._packed_policy = msgspec.msgpack.encode(
            msgspec.to_builtins(timings) | msgspec.to_builtins(self._policy) | limits
        )

    async def apply(self, batch: PresenceBatch) -> AppliedBatch:
        """Renew a gateway's lease and apply its operations; on `PARTIAL` call again with the same batch.

        The changes of every piece are to be published.
        """
        result = _COMMIT_RESULT.decode(await self._write(APPLY, _pack(batch)))
        self._marks.update(result)
        return AppliedBatch(BatchResult(result.outcome), result.to_changes())

    async def sweep(self) -> Sweep:
        """Expire what is due: leases not renewed, and graces that have ended. Any number may sweep at once."""
        first, *unacked = [_COMMIT_RESULT.decode(packed) for packed in await self._write(SWEEP)]
        self._marks.update(first)
        return Sweep(first.to_changes(), first.more, [step.to_changes() for step in unacked])

    async def ack(self, commit_ids: list[int]) -> None:
        """Forget steps whose changes have reached the bus; others are returned by a later sweep."""
        if commit_ids:
            await self._read(ACK, *commit_ids)

    async def page(
        self, room: str | None = None, *, cursor: str = "", limit: int = 1000, for_follower: bool = False
    ) -> PresencePage:
        """Return up to `limit` users after `cursor`, by id (bytes of UTF-8): members of a room, or everyone.

        `for_follower` where the caller follows the scope from here: no users where only counts are announced, and the
        version of an empty room is kept for a while. Without it, reading changes nothing.
        """
        return await self._page(room or "", cursor, limit, for_follower=for_follower)

    async def lookup(self, users: list[str], room: str | None = None) -> PresencePage:
        """Return those of `users` that are online (with `room`: that are members of it). One page, in order."""
        return await self._page(room or "", "", 0, wanted=msgspec.msgpack.encode(sorted(set(users))))

    async def rooms(self, limit: int) -> list[RoomSummary]:
        """Return the rooms with members, most users first (ties: by name, descending)."""
        flat = await self._read(ROOMS, limit)
        rows = zip(*[iter(flat)] * 3, strict=True)
        return [
            RoomSummary(room=room.decode(), users=users, connections=conns) for room, users, conns in rows
        ]

    async def stats(self) -> PresenceStats:
        users, connections, rooms, gateways = await self._read(STATS)
        return PresenceStats(users=users, connections=connections, rooms=rooms, gateways=gateways)

    async def audit(self) -> int:
        """Compare some counts with what they count, and correct them. Returns the number of wrong ones."""
        wrong: int = await self._read(AUDIT, AUDITED_ROOMS, AUDITED_MEMBERSHIPS)
        return wrong

    async def claim_events(self, target: str, owner: str, lease_ms: int, limit: int) -> DeliveryLease:
        """Return the oldest events not delivered to a webhook target, none while another owner has the lease.

        A target exists from its first call on; events wait for it until it has them. It is forgotten after a day
        without a call. `limit` 0 only extends the lease.
        """
        epoch, dropped, *packed = await self._read(
            CLAIM_EVENTS, target, owner, lease_ms, limit, self._clock()
        )
        return DeliveryLease(epoch.decode(), dropped, list(map(_EVENT.decode, packed)))

    async def ack_events(self, target: str, last: QueuedEvent) -> None:
        """Note that a target has the events up to `last`, and forget those that all targets have."""
        await self._read(ACK_EVENTS, target, "", msgspec.msgpack.encode(last), self._clock())

    async def release_events(self, target: str, owner: str) -> None:
        """End an owner's lease, if it has it."""
        await self._read(ACK_EVENTS, target, owner, "", self._clock())

    async def close(self) -> None:
        """Fail calls that wait."""
        await self._writes.close()

    async def _write(self, script: Script, *arguments: Argument) -> Any:
        common = [self._packed_policy, secrets.token_hex(8), self._clock(), *self._marks.arguments()]
        return await self._writes.run(script, self._keys, [*common, *arguments])

    async def _read(self, script: Script, *arguments: Argument) -> Any:
        async with self._reading:
            return await script_queue.run(self._redis, script, self._keys, list(arguments))

    async def _page(
        self, room: str, cursor: str, limit: int, *, wanted: bytes = b"", for_follower: bool = False
    ) -> PresencePage:
        epoch, version, ids, records, seen, more, count, counts_only, member_data = await self._read(
            PAGE,
            room,
            cursor,
            limit,
            self._timings.idle_room_ms,
            secrets.token_hex(8),
            self._clock(),
            wanted,
            self._policy.room_limit if room else self._policy.online_limit,
            int(for_follower),
        )
        user_ids = _IDS.decode(ids)
        shown = _MEMBER_DATA.decode(member_data) or [False] * len(user_ids)
        rows = zip(user_ids, _RECORDS.decode(records), map(int, seen.split()), shown, strict=True)
        users = [
            user_record(user_id, username, STATUS_OF_RANK[rank], last_seen, data, _without_time(value))
            for user_id, (username, data, rank, *_), last_seen, value in rows
        ]
        return PresencePage(
            epoch=epoch.decode(),
            version=version,
            users=users,
            cursor=users[-1].user_id if more else "",
            count=count,
            counts_only=bool(counts_only),
        )


def _without_time(value: str | bool) -> str:
    """Return the JSON text of a value of member data (see `lua/state.lua`)."""
    return value.partition(" ")[2] if isinstance(value, str) else ""


def _pack(batch: PresenceBatch) -> bytes:
    """Return a batch as `lua/apply.lua` reads it, in types that cmsgpack knows."""
    ops = [_pack_op(op) for op in batch.ops]
    return msgspec.msgpack.encode((batch.gateway, batch.boot, batch.batch, batch.fresh, ops, batch.active))


def _pack_op(op: AnyPresenceOp) -> tuple[str | bool | int, ...]:
    if isinstance(op, Connected):
        return CONNECT, op.connection_id, op.user_id, op.username, op.idle_ms
    if isinstance(op, Disconnected):
        return DISCONNECT, op.connection_id, op.clean
    if isinstance(op, Joined):
        if op.data is UNSET:
            return JOIN, op.connection_id, op.room
        return JOIN, op.connection_id, op.room, msgspec.json.encode(op.data).decode(), op.age_ms
    if isinstance(op, Left):
        return LEAVE, op.connection_id, op.room
    if isinstance(op, DataSet):
        return SET_DATA, op.connection_id, msgspec.json.encode(op.custom_data).decode(), op.age_ms
    return SET_STATUS, op.connection_id, RANK[op.status]
