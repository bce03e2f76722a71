"""Presence in tests: a manual clock, simulated gateways, a follower that applies diffs."""

from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from typing import Any

import msgspec

from presence_svc.changes import AppliedBatch, BatchResult, Changes, Sweep
from presence_svc.policy import LeaseTimings
from presence_svc.store import PresenceStore
from services.wire.events import PresenceChange
from services.wire.records import UNSET, Status
from services.wire.rpc import (
    AnyPresenceOp,
    Connected,
    DataSet,
    Disconnected,
    Joined,
    Left,
    PresenceBatch,
    PresencePage,
    StatusSet,
)
from services.wire.server import PresenceUpdated, StatusChanged, UserJoined, UserOffline, UserOnline
from tests.support.presence_model.model import MemoryPresenceStore

AnyStore = PresenceStore | MemoryPresenceStore

TIMINGS = LeaseTimings(lease_ms=9000, grace_ms=5000, idle_room_ms=60_000)


class ManualClock:
    """A clock in ms that tests advance."""

    def __init__(self, now: int = 1_700_000_000_000) -> None:
        self.now = now

    def __call__(self) -> int:
        return self.now

    def advance(self, seconds: float) -> None:
        """Let time pass."""
        self.now += round(seconds * 1000)


def connected(connection: str, user: str, username: str = "") -> Connected:
    return Connected(connection_id=connection, user_id=user, username=username or user.title())


def disconnected(connection: str, *, clean: bool = False) -> Disconnected:
    return Disconnected(connection_id=connection, clean=clean)


def joined(connection: str, room: str, data: Any = UNSET, age_ms: int = 0) -> Joined:
    return Joined(connection_id=connection, room=room, data=data, age_ms=age_ms)


def left(connection: str, room: str) -> Left:
    return Left(connection_id=connection, room=room)


def status(connection: str, status: str) -> StatusSet:
    return StatusSet(connection_id=connection, status=Status(status))


def data(connection: str, custom_data: Any) -> DataSet:
    return DataSet(connection_id=connection, custom_data=custom_data)


def users(first: int, last: int, room: str = "hall") -> list[AnyPresenceOp]:
    """Return operations that connect users FIRST to LAST - 1 and join them to a room."""
    return [op for n in range(first, last) for op in (connected(f"c{n}", f"u{n:02}"), joined(f"c{n}", room))]


def batch(*ops: AnyPresenceOp, number: int = 1, fresh: bool | None = None) -> PresenceBatch:
    """Return a batch of gateway `g1`; the first one opens the lease."""
    return PresenceBatch(
        gateway="g1", boot="b1", batch=number, fresh=number == 1 if fresh is None else fresh, ops=list(ops)
    )


@dataclass
class SimulatedGateway:
    """A gateway as the store sees it: batches numbered by one, the first one opens the lease."""

    store: AnyStore
    name: str = "g1"
    boot: str = "b1"
    batch: int = 0
    opened: bool = False

    async def send(
        self, *ops: AnyPresenceOp, active: Iterable[str] = (), fresh: bool = False
    ) -> AppliedBatch:
        """Send the next batch."""
        self.batch += 1
        batch = PresenceBatch(
            gateway=self.name,
            boot=self.boot,
            batch=self.batch,
            fresh=fresh or not self.opened,
            ops=list(ops),
            active=list(active),
        )
        self.opened = True
        return await apply_all(self.store, batch)


async def apply_all(store: AnyStore, batch: PresenceBatch) -> AppliedBatch:
    """Apply a batch until it is done, and acknowledge. Returns the last piece's answer with the changes of all."""
    pieces: list[AppliedBatch] = []
    while not pieces or pieces[-1].result is BatchResult.PARTIAL:
        pieces.append(await store.apply(batch))
    await store.ack([piece.changes.commit_id for piece in pieces if piece.changes.commit_id])
    last = pieces[-1]
    changes = replace(
        last.changes,
        users=[change for piece in pieces for change in piece.changes.users],
        rooms=[scope for piece in pieces for scope in piece.changes.rooms],
        notices=[notice for piece in pieces for notice in piece.changes.notices],
    )
    return replace(last, changes=changes)


async def sweep_all(store: AnyStore) -> list[Sweep]:
    """Sweep until nothing is due, and acknowledge."""
    steps = [await store.sweep()]
    while steps[-1].more:
        steps.append(await store.sweep())
    await store.ack([step.changes.commit_id for step in steps if step.changes.commit_id])
    return steps


def lines(changes: Changes) -> list[str]:
    """Return the changes of everyone and the notices, as `type user ...` lines."""
    text = []
    for one in [*changes.users, *changes.notices]:
        fields = msgspec.json.decode(msgspec.json.encode(one))
        user = fields.get("userId") or fields["user"]["userId"]
        extra = fields.get("status") or fields.get("room") or fields.get("customData")
        text.append(f"{fields['type']} {user}" + (f" {extra}" if extra else ""))
    return text


async def sweep_lines(store: AnyStore) -> list[str]:
    """Sweep until nothing is due; return the changes as lines."""
    return [line for step in await sweep_all(store) for line in lines(step.changes)]


@dataclass
class Follower:
    """A follower that loaded a snapshot of everyone and of some rooms once, and applies every diff since."""

    epoch: str = ""
    version: int = 0
    users: dict[str, dict[str, Any]] = field(default_factory=dict)
    rooms: dict[str, tuple[int, dict[str, dict[str, Any]]]] = field(default_factory=dict)
    members: set[tuple[str, str]] = field(default_factory=set)
    gaps: list[str] = field(default_factory=list)

    def apply(self, changes: Changes) -> None:
        """Apply one step's changes, noting every version that does not follow from the one before."""
        if changes.epoch != self.epoch or changes.version - len(changes.users) != self.version:
            self.gaps.append(f"everyone: {changes.epoch} {changes.version}, had {self.epoch} {self.version}")
        self.epoch, self.version = changes.epoch, changes.version
        _apply(self.users, changes.users)
        for scope in changes.rooms:
            if scope.room in self.rooms:
                version, users = self.rooms[scope.room]
                if scope.version - len(scope.changes) != version:
                    self.gaps.append(f"{scope.room}: {scope.version}, had {version}")
                _apply(users, scope.changes)
                self.rooms[scope.room] = (scope.version, users)
        for notice in changes.notices:
            pair = (notice.room, notice.user_id)
            if isinstance(notice, UserJoined):
                assert pair not in self.members, f"{pair} joined twice"
                self.members.add(pair)
            else:
                assert pair in self.members, f"{pair} left twice"
                self.members.remove(pair)


def _apply(users: dict[str, dict[str, Any]], changes: list[PresenceChange]) -> None:
    for change in changes:
        if isinstance(change, UserOnline):
            users[change.user.user_id] = plain_user(change.user)
        elif isinstance(change, UserOffline):
            del users[change.user_id]
        elif isinstance(change, StatusChanged):
            users[change.user_id]["status"] = change.status.value
        elif isinstance(change, PresenceUpdated):
            users[change.user_id]["customData"] = msgspec.json.decode(msgspec.json.encode(change.custom_data))


def plain_user(user: object) -> dict[str, Any]:
    """Return a user as plain objects, without `lastSeen`, which is in no diff."""
    plain: dict[str, Any] = msgspec.json.decode(msgspec.json.encode(user))
    del plain["lastSeen"]
    return plain


def plain_page(page: PresencePage) -> dict[str, dict[str, Any]]:
    """Return a page's users by id, without `lastSeen`."""
    return {user.user_id: plain_user(user) for user in page.users}
