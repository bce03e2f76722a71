"""A store set back to an earlier moment, at any step: followers are correct after one round, and ids stay unique.

Keys are dumped, some steps are taken, and the keys are restored, as a failover to a replica that lags does it, or an
operator with a backup. Gateways, replicas of presence_svc and followers keep what they know; their code is the real one.
"""

import asyncio
import itertools
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from redis.asyncio import Redis

from gateway.channels import presence as views_module
from gateway.channels.presence import PresenceChannels
from gateway.delivery.counters import Counters
from gateway.delivery.encoded_message import Encoding
from gateway.presence.batch_queue import BatchQueue
from presence_svc.announcer import messages
from presence_svc.changes import Changes, EventKind
from presence_svc.policy import AnnouncePolicy
from presence_svc.service import PresenceService
from presence_svc.store import PresenceStore
from presence_svc.sweeper import Sweeper
from presence_svc.webhooks import event_id
from services.settings import Settings
from services.tasks import TaskSet
from services.wire.records import UNSET
from services.wire.rpc import AnyPresenceOp, PresencePage, PresenceQuery
from tests.support.presence import (
    TIMINGS,
    ManualClock,
    connected,
    data,
    disconnected,
    joined,
    left,
    plain_user,
    status,
)
from tests.support.properties import examples
from tests.support.requires import need
from tidings_cli.local.servers import RedisServer

SETTINGS = Settings()
ROOMS = ["lobby", "hall"]
SCOPES = ["", *ROOMS]
GATEWAYS = ["g1", "g2"]
USERS = ["ann", "bob", "eve"]


@dataclass
class Connection:
    """What a gateway has of a connection."""

    connection_id: str
    user: str
    now: Callable[[], int]
    rooms: dict[str, tuple[Any, int]] = field(default_factory=dict)
    status: str = "online"
    data: Any = None

    def presence_ops(self) -> Iterable[AnyPresenceOp]:
        yield connected(self.connection_id, self.user)
        for room, (shown, at) in self.rooms.items():
            yield joined(self.connection_id, room, shown, self.now() - at)
        if self.status != "online":
            yield status(self.connection_id, self.status)


class Member:
    """A client that follows one scope, and has what it was sent."""

    encoding = Encoding.SSE

    def __init__(self, scope: str) -> None:
        self.connection_id = f"member-{scope}"
        self.user_id = "someone"
        self.users: dict[str, Any] = {}

    def accept_messages(self, messages: Any) -> bool:
        return False

    def write(self, text: bytes) -> None:
        for event in text.decode().strip().split("\n\n"):
            self.on_message(msgspec.json.decode(event.partition("data: ")[2]))

    def on_message(self, message: dict[str, Any]) -> None:
        match message["type"]:
            case "presence_list":
                self.users = {user["userId"]: user for user in message["users"]}
            case "user_online":
                self.users[message["user"]["userId"]] = message["user"]
            case "user_offline":
                self.users.pop(message["userId"], None)
            case "status_changed":
                self.users[message["userId"]]["status"] = message["status"]
            case "presence_updated":
                self.users[message["userId"]]["customData"] = message["customData"]

    def seen(self) -> dict[str, Any]:
        return {user_id: plain_user(user) for user_id, user in self.users.items()}


class Replica:
    """One process of presence_svc, but for its sockets."""

    bus_healthy = True

    def __init__(self, world: "World") -> None:
        self.world = world
        self.store = PresenceStore(
            world.redis, "restore", TIMINGS, AnnouncePolicy(events=~EventKind(0)), clock=world.clock
        )
        self.service = PresenceService(self.store, self, 1_000_000)  # type: ignore[arg-type]
        self.sweeper = Sweeper(self.store, self)  # type: ignore[arg-type]
        self.published: list[int] = []

    def announce(self, changes: Changes) -> None:
        if changes.commit_id:
            self.world.publish(changes)
            self.published.append(changes.commit_id)

    async def ack(self) -> None:
        commit_ids, self.published = self.published, []
        await self.store.ack(commit_ids)


