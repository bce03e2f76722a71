"""Who is online, said twice: by the rules of presence, and by a plain count of connections and graces.

And whatever the order in which several gateways are heard, and however often, all end at the same.
"""

import asyncio
from collections.abc import Iterable
from dataclasses import dataclass, field, replace

from hypothesis import given, settings
from hypothesis import strategies as st

from services.wire.rpc import AnyPresenceOp, PresenceBatch
from tests.support.presence import (
    TIMING,
    Follower,
    TurnedClock,
    connected,
    disconnected,
    joined,
    left,
    plain_page,
    sweep_whole,
)
from tests.support.presence_model.store import MemoryPresenceStore
from tests.support.properties import examples

GATEWAYS = ["g1", "g2"]
USERS = ["ann", "bob"]
ROOMS = ["lobby", "hall"]


@dataclass
class Counted:
    """What is true, counted without leases, versions and scripts: live connections, and until when others are missed."""

    live: dict[str, tuple[str, set[str]]] = field(default_factory=dict)  # connection -> user, rooms
    missed: dict[str, int] = field(default_factory=dict)  # user -> ms
    missed_in: dict[tuple[str, str], int] = field(default_factory=dict)  # user, room -> ms

    def connect(self, connection: str, user: str) -> None:
        if connection not in self.live:
            self.live[connection] = (user, set())
            self.missed.pop(user, None)

    def join(self, connection: str, room: str) -> None:
        if connection in self.live and room not in self.live[connection][1]:
            self.live[connection][1].add(room)
            self.missed_in.pop((self.live[connection][0], room), None)

    def leave(self, connection: str, room: str) -> None:
        user, rooms = self.live.get(connection, ("", set()))
        if room in rooms:
            rooms.remove(room)
            if not self._is_in(user, room):
                self.missed_in.pop((user, room), None)

    def end(self, connection: str, now: int, *, clean: bool) -> None:
        if connection not in self.live:
            return
        user, rooms = self.live.pop(connection)
        if not clean:
            until = now + TIMING.grace_ms
            self.missed[user] = max(until, self.missed.get(user, 0))
            for room in rooms:
                self.missed_in[user, room] = max(until, self.missed_in.get((user, room), 0))

    def pass_time(self, now: int) -> None:
        self.missed = {user: until for user, until in self.missed.items() if until > now}
        self.missed_in = {place: until for place, until in self.missed_in.items() if until > now}

    def forget_the_gone(self) -> None:
        """Who is offline has left every room, whatever was missed there."""
        online = self.online()
        self.missed_in = {place: until for place, until in self.missed_in.items() if place[0] in online}

    def online(self) -> set[str]:
        return {user for user, _ in self.live.values()} | set(self.missed)

    def members(self, room: str) -> set[str]:
        here = {user for user, rooms in self.live.values() if room in rooms}
        return here | {user for user, missed_room in self.missed_in if missed_room == room}

    def _is_in(self, user: str, room: str) -> bool:
        return any(one == user and room in rooms for one, rooms in self.live.values())


@dataclass(frozen=True)
class Does:
    """One thing that happens at a gateway."""

    gateway: str
    what: str
    number: int
    user: str
    room: str

    @property
    def connection(self) -> str:
        return f"{self.gateway}-{self.user}-{self.number}"

    def op(self) -> AnyPresenceOp:
        match self.what:
            case "connect":
                return connected(self.connection, self.user)
            case "join":
                return joined(self.connection, self.room)
            case "leave":
                return left(self.connection, self.room)
        return disconnected(self.connection, clean=self.what == "close")

    def happen(self, truth: Counted, now: int) -> None:
        match self.what:
            case "connect":
                truth.connect(self.connection, self.user)
            case "join":
                truth.join(self.connection, self.room)
            case "leave":
                truth.leave(self.connection, self.room)
            case _:
                truth.end(self.connection, now, clean=self.what == "close")


# Few of everything, so that what happens to one thing soon happens to it again.
happenings = st.builds(
    Does,
    st.sampled_from(GATEWAYS),
    st.sampled_from(
        ["connect", "connect", "connect", "join", "join", "leave", "lose", "lose", "close", "close"]
    ),
    st.just(1),
    st.sampled_from([*USERS, *["ann"] * 4]),
    st.sampled_from([*ROOMS, "lobby"]),
)
# A gateway dies (its lease runs out), or time passes while all of them renew.
interruptions = st.sampled_from([1.0, 2.5, 5.1, *GATEWAYS])
plans = st.lists(st.tuples(st.lists(happenings, min_size=3, max_size=12), interruptions), max_size=5).map(
    lambda parts: [step for happened, interruption in parts for step in (*happened, interruption)]
)


