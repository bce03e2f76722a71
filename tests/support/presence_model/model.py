"""The rules of presence, pure: operations and the time go in, changes come out. No I/O, no clock.

Connections come and go; users and their membership in rooms follow from them:

- A user is online while a connection of theirs lives, or a grace runs. A connection that was lost (its
  gateway died, or its socket broke) starts a grace; any new connection of the user ends it. A user is a
  member of a room likewise: while one of their connections is in it, or a grace of that membership runs,
  which a new join ends.
- A connection that closed cleanly, or left the room, starts no grace.
- The strongest status of the connections is the user's (`strongest`). A lost connection's status
  counts until its grace ends, and the connection that comes back within it starts with that status: a
  reload is no change.
- The lease of a gateway carries its connections. Opening it afresh, or letting it expire, loses all of them.
- When nobody swept for a while, nobody was heard either: nothing is let go until they had time to speak.

The rules of the product are the scripts in `presence_svc/lua`; one suite of tests runs on both.
"""

from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, field

import msgspec

from presence_svc.changes import Applied, Changes, Outcome, Page, Stats, Swept, user_record
from presence_svc.policy import Telling, Timing
from presence_svc.status import RANK
from services.wire.records import RoomSummary, Status, User
from services.wire.rpc import (
    AnyPresenceOp,
    Connected,
    DataSet,
    Disconnected,
    Joined,
    Left,
    PresenceBatch,
    StatusSet,
)
from tests.support.presence_model.change_set import EVERYONE, Ledger
from tests.support.presence_model.queues import Hooks, Outbox

# A gateway restarts seldom; a batch of the last few boots but one may still be on its way when the next one
# opens.
REMEMBERED_BOOTS = 8


@dataclass(slots=True)
class Connection:
    """One live connection."""

    user_id: str
    status: Status
    rooms: list[str] = field(default_factory=list)


@dataclass(slots=True)
class Lease:
    """What holds one gateway's connections: until `due` (ms), unless the next batch renews it."""

    boot: str
    batch: int
    due: int
    connections: dict[str, Connection] = field(default_factory=dict)
    retired: deque[str] = field(default_factory=lambda: deque(maxlen=REMEMBERED_BOOTS))


@dataclass(slots=True)
class Membership:
    """A user in a room: live connections there, and until when (ms) a lost one may come back."""

    connections: int = 0
    grace_due: int | None = None

    @property
    def holds(self) -> bool:
        return self.connections > 0 or self.grace_due is not None


@dataclass(slots=True)
class Person:
    """A user who is online. `ghost` is the strongest status of lost connections whose grace runs."""

    username: str
    last_seen: int
    data: str = ""
    data_at: int = 0
    live: dict[Status, int] = field(default_factory=lambda: dict.fromkeys(Status, 0))
    ghost: Status | None = None
    grace_due: int | None = None
    rooms: dict[str, Membership] = field(default_factory=dict)

    @property
    def holds(self) -> bool:
        return self.ghost is not None or any(self.live.values())

    @property
    def status(self) -> Status:
        present = [status for status, count in self.live.items() if count]
        return strongest([*present, self.ghost] if self.ghost else present) or Status.ONLINE