class Gateway:
    """One gateway: connections, batches, and followers of everyone and of every room."""

    def __init__(self, name: str, world: "World") -> None:
        self.name, self.world = name, world
        self.connections: dict[str, Connection] = {}
        self.batches = BatchQueue(name, "boot")
        self.tasks = TaskSet()
        self.views = PresenceChannels(world, self, SETTINGS, self.tasks, Counters())  # type: ignore[arg-type]
        self.members = {scope: Member(scope) for scope in SCOPES}

    def is_answering(self, _service: str) -> bool:
        return True

    async def call(self, _endpoint: object, query: PresenceQuery) -> PresencePage:
        return await self.world.replica().service.list_users(query)

    def start(self) -> None:
        for scope, member in self.members.items():
            self.views.follow(member, scope)  # type: ignore[arg-type]

    async def send(self) -> None:
        self.views.on_applied(await self.ask_apply(self.batches.next(list(self.connections.values()))))

    async def ask_apply(self, batch: Any) -> Any:
        applied = await self.world.replica().service.apply(batch)
        if not applied.known:
            self.batches.reannounce()
        return applied

    def do(self, what: str, user: str, room: str) -> None:
        key = f"{self.name}-{user}"
        connection = self.connections.get(key)
        if what == "connect" and connection is None:
            self.connections[key] = Connection(key, user, self.world.clock)
            self.batches.add(connected(key, user))
        if connection is None:
            return
        if what == "join" and room not in connection.rooms:
            connection.rooms[room] = (UNSET, 0)
            self.batches.add(joined(key, room))
        elif what == "show":
            now = self.world.clock()
            connection.rooms[room] = (now % 10, now)
            self.batches.add(joined(key, room, now % 10))
        elif what == "leave" and room in connection.rooms:
            del connection.rooms[room]
            self.batches.add(left(key, room))
        elif what in ("close", "lose"):
            del self.connections[key]
            self.batches.add(disconnected(key, clean=what == "close"))
        elif what == "busy":
            connection.status = "busy"
            self.batches.add(status(key, "busy"))
        elif what == "data":
            self.batches.add(data(key, room))


class World:
    """Two gateways, two replicas, one store."""

    def __init__(self, redis: Redis, choices: Iterable[int]) -> None:
        self.redis = redis
        self.clock = ManualClock()
        self.listeners: list[tuple[str, Callable[[Any], None]]] = []
        self.replicas = [Replica(self), Replica(self)]
        self.gateways = [Gateway(name, self) for name in GATEWAYS]
        self.choices = itertools.cycle(choices)
        self.dump: dict[bytes, tuple[bytes, int]] = {}
        self.events: dict[str, object] = {}

    def replica(self) -> Replica:
        return self.replicas[next(self.choices)]

    def subscribe(self, subject: str, callback: Callable[[Any], None]) -> Any:
        entry = (subject, callback)
        self.listeners.append(entry)
        return SimpleNamespace(close=lambda: self.listeners.remove(entry))

    def publish(self, changes: Changes) -> None:
        for subject, payload in messages(changes, SETTINGS.subjects, SETTINGS.namespace_of, 1_000_000):
            for wanted, callback in list(self.listeners):
                if wanted == subject:
                    callback(SimpleNamespace(data=payload))

    async def save(self) -> None:
        self.dump = {
            key: (await self.redis.dump(key), max(0, await self.redis.pttl(key)))
            for key in await self.redis.keys("*")
        }

    async def restore(self) -> None:
        await self.redis.flushdb()
        for key, (value, ttl) in self.dump.items():
            await self.redis.restore(key, ttl, value)

    async def step(self, step: tuple[Any, ...]) -> None:
        match step:
            case ("do", gateway, what, user, room):
                self.gateways[gateway].do(what, user, room)
                await self.gateways[gateway].send()
            case ("pass", seconds, renews):
                self.clock.advance(seconds)
                for gateway in self.gateways if renews else []:
                    await gateway.send()
                await self.replica().sweeper.sweep()
            case ("save",):
                await self.save()
            case ("restore",):
                await self.restore()
        for replica in self.replicas:
            await replica.ack()
        await self.deliver()
        await self.idle()

    async def round(self) -> None:
        """What happens within one renewal: every gateway sends a batch, every replica sweeps."""
        self.clock.advance(1.5)
        for gateway in self.gateways:
            await gateway.send()
        for replica in self.replicas:
            await replica.sweeper.sweep()
        self.clock.advance(1.5)
        for gateway in self.gateways:  # gateways without a lease announce all
            await gateway.send()
        for replica in self.replicas:
            await replica.ack()
        await self.deliver()
        await self.idle()

    async def deliver(self) -> None:
        store = self.replicas[0].store
        lease = await store.claim_events("t", "h", 1000, 1000)
        for event in lease.events:
            assert self.events.setdefault(event_id(event), event) == event
        if lease.events:
            await store.ack_events("t", lease.events[-1])

    async def idle(self) -> None:
        await asyncio.sleep(0)
        for _ in range(2):  # a comparison may be due, and start to load
            while any(len(gateway.tasks) for gateway in self.gateways):  # noqa: ASYNC110  # tasks of several sets
                await asyncio.sleep(0.001)  # tasks of two gateways end when they end
            await asyncio.sleep(0.001)

    async def stored(self) -> dict[str, dict[str, Any]]:
        store = self.replicas[0].store
        pages = {scope: await (store.page(scope) if scope else store.page()) for scope in SCOPES}
        return {
            scope: {user.user_id: plain_user(user) for user in page.users} for scope, page in pages.items()
        }

    async def check(self) -> None:
        stored = await self.stored()
        for gateway in self.gateways:
            for scope, member in gateway.members.items():
                assert member.seen() == stored[scope], (gateway.name, scope)

    def true(self) -> dict[str, set[str]]:
        live = [one for gateway in self.gateways for one in gateway.connections.values()]
        rooms = {room: {one.user for one in live if room in one.rooms} for room in ROOMS}
        return {"": {one.user for one in live}, **rooms}