class Told:
    """A store, spoken to as gateways do."""

    def __init__(self) -> None:
        self.clock = TurnedClock()
        self.store = MemoryPresenceStore(TIMING, self.clock)
        self.numbers = dict.fromkeys(GATEWAYS, 0)
        self.open = dict.fromkeys(GATEWAYS, False)
        self.follower = Follower()

    async def start(self) -> None:
        page = await self.store.everyone()
        self.follower.epoch, self.follower.version = page.epoch, page.version

    def batch(self, gateway: str, ops: Iterable[AnyPresenceOp]) -> PresenceBatch:
        self.numbers[gateway] += 1
        fresh, self.open[gateway] = not self.open[gateway], True
        return PresenceBatch(
            gateway=gateway, boot="b", batch=self.numbers[gateway], fresh=fresh, ops=list(ops)
        )

    async def say(self, gateway: str, *ops: AnyPresenceOp) -> None:
        applied = await self.store.apply(self.batch(gateway, ops))
        self.follower.apply(applied.changes)

    async def sweep(self) -> None:
        for swept in await sweep_whole(self.store):
            self.follower.apply(swept.changes)

    async def rosters(self) -> dict[str, set[str]]:
        rooms = {room: set(plain_page(await self.store.members(room))) for room in ROOMS}
        return {"": set(plain_page(await self.store.everyone())), **rooms}


async def compare(plan: list[Does | float | str]) -> None:
    told, truth = Told(), Counted()
    await told.start()
    for step in plan:
        if isinstance(step, Does):
            await told.say(step.gateway, step.op())
            step.happen(truth, told.clock.now)
        elif isinstance(step, float):
            told.clock.turn(step)
            for gateway in GATEWAYS:
                await told.say(gateway)
        else:  # nobody hears of this gateway until its lease is over; the others go on
            others = [gateway for gateway in GATEWAYS if gateway != step]
            for _ in range(10):
                told.clock.turn(1.0)
                truth.pass_time(told.clock.now)
                for gateway in others:
                    await told.say(gateway)
                if not told.open[step]:
                    continue
                had = (await told.store.stats()).gateways
                await told.sweep()
                if (await told.store.stats()).gateways < had:
                    told.open[step] = False
                    for connection in [one for one in truth.live if one.startswith(step)]:
                        truth.end(connection, told.clock.now, clean=False)
        await told.sweep()
        truth.pass_time(told.clock.now)
        truth.forget_the_gone()
        expected = {"": truth.online(), **{room: truth.members(room) for room in ROOMS}}
        assert await told.rosters() == expected
        assert set(told.follower.users) == truth.online()
        assert told.follower.gaps == []


@settings(max_examples=examples(500))
@given(plan=plans)
def test_a_user_is_online_exactly_while_a_connection_lives_or_a_grace_runs(
    plan: list[Does | float | str],
) -> None:
    asyncio.run(compare(plan))


async def heard(sequences: dict[str, list[list[Does]]], order: list[int], repeats: list[bool]) -> object:
    """Apply each gateway's batches in their order, the gateways interleaved by `order`, some batches twice."""
    told = Told()
    await told.start()
    waiting = {gateway: list(batches) for gateway, batches in sequences.items()}
    before: list[PresenceBatch] = []
    for choice, repeat in zip(order, repeats, strict=True):
        ready = [gateway for gateway in GATEWAYS if waiting[gateway]]
        if not ready:
            break
        gateway = ready[choice % len(ready)]
        batch = told.batch(gateway, [one.op() for one in waiting[gateway].pop(0)])
        before.append(batch)
        told.follower.apply((await told.store.apply(batch)).changes)
        if repeat:  # the last one again, and the first one of all
            for late in (batch, before[0]):
                again = await told.store.apply(late)
                assert again.changes.empty
    for _ in range(2):
        told.clock.turn(TIMING.grace_ms / 1000 / 2 + 0.1)
        for gateway in GATEWAYS:
            await told.say(gateway)
        await told.sweep()
    return await told.rosters(), replace(await told.store.stats())


batch_lists = st.lists(st.lists(happenings, max_size=4), min_size=1, max_size=6)
orders = st.lists(st.integers(0, 1), min_size=12, max_size=12)


@settings(max_examples=examples(300))
@given(batch_lists, orders, orders, st.lists(st.booleans(), min_size=12, max_size=12))
def test_any_order_and_repetition_ends_at_the_same(
    batches: list[list[Does]], one: list[int], other: list[int], repeats: list[bool]
) -> None:
    sequences = {
        gateway: [[replace(does, gateway=gateway) for does in batch] for batch in batches]
        for gateway in GATEWAYS
    }
    first = asyncio.run(heard(sequences, one, repeats))
    second = asyncio.run(heard(sequences, other, [not repeat for repeat in repeats]))
    assert first == second
