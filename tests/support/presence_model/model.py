"""The rules of presence in memory: operations and the time go in, changes come out.

Connections come and go; users and their membership in rooms follow from them:

- A user is online while one of their connections is live, or a grace runs. A connection that was lost (its
  gateway died, or its socket broke) starts a grace; any new connection of the user ends it. A user is a
  member of a room likewise: while one of their connections is in it, or a grace of that membership runs,
  which a new join ends.
- A connection that closed cleanly, or left the room, starts no grace.
- The strongest status of the connections is the user's (`strongest`). A lost connection's status
  counts until its grace ends, and a reconnect within it starts with that status: a reload is no change.
- The lease of a gateway carries its connections. When it is opened again, or expires, all of them are lost.
- After an outage of the sweepers nothing expires until gateways had time to report.

The rules of the product are the scripts in `presence_svc/lua`; one suite of tests runs on both.
"""

import secrets
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

import msgspec

from presence_svc.changes import (
    RANK,
    AppliedBatch,
    BatchResult,
    Changes,
    DeliveryLease,
    QueuedEvent,
    Sweep,
    user_record,
)
from presence_svc.policy import AnnouncePolicy, LeaseTimings
from services.wire.records import UNSET, RoomSummary, Status, User
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
    StatusSet,
)
from tests.support.presence_model.change_set import EVERYONE, ChangeSet
from tests.support.presence_model.queues import Outbox, WebhookQueue

# A gateway restarts seldom; a batch of an earlier incarnation may still be on its way when the next one opens.
PAST_INCARNATIONS = 8


@dataclass(slots=True)
class LiveConnection:
    """One live connection."""

    user_id: str
    status: Status
    rooms: list[str] = field(default_factory=list)


@dataclass(slots=True)
class GatewayLease:
    """One gateway's connections: until `due` (ms), unless the next batch renews it."""

    incarnation: str
    batch: int
    due: int
    connections: dict[str, LiveConnection] = field(default_factory=dict)
    past: deque[str] = field(default_factory=lambda: deque(maxlen=PAST_INCARNATIONS))


@dataclass(slots=True)
class Membership:
    """A user in a room: live connections there, the end (ms) of a lost one's grace, and what the user shows there."""

    connections: int = 0
    grace_due: int | None = None
    data: str = ""
    data_at: int = 0

    @property
    def is_present(self) -> bool:
        return self.connections > 0 or self.grace_due is not None


@dataclass(slots=True)
class OnlineUser:
    """A user who is online. `lingering_status` is the strongest one of lost connections in their grace."""

    username: str
    last_seen: int
    data: str = ""
    data_at: int = 0
    live: dict[Status, int] = field(default_factory=lambda: dict.fromkeys(Status, 0))
    lingering_status: Status | None = None
    grace_due: int | None = None
    rooms: dict[str, Membership] = field(default_factory=dict)

    @property
    def is_present(self) -> bool:
        return self.lingering_status is not None or any(self.live.values())

    @property
    def status(self) -> Status:
        present = [status for status, count in self.live.items() if count]
        return (
            strongest([*present, self.lingering_status] if self.lingering_status else present)
            or Status.ONLINE
        )


