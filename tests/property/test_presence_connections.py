"""Online users, computed twice: by the model's rules, and by a plain count of connections and graces.

The model is the oracle of the scripts; this count is the only check of the model that shares nothing with it. And any
order and repetition of several gateways' batches ends in the same state.
"""

import asyncio
from collections.abc import Iterable
from dataclasses import dataclass, field, replace

from hypothesis import given, settings
from hypothesis import strategies as st

from services.wire.rpc import AnyPresenceOp, PresenceBatch
from tests.support.presence import (
    TIMINGS,
    Follower,
    ManualClock,
    connected,
    disconnected,
    joined,
    left,
    plain_page,
    sweep_all,
)
from tests.support.presence_model.model import MemoryPresenceStore
from tests.support.properties import examples

GATEWAYS = ["g1", "g2"]
USERS = ["ann", "bob"]
ROOMS = ["lobby", "hall"]


@dataclass
class PlainCount:
    """The expected state, without leases, versions and scripts: live connections, and ends of graces."""

    live: dict[str, tuple[str, set[str]]] = field(default_factory=dict)  # connection -> user, rooms
    grace: dict[str, int] = field(default_factory=dict)  # user -> ms
    room_grace: dict[tuple[str, str], int] = field(default_factory=dict)  # user, room -> ms

    def connect(self, connection: str, user: str) -> None:
        if connection not in self.live:
            self.live[connection] = (user, set())
            self.grace.pop(user, None)

    def join(self, connection: str, room: str) -> None:
        if connection in self.live and room not in self.live[connection][1]:
            self.live[connection][1].add(room)
            self.room_grace.pop((self.live[connection][0], room), None)

    def leave(self, connection: str, room: str) -> None:
        user, rooms = self.live.get(connection, ("", set()))
        if room in rooms:
            rooms.remove(room)
            if not self._is_in(user, room):
                self.room_grace.pop((user, room), None)

    def end(self, connection: str, now: int, *, clean: bool) -> None:
        if connection not in self.live:
            return
        user, rooms = self.live.pop(connection)
        if not clean:
            until = now + TIMINGS.grace_ms
            self.grace[user] = max(until, self.grace.get(user, 0))
            for room in rooms:
                self.room_grace[user, room] = max(until, self.room_grace.get((user, room), 0))

    def pass_time(self, now: int) -> None:
        self.grace = {user: until for user, until in self.grace.items() if until > now}
        self.room_grace = {key: until for key, until in self.room_grace.items() if until > now}

    def end_room_graces(self) -> None:
        """A user who is offline has left every room, whatever graces ran there."""
        online = self.online()
        self.room_grace = {key: until for key, until in self.room_grace.items() if key[0] in online}

    def online(self) -> set[str]:
        return {user for user, _ in self.live.values()} | set(self.grace)

    def members(self, room: str) -> set[str]:
        here = {user for user, rooms in self.live.values() if room in rooms}
        return here | {user for user, grace_room in self.room_grace if grace_room == room}

    def _is_in(self, user: str, room: str) -> bool:
        return any(one == user and room in rooms for one, rooms in self.live.values())