class Presence:
    """All of it, in memory."""

    def __init__(self, timing: Timing, epoch: str, telling: Telling) -> None:
        self.timing = timing
        self.leases: dict[str, Lease] = {}
        self.people: dict[str, Person] = {}
        self.outbox = Outbox(timing.confirm_ms)
        self.hooks = Hooks(telling)
        self.ledger = Ledger(epoch, self.people, telling, self.hooks)
        self._replaced: list[Lease] = []
        self._swept_at: int | None = None
        self._hold_until = 0

    # --- what changes ---

    def apply(self, batch: PresenceBatch, now: int, new_epoch: str) -> Applied:
        """Renew the lease and apply the operations of a batch.

        `new_epoch` becomes the epoch when a batch is missing: what was acknowledged before has been lost, so
        versions may have been given twice.
        """
        lease = self.leases.get(batch.gateway)
        if lease is not None:
            if batch.boot in lease.retired:
                return self._answer(Outcome.SUPERSEDED)
            if batch.boot == lease.boot and batch.batch <= lease.batch:
                return self._answer(Outcome.REPEATED)
        if batch.fresh:
            lease = self._open(batch, lease, now)
        elif lease is None or lease.boot != batch.boot:
            return self._answer(Outcome.UNKNOWN)
        elif batch.batch > lease.batch + 1:
            self.ledger.epoch = new_epoch
            return self._answer(Outcome.UNKNOWN)
        lease.batch = batch.batch
        lease.due = now + self.timing.lease_ms
        for op in batch.ops:
            self._apply_op(lease, op, now)
        for user_id in batch.active:
            if person := self.people.get(user_id):
                person.last_seen = max(person.last_seen, now)
        return Applied(Outcome.APPLIED, self._settle(now))

    def sweep(self, now: int) -> Swept:
        """Let go everything that is due."""
        if not self._holds_back(now):
            self._let_go(now)
        changes = self._settle(now)
        if not now < self._hold_until:
            self.ledger.forget_idle_rooms(now)
        return Swept(
            changes, again=False, overdue=self.outbox.overdue(now, self.ledger.epoch, self._is_member)
        )

    def _holds_back(self, now: int) -> bool:
        """Whether gateways get time to speak first, because nobody could hear them for a while."""
        last = now if self._swept_at is None else self._swept_at
        self._swept_at = now
        if self.timing.hold_ms and now - last > self.timing.outage_ms:
            self._hold_until = now + self.timing.hold_ms
            for lease in self.leases.values():
                lease.due = max(lease.due, self._hold_until)
        return now < self._hold_until

    def _let_go(self, now: int) -> None:
        for gateway, lease in list(self.leases.items()):
            if lease.due <= now:
                del self.leases[gateway]
                self._lose_all(lease, now)
        for lease in [lease for lease in self._replaced if lease.due <= now]:
            self._replaced.remove(lease)
            self._lose_all(lease, now)
        for user_id, person in list(self.people.items()):
            for room, membership in list(person.rooms.items()):
                if membership.grace_due is not None and membership.grace_due <= now:
                    self.ledger.touch(user_id)
                    membership.grace_due = None
                    self._drop_unheld(person, room)
            if person.grace_due is not None and person.grace_due <= now:
                self.ledger.touch(user_id)
                person.grace_due = person.ghost = None

    def _is_member(self, user_id: str, room: str) -> bool:
        person = self.people.get(user_id)
        return person is not None and room in person.rooms

    def _open(self, batch: PresenceBatch, old: Lease | None, now: int) -> Lease:
        lease = Lease(batch.boot, batch.batch, now + self.timing.lease_ms)
        if old is not None:
            lease.retired.extend(old.retired)
            if old.boot != batch.boot:
                lease.retired.append(old.boot)
            if self.timing.grace_ms:
                self._lose_all(old, now)
            else:  # no grace bridges the announcement: the old connections live on beside it for a lease
                old.due = now + self.timing.lease_ms
                self._replaced.append(old)
        self.leases[batch.gateway] = lease
        return lease

    def _apply_op(self, lease: Lease, op: AnyPresenceOp, now: int) -> None:
        """Apply one operation. Those on connections that are not there change nothing: they are late."""
        if isinstance(op, Connected):
            if op.connection_id not in lease.connections:
                lease.connections[op.connection_id] = self._connect(op, now)
            return
        connection = lease.connections.get(op.connection_id)
        if connection is None:
            return
        self.ledger.touch(connection.user_id)
        person = self.people[connection.user_id]
        if isinstance(op, Disconnected):
            del lease.connections[op.connection_id]
            self._disconnect(connection, None if op.clean else now)
            return
        if isinstance(op, Joined):
            if op.room not in connection.rooms:
                connection.rooms.append(op.room)
                membership = person.rooms.setdefault(op.room, Membership())
                membership.connections += 1
                membership.grace_due = None
                self.ledger.count_connections(op.room, +1)
        elif isinstance(op, Left):
            if op.room in connection.rooms:
                connection.rooms.remove(op.room)
                membership = person.rooms[op.room]
                membership.connections -= 1
                self.ledger.count_connections(op.room, -1)
                if not membership.connections:
                    del person.rooms[
                        op.room
                    ]  # they said that they leave: a lost connection is not waited for
        elif isinstance(op, StatusSet):
            person.live[connection.status] -= 1
            connection.status = op.status
            person.live[connection.status] += 1
        elif isinstance(op, DataSet) and (not op.age_ms or now - op.age_ms >= person.data_at):
            # What a gateway announces again was set a while ago; what another connection set since then holds.
            # What was set just now always holds: the clock may have stepped back.
            person.data, person.data_at = msgspec.json.encode(op.custom_data).decode(), now - op.age_ms

    def _connect(self, op: Connected, now: int) -> Connection:
        self.ledger.touch(op.user_id)
        person = self.people.setdefault(op.user_id, Person(op.username, 0))
        connection = Connection(op.user_id, person.ghost or Status.ONLINE)
        person.username = op.username
        person.last_seen = max(person.last_seen, now - op.idle_ms)
        person.live[connection.status] += 1
        person.ghost = person.grace_due = None
        return connection

    def _lose_all(self, lease: Lease, now: int) -> None:
        for connection in lease.connections.values():
            self.ledger.touch(connection.user_id)
            self._disconnect(connection, now)

    def _disconnect(self, connection: Connection, lost_at: int | None) -> None:
        """Take a connection away: with grace if it was lost (ms), without if it closed cleanly."""
        grace_due = None
        if lost_at is not None and self.timing.grace_ms:
            grace_due = lost_at + self.timing.grace_ms
        person = self.people[connection.user_id]
        for room in connection.rooms:
            membership = person.rooms[room]
            membership.connections -= 1
            membership.grace_due = _later(membership.grace_due, grace_due)
            self.ledger.count_connections(room, -1)
            self._drop_unheld(person, room)
        person.live[connection.status] -= 1
        if grace_due is not None:
            person.ghost = strongest([connection.status, person.ghost or connection.status])
            person.grace_due = _later(person.grace_due, grace_due)

    @staticmethod
    def _drop_unheld(person: Person, room: str) -> None:
        if not person.rooms[room].holds:
            del person.rooms[room]

    def _settle(self, now: int) -> Changes:
        """Drop those who are gone, and return the net changes."""
        for user_id in self.ledger.touched:
            person = self.people.get(user_id)
            if person is not None and not person.holds:
                del self.people[user_id]
        return self.outbox.keep(self.ledger.settle(now, self.timing.idle_room_ms), now)

    def _answer(self, outcome: Outcome) -> Applied:
        return Applied(outcome, Changes(self.ledger.epoch, self.ledger.version))

    # --- what is asked ---

    def everyone(self, cursor: str, limit: int, unless_large: bool) -> Page:
        """Return a page of all users."""
        return self._page(EVERYONE, sorted(self.people), cursor, limit, self.ledger.version, unless_large)

    def members(self, room: str, cursor: str, limit: int, now: int, unless_large: bool) -> Page:
        """Return a page of a room's members; `unless_large` is asked by who follows it from here."""
        version = (
            self.ledger.look_at(room, now, self.timing.idle_room_ms)
            if unless_large
            else self.ledger.room_version(room)
        )
        ids = sorted(user_id for user_id, person in self.people.items() if room in person.rooms)
        return self._page(room, ids, cursor, limit, version, unless_large)

    def lookup(self, users: list[str], room: str | None) -> Page:
        """Return those of `users` who are online, or in the room."""
        found = {u for u in users if (p := self.people.get(u)) and (room is None or room in p.rooms)}
        version = self.ledger.version if room is None else self.ledger.room_version(room)
        size = len(self.people) if room is None else self.ledger.room_users[room]
        records = [self._user(user_id) for user_id in sorted(found)]
        return Page(self.ledger.epoch, version, records, "", size, (room or EVERYONE) in self.ledger.large)

    def rooms(self, limit: int) -> list[RoomSummary]:
        """Return the largest rooms."""
        return self.ledger.largest_rooms(limit)

    def stats(self) -> Stats:
        """Return counts."""
        return Stats(
            users=len(self.people),
            connections=sum(len(lease.connections) for lease in [*self.leases.values(), *self._replaced]),
            rooms=len(self.ledger.room_users),
            gateways=len(self.leases),
        )

    def _page(
        self, scope: str, ids: list[str], cursor: str, limit: int, version: int, unless_large: bool
    ) -> Page:
        large = scope in self.ledger.large
        if large and unless_large:
            return Page(self.ledger.epoch, version, [], "", len(ids), large)
        rest = [user_id for user_id in ids if user_id > cursor]
        users = [self._user(user_id) for user_id in rest[:limit]]
        more = users[-1].user_id if users and len(rest) > limit else ""
        return Page(self.ledger.epoch, version, users, more, len(ids), large)

    def _user(self, user_id: str) -> User:
        person = self.people[user_id]
        return user_record(user_id, person.username, person.status, person.last_seen, person.data)


def strongest(statuses: Iterable[Status]) -> Status | None:
    """Return the status that wins, or None of none. The order of `statuses` does not matter."""
    return max(statuses, key=RANK.__getitem__, default=None)


def _later(a: int | None, b: int | None) -> int | None:
    return max(a, b) if a is not None and b is not None else a if b is None else b