@asynccontextmanager
async def a_world(url: str, choices: Iterable[int]) -> AsyncIterator[World]:
    async with Redis.from_url(url) as redis:
        await redis.flushdb()
        world = World(redis, choices)
        await world.save()
        for gateway in world.gateways:
            gateway.start()
            await gateway.send()
        await world.idle()
        yield world
        for gateway in world.gateways:
            await gateway.tasks.close()
        for replica in world.replicas:
            await replica.store.close()


async def run(url: str, plan: list[tuple[Any, ...]], choices: list[int]) -> None:
    async with a_world(url, choices) as world:
        for step in plan:
            await world.step(step)
        await world.round()
        await world.check()  # from now on all followers are right, whatever is still due
        for _ in range(5):  # leases and graces end
            await world.round()
            await world.check()
        stored = await world.stored()
        assert {scope: set(users) for scope, users in stored.items()} == world.true()


does = st.tuples(
    st.just("do"),
    st.integers(0, 1),
    st.sampled_from(
        ["connect"] * 4 + ["join"] * 2 + ["show", "show", "leave", "lose", "lose", "close", "busy", "data"]
    ),
    st.sampled_from(USERS),
    st.sampled_from(ROOMS),
)
passes = st.tuples(st.just("pass"), st.sampled_from([0.5, 2.6, 5.1]), st.booleans())
sweeps = st.tuples(st.just("pass"), st.sampled_from([2.6, 5.1]), st.just(False))
some = st.lists(st.one_of(does, does, does, passes), max_size=6)
# Half of the time nothing but sweeps is lost: no gateway misses a batch then.
lost = st.one_of(some, st.lists(sweeps, min_size=1, max_size=2))
plans = st.builds(
    lambda before, parts, after: [
        *before,
        *(step for undone, then in parts for step in [("save",), *undone, ("restore",), *then]),
        *after,
    ],
    some,
    st.lists(st.tuples(lost, some), min_size=1, max_size=2),
    some,
)


@pytest.fixture(autouse=True, scope="module")
def _no_waiting():
    with pytest.MonkeyPatch.context() as patch:
        for name in ("_SETTLE_S", "_ARRIVES_S", "_COUNT_EVERY_S"):
            patch.setattr(views_module, name, 0.0)
        yield


@settings(
    max_examples=examples(150),
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(plan=plans, choices=st.lists(st.integers(0, 1), min_size=1, max_size=7))
def test_after_a_restore_every_follower_is_right_again(
    plan: list[tuple[Any, ...]], choices: list[int], own_redis: str
) -> None:
    asyncio.run(run(own_redis, plan, choices))


LOST_SWEEP = [
    ("do", 0, "connect", "ann", "lobby"),
    ("do", 0, "lose", "ann", "lobby"),
    ("save",),
    ("pass", 5.1, False),  # this lets ann go, and is lost
    ("restore",),
    ("do", 1, "connect", "bob", "lobby"),  # takes the same version
]


@pytest.mark.parametrize("choices", [[0], [0, 1], [1, 0], [0, 0, 1], [1, 1, 0]])
async def test_a_lost_sweep_hides_no_user(choices: list[int], own_redis: str) -> None:
    await run(own_redis, LOST_SWEEP, choices)


@pytest.fixture(scope="module")
def own_redis(tmp_path_factory: pytest.TempPathFactory):
    """A Redis of this module's own, because each example empties it."""
    need("redis-server")
    with RedisServer(tmp_path_factory.mktemp("redis-restore")) as server:
        yield server.url