@dataclass(frozen=True)
class GatewayStep:
    """One operation at a gateway."""

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

    def count_in(self, truth: PlainCount, now: int) -> None:
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
gateway_steps = st.builds(
    GatewayStep,
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
plans = st.lists(st.tuples(st.lists(gateway_steps, min_size=3, max_size=12), interruptions), max_size=5).map(
    lambda parts: [step for steps, interruption in parts for step in (*steps, interruption)]
)


class ModelGateways:
    """The model, fed by gateways."""

    def __init__(self) -> None:
        self.clock = ManualClock()
        self.store = MemoryPresenceStore(TIMINGS, self.clock)
        self.numbers = dict.fromkeys(GATEWAYS, 0)
        self.open = dict.fromkeys(GATEWAYS, False)
        self.follower = Follower()

    async def start(self) -> None:
        page = await self.store.page()
        self.follower.epoch, self.follower.version = page.epoch, page.version

    def batch(self, gateway: str, ops: Iterable[AnyPresenceOp]) -> PresenceBatch:
        self.numbers[gateway] += 1
        fresh, self.open[gateway] = not self.open[gateway], True
        return PresenceBatch(
            gateway=gateway, boot="b", batch=self.numbers[gateway], fresh=fresh, ops=list(ops)
        )

    async def send(self, gateway: str, *ops: AnyPresenceOp) -> None:
        applied = await self.store.apply(self.batch(gateway, ops))
        self.follower.apply(applied.changes)

    async def sweep(self) -> None:
        for swept in await sweep_all(self.store):
            self.follower.apply(swept.changes)

    async def rosters(self) -> dict[str, set[str]]:
        rooms = {room: set(plain_page(await self.store.page(room))) for room in ROOMS}
        return {"": set(plain_page(await self.store.page())), **rooms}


async def compare(plan: list[GatewayStep | float | str]) -> None:
    model, truth = ModelGateways(), PlainCount()
    await model.start()
    for step in plan:
        if isinstance(step, GatewayStep):
            await model.send(step.gateway, step.op())
            step.count_in(truth, model.clock.now)
        elif isinstance(step, float):
            model.clock.advance(step)
            for gateway in GATEWAYS:
                await model.send(gateway)
        else:  # this gateway is silent until its lease expires; the others renew theirs
            others = [gateway for gateway in GATEWAYS if gateway != step]
            for _ in range(10):
                model.clock.advance(1.0)
                truth.pass_time(model.clock.now)
                for gateway in others:
                    await model.send(gateway)
                if not model.open[step]:
                    continue
                had = (await model.store.stats()).gateways
                await model.sweep()
                if (await model.store.stats()).gateways < had:
                    model.open[step] = False
                    for connection in [one for one in truth.live if one.startswith(step)]:
                        truth.end(connection, model.clock.now, clean=False)
        await model.sweep()
        truth.pass_time(model.clock.now)
        truth.end_room_graces()
        expected = {"": truth.online(), **{room: truth.members(room) for room in ROOMS}}
        assert await model.rosters() == expected
        assert set(model.follower.users) == truth.online()
        assert model.follower.gaps == []


@settings(max_examples=examples(500))
@given(plan=plans)
def test_a_user_is_online_exactly_while_a_connection_lives_or_a_grace_runs(
    plan: list[GatewayStep | float | str],
) -> None:
    asyncio.run(compare(plan))


async def final_state(
    sequences: dict[str, list[list[GatewayStep]]], order: list[int], repeats: list[bool]
) -> object:
    """Apply each gateway's batches in their order, the gateways interleaved by `order`, some batches twice."""
    model = ModelGateways()
    await model.start()
    waiting = {gateway: list(batches) for gateway, batches in sequences.items()}
    before: list[PresenceBatch] = []
    for choice, repeat in zip(order, repeats, strict=True):
        ready = [gateway for gateway in GATEWAYS if waiting[gateway]]
        if not ready:
            break
        gateway = ready[choice % len(ready)]
        batch = model.batch(gateway, [one.op() for one in waiting[gateway].pop(0)])
        before.append(batch)
        model.follower.apply((await model.store.apply(batch)).changes)
        if repeat:  # the last one again, and the first one of all
            for late in (batch, before[0]):
                again = await model.store.apply(late)
                assert again.changes.empty
    for _ in range(2):
        model.clock.advance(TIMINGS.grace_ms / 1000 / 2 + 0.1)
        for gateway in GATEWAYS:
            await model.send(gateway)
        await model.sweep()
    return await model.rosters(), await model.store.stats()


batch_lists = st.lists(st.lists(gateway_steps, max_size=4), min_size=1, max_size=6)
orders = st.lists(st.integers(0, 1), min_size=12, max_size=12)


@settings(max_examples=examples(300))
@given(batch_lists, orders, orders, st.lists(st.booleans(), min_size=12, max_size=12))
def test_any_order_and_repetition_ends_in_the_same_state(
    batches: list[list[GatewayStep]], one: list[int], other: list[int], repeats: list[bool]
) -> None:
    sequences = {
        gateway: [[replace(does, gateway=gateway) for does in batch] for batch in batches]
        for gateway in GATEWAYS
    }
    first = asyncio.run(final_state(sequences, one, repeats))
    second = asyncio.run(final_state(sequences, other, [not repeat for repeat in repeats]))
    assert first == second