class MemoryPresenceStore:
    """A `PresenceStore` in this process. `clock` returns the time in ms."""

    def __init__(
        self, timings: LeaseTimings, clock: Callable[[], int], policy: AnnouncePolicy | None = None
    ) -> None:
        policy = policy or AnnouncePolicy()
        self._timings = timings
        self._clock = clock
        self._leases: dict[str, GatewayLease] = {}
        self._users: dict[str, OnlineUser] = {}
        self._outbox = Outbox(timings.ack_within_ms)
        self._queue = WebhookQueue(policy)
        self._set = ChangeSet(_new_epoch(), self._users, policy, self._queue)
        self._replaced: list[GatewayLease] = []
        self._swept_at: int | None = None
        self._paused_until = 0

    # --- writing ---

    async def apply(self, batch: PresenceBatch) -> AppliedBatch:
        """Renew the lease and apply the operations of a batch.

        A new epoch begins when a batch is missing: what was acknowledged before has been lost, so versions may have
        been given twice.
        """
        now = self._clock()
        lease = self._leases.get(batch.gateway)
        if lease is not None:
            if batch.boot in lease.past:
                return self._answer(BatchResult.FENCED)
            if batch.boot == lease.incarnation and batch.batch <= lease.batch:
                return self._answer(BatchResult.DUPLICATE)
        if batch.fresh:
            lease = self._open(batch, lease, now)
        elif lease is None or lease.incarnation != batch.boot:
            return self._answer(BatchResult.RESYNC)
        elif batch.batch > lease.batch + 1:
            self._set.epoch = _new_epoch()
            return self._answer(BatchResult.RESYNC)
        lease.batch = batch.batch
        lease.due = now + self._timings.lease_ms
        for op in batch.ops:
            self._apply_op(lease, op, now)
        for user_id in batch.active:
            if user := self._users.get(user_id):
                user.last_seen = max(user.last_seen, now)
        return AppliedBatch(BatchResult.APPLIED, self._commit(now))

    async def sweep(self) -> Sweep:
        """Expire everything that is due."""
        now = self._clock()
        if not self._is_paused(now):
            self._expire(now)
        changes = self._commit(now)
        if not now < self._paused_until:
            self._set.forget_idle_rooms(now)
        unacked = self._outbox.unacked(now, self._set.epoch, self._is_member)
        return Sweep(changes, more=False, unacked=unacked)

    async def ack(self, commit_ids: list[int]) -> None:
        """Forget commits that have been published."""
        self._outbox.ack(commit_ids)

    async def claim_events(self, target: str, owner: str, lease_ms: int, limit: int) -> DeliveryLease:
        """Return the next events of a target."""
        return self._queue.claim(target, owner, lease_ms, limit, self._clock(), self._set.epoch)

    async def ack_events(self, target: str, last: QueuedEvent) -> None:
        """Note the last event of a target."""
        self._queue.ack(target, last, self._clock())

    async def release_events(self, target: str, owner: str) -> None:
        """End a lease."""
        self._queue.release(target, owner, self._clock())

    def _is_paused(self, now: int) -> bool:
        """Whether gateways get time to report first, after an outage of the sweepers."""
        last = now if self._swept_at is None else self._swept_at
        self._swept_at = now
        if self._timings.recovery_pause_ms and now - last > self._timings.outage_after_ms:
            self._paused_until = now + self._timings.recovery_pause_ms
            for lease in self._leases.values():
                lease.due = max(lease.due, self._paused_until)
        return now < self._paused_until

    def _expire(self, now: int) -> None:
        for gateway, lease in list(self._leases.items()):
            if lease.due <= now:
                del self._leases[gateway]
                self._lose_all(lease, now)
        for lease in [lease for lease in self._replaced if lease.due <= now]:
            self._replaced.remove(lease)
            self._lose_all(lease, now)
        for user_id, user in list(self._users.items()):
            for room, membership in list(user.rooms.items()):
                if membership.grace_due is not None and membership.grace_due <= now:
                    self._set.track(user_id)
                    membership.grace_due = None
                    self._drop_if_left(user, room)
            if user.grace_due is not None and user.grace_due <= now:
                self._set.track(user_id)
                user.grace_due = user.lingering_status = None

    def _is_member(self, user_id: str, room: str) -> bool:
        user = self._users.get(user_id)
        return user is not None and room in user.rooms

    def _open(self, batch: PresenceBatch, old: GatewayLease | None, now: int) -> GatewayLease:
        lease = GatewayLease(batch.boot, batch.batch, now + self._timings.lease_ms)
        if old is not None:
            lease.past.extend(old.past)
            if old.incarnation != batch.boot:
                lease.past.append(old.incarnation)
            if self._timings.grace_ms:
                self._lose_all(old, now)
            else:  # no grace covers the announcement: the old connections stay valid beside it for a lease
                old.due = now + self._timings.lease_ms
                self._replaced.append(old)
        self._leases[batch.gateway] = lease
        return lease

    def _apply_op(self, lease: GatewayLease, op: AnyPresenceOp, now: int) -> None:
        """Apply one operation. An operation on an unknown connection changes nothing: it is late."""
        if isinstance(op, Connected):
            if op.connection_id not in lease.connections:
                lease.connections[op.connection_id] = self._connect(op, now)
            return
        connection = lease.connections.get(op.connection_id)
        if connection is None:
            return
        self._set.track(connection.user_id)
        user = self._users[connection.user_id]
        if isinstance(op, Disconnected):
            del lease.connections[op.connection_id]
            self._disconnect(connection, None if op.clean else now)
            return
        if isinstance(op, Joined):
            if op.room not in connection.rooms:
                connection.rooms.append(op.room)
                membership = user.rooms.setdefault(op.room, Membership())
                membership.connections += 1
                membership.grace_due = None
                self._set.count_connections(op.room, +1)
            shown = user.rooms[op.room]
            if op.data is not UNSET and (not op.age_ms or now - op.age_ms >= shown.data_at):
                shown.data, shown.data_at = msgspec.json.encode(op.data).decode(), now - op.age_ms
        elif isinstance(op, Left):
            if op.room in connection.rooms:
                connection.rooms.remove(op.room)
                membership = user.rooms[op.room]
                membership.connections -= 1
                self._set.count_connections(op.room, -1)
                if not membership.connections:
                    # The user left on purpose: the grace of a lost connection ends.
                    del user.rooms[op.room]
        elif isinstance(op, StatusSet):
            user.live[connection.status] -= 1
            connection.status = op.status
            user.live[connection.status] += 1
        elif isinstance(op, DataSet) and (not op.age_ms or now - op.age_ms >= user.data_at):
            # A repeated announcement has data set a while ago; data that another connection set since then wins.
            # Data set just now always wins: the clock may have stepped back.
            user.data, user.data_at = msgspec.json.encode(op.custom_data).decode(), now - op.age_ms

    def _connect(self, op: Connected, now: int) -> LiveConnection:
        self._set.track(op.user_id)
        user = self._users.setdefault(op.user_id, OnlineUser(op.username, 0))
        connection = LiveConnection(op.user_id, user.lingering_status or Status.ONLINE)
        user.username = op.username
        user.last_seen = max(user.last_seen, now - op.idle_ms)
        user.live[connection.status] += 1
        user.lingering_status = user.grace_due = None
        return connection

    def _lose_all(self, lease: GatewayLease, now: int) -> None:
        for connection in lease.connections.values():
            self._set.track(connection.user_id)
            self._disconnect(connection, now)

    def _disconnect(self, connection: LiveConnection, lost_at: int | None) -> None:
        """Remove a connection: with grace if it was lost (ms), without if it closed cleanly."""
        grace_due = None
        if lost_at is not None and self._timings.grace_ms:
            grace_due = lost_at + self._timings.grace_ms
        user = self._users[connection.user_id]
        for room in connection.rooms:
            membership = user.rooms[room]
            membership.connections -= 1
            membership.grace_due = _later(membership.grace_due, grace_due)
            self._set.count_connections(room, -1)
            self._drop_if_left(user, room)
        user.live[connection.status] -= 1
        if grace_due is not None:
            user.lingering_status = strongest([connection.status, user.lingering_status or connection.status])
            user.grace_due = _later(user.grace_due, grace_due)

    @staticmethod
    def _drop_if_left(user: OnlineUser, room: str) -> None:
        if not user.rooms[room].is_present:
            del user.rooms[room]

    def _commit(self, now: int) -> Changes:
        """Drop users who are gone, and return the net changes."""
        for user_id in self._set.dirty:
            user = self._users.get(user_id)
            if user is not None and not user.is_present:
                del self._users[user_id]
        return self._outbox.keep(self._set.commit(now, self._timings.idle_room_ms), now)

    def _answer(self, result: BatchResult) -> AppliedBatch:
        return AppliedBatch(result, Changes(self._set.epoch, self._set.version))

    # --- reading ---

    async def page(
        self, room: str | None = None, *, cursor: str = "", limit: int = 1000, for_follower: bool = False
    ) -> PresencePage:
        """Return a page of users, or of a room's members."""
        if room is None:
            scope, ids, version = EVERYONE, sorted(self._users), self._set.version
        else:
            scope, ids = room, sorted(user_id for user_id, user in self._users.items() if room in user.rooms)
            pin, idle_room_ms = self._set.pin_version, self._timings.idle_room_ms
            version = pin(room, self._clock(), idle_room_ms) if for_follower else self._set.room_version(room)
        if for_follower and scope in self._set.counts_only:
            users, cursor = [], ""
        else:
            rest = [user_id for user_id in ids if user_id > cursor]
            users = [self._user(user_id, room) for user_id in rest[:limit]]
            cursor = users[-1].user_id if users and len(rest) > limit else ""
        return self._page(scope, version, users, len(ids), cursor)

    async def lookup(self, users: list[str], room: str | None = None) -> PresencePage:
        """Return those of `users` who are online, or in the room."""
        found = {u for u in users if (p := self._users.get(u)) and (room is None or room in p.rooms)}
        version = self._set.version if room is None else self._set.room_version(room)
        size = len(self._users) if room is None else self._set.room_users[room]
        records = [self._user(user_id, room) for user_id in sorted(found)]
        return self._page(room or EVERYONE, version, records, size)

    def _page(
        self, scope: str, version: int, users: list[User], count: int, cursor: str = ""
    ) -> PresencePage:
        return PresencePage(
            epoch=self._set.epoch,
            version=version,
            users=users,
            cursor=cursor,
            count=count,
            counts_only=scope in self._set.counts_only,
        )

    async def rooms(self, limit: int) -> list[RoomSummary]:
        """Return the largest rooms."""
        return self._set.largest_rooms(limit)

    async def stats(self) -> PresenceStats:
        """Return counts."""
        return PresenceStats(
            users=len(self._users),
            connections=sum(len(lease.connections) for lease in [*self._leases.values(), *self._replaced]),
            rooms=len(self._set.room_users),
            gateways=len(self._leases),
        )

    async def audit(self) -> int:
        """Correct nothing: the model has no counts beside what they count."""
        return 0

    def _user(self, user_id: str, room: str | None = None) -> User:
        user = self._users[user_id]
        member_data = "" if room is None else user.rooms[room].data
        return user_record(user_id, user.username, user.status, user.last_seen, user.data, member_data)


def strongest(statuses: Iterable[Status]) -> Status | None:
    """Return the status that wins, or None of none. The order of `statuses` does not matter."""
    return max(statuses, key=RANK.__getitem__, default=None)


def _new_epoch() -> str:
    return secrets.token_hex(8)


def _later(a: int | None, b: int | None) -> int | None:
    return max(a, b) if a is not None and b is not None else a if b is None else b
