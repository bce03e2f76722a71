"""presence_svc as processes, on a real bus and a real Redis: answers to gateways and followers."""

import asyncio
import json
import re
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec
import pytest
from redis.asyncio import Redis

from presence_svc.policy import LeaseTimings
from presence_svc.store import PresenceStore
from services.bus.client import Bus, BusMessage
from services.bus.errors import NoAnswer, RequestRefused
from services.bus.rpc import call
from services.settings import Settings
from services.wire.events import PresenceDiff
from services.wire.rpc import (
    PRESENCE_APPLY,
    PRESENCE_LIST,
    PRESENCE_ROOMS,
    PRESENCE_STATS,
    AnyPresenceOp,
    Empty,
    PresenceApplied,
    PresenceBatch,
    PresencePage,
    PresenceQuery,
    RoomsQuery,
)
from services.wire.server import UserJoined, UserLeft
from tests.support.deadline import PATIENCE_S, eventually
from tests.support.presence import SimulatedGateway, connected, data, disconnected, joined, plain_page
from tests.support.presence_replica import PATIENT, QUICK, Replica, replica
from tests.support.requires import need
from tidings_cli.local.servers import NatsServer, RedisServer


@dataclass
class Listener:
    """Everything that a subject says."""

    heard: list[Any] = field(default_factory=list)

    def listen(self, bus: Bus, subject: str, kind: Any) -> None:
        def on_message(message: BusMessage) -> None:
            self.heard.append(msgspec.json.decode(message.data, type=kind))

        bus.subscribe(subject, on_message)


@dataclass
class Gateway:
    """A gateway that asks over the bus."""

    bus: Bus
    settings: Settings
    name: str = "g1"
    boot: str = "b1"
    batch: int = 0

    async def send(self, *ops: AnyPresenceOp, fresh: bool | None = None) -> PresenceApplied:
        self.batch += 1
        fresh = self.batch == 1 if fresh is None else fresh
        return await self.ask(PRESENCE_APPLY, self.request(*ops, fresh=fresh))

    def request(self, *ops: AnyPresenceOp, fresh: bool = False) -> PresenceBatch:
        return PresenceBatch(gateway=self.name, boot=self.boot, batch=self.batch, fresh=fresh, ops=list(ops))

    async def ask(self, endpoint: Any, request: Any) -> Any:
        return await call(self.bus, self.settings.subjects, endpoint, request)

    async def users(self, **query: Any) -> dict[str, dict[str, Any]]:
        return plain_page(await self.ask(PRESENCE_LIST, PresenceQuery(**query)))


@pytest.fixture
async def settings(make_settings: Callable[..., Settings], request: pytest.FixtureRequest) -> Settings:
    return make_settings(**getattr(request, "param", PATIENT))


@pytest.fixture
async def bus(settings: Settings) -> AsyncIterator[Bus]:
    connection = await Bus.connect(settings, "test")
    yield connection
    await connection.close()


@pytest.fixture
async def gateway(bus: Bus, settings: Settings) -> Gateway:
    return Gateway(bus, settings)


@pytest.fixture
async def service(settings: Settings, tmp_path: Path) -> AsyncIterator[Replica]:
    async with replica(settings, tmp_path) as running:
        await eventually(running.ready, "presence_svc ready")
        yield running


@pytest.fixture
def own_redis(tmp_path: Path) -> Iterator[RedisServer]:
    """A Redis that a test may break."""
    need("redis-server")
    with RedisServer(tmp_path / "redis") as server:
        yield server


async def test_followers_get_one_diff_a_scope_and_members_get_joins(service, gateway, bus, settings):
    diffs, rooms, members = Listener(), Listener(), Listener()
    subjects = settings.subjects
    diffs.listen(bus, subjects.presence_diff, PresenceDiff)
    rooms.listen(bus, subjects.presence_room("live", "live:a b"), PresenceDiff)
    members.listen(bus, subjects.room_members("live", "live:a b"), UserJoined | UserLeft)
    await bus.flush()

    applied = await gateway.send(
        connected("c1", "ann"), connected("c2", "bob"), joined("c1", "live:a b"), data("c2", {"x": [1]})
    )
    await eventually(lambda: diffs.heard and rooms.heard and members.heard, "the announcements")
    (diff,), (room,) = diffs.heard, rooms.heard
    assert applied == PresenceApplied(known=True, epoch=diff.epoch, version=2)
    assert diff.version == 2
    assert [change.user.user_id for change in diff.changes] == ["ann", "bob"]
    assert diff.changes[1].user.custom_data == {"x": [1]}
    assert room.room == "live:a b"
    assert room.changes[0].room == "live:a b"
    assert members.heard == [UserJoined(user_id="ann", username="Ann", room="live:a b")]

    await gateway.send(disconnected("c1", clean=True))
    await eventually(lambda: len(members.heard) == 2, "the leave")
    assert members.heard[1] == UserLeft(user_id="ann", username="Ann", room="live:a b")


async def test_questions_are_answered(service, gateway):
    await gateway.send(
        *(connected(f"c{i}", f"u{i:02}") for i in range(30)), *(joined(f"c{i}", "lobby") for i in range(5))
    )
    assert len(await gateway.users()) == 30
    assert list(await gateway.users(room="lobby")) == [f"u{i:02}" for i in range(5)]
    assert list(await gateway.users(users=["u29", "u03", "nobody"])) == ["u03", "u29"]
    page = await gateway.ask(PRESENCE_LIST, PresenceQuery(limit=20))
    assert (len(page.users), page.cursor) == (20, "u19")
    assert len((await gateway.ask(PRESENCE_LIST, PresenceQuery(limit=20, cursor=page.cursor))).users) == 10
    stats = await gateway.ask(PRESENCE_STATS, Empty())
    assert (stats.users, stats.connections, stats.rooms, stats.gateways) == (30, 30, 1, 1)
    (room,) = (await gateway.ask(PRESENCE_ROOMS, RoomsQuery())).rooms
    assert (room.room, room.users, room.connections) == ("lobby", 5, 5)


async def test_a_page_that_would_not_fit_into_one_answer_is_shorter(service, gateway):
    for start in range(0, 400, 100):
        await gateway.send(
            *(connected(f"c{i}", f"u{i:03}") for i in range(start, start + 100)),
            *(data(f"c{i}", "x" * 4000) for i in range(start, start + 100)),
        )
    seen, cursor, pages = [], "", 0
    while pages == 0 or cursor:
        page: PresencePage = await gateway.ask(PRESENCE_LIST, PresenceQuery(cursor=cursor))
        seen += [user.user_id for user in page.users]
        cursor, pages = page.cursor, pages + 1
    assert seen == [f"u{i:03}" for i in range(400)]
    assert pages > 1


async def test_refusals_have_reasons(service, gateway):
    await gateway.send(connected("c1", "ann"))
    with pytest.raises(RequestRefused) as refused:
        await gateway.send(joined("c1", ""))
    assert refused.value.code == "invalid_name"
    gateway.batch -= 1
    await Gateway(gateway.bus, gateway.settings, boot="b2").send()
    with pytest.raises(RequestRefused) as refused:
        await gateway.send()
    assert refused.value.code == "conflict"


async def test_an_unknown_lease_is_answered_not_known(service, gateway):
    assert not (await gateway.send(connected("c1", "ann"), fresh=False)).known
    assert (await gateway.send(connected("c1", "ann"), fresh=True)).known


@pytest.mark.parametrize("settings", [QUICK], indirect=True)
async def test_a_dead_gateways_users_go_with_its_lease_and_the_grace(service, gateway, bus, settings):
    notices = Listener()
    notices.listen(bus, settings.subjects.room_members("default", "lobby"), UserJoined | UserLeft)
    await bus.flush()
    await gateway.send(connected("c1", "ann"), joined("c1", "lobby"), connected("c2", "bob"))
    other = Gateway(bus, settings, "g2")
    await other.send(connected("d1", "bob"))

    async def only_bob() -> bool:
        await other.send()
        return list(await gateway.users()) == ["bob"]

    await eventually(only_bob, "ann offline")
    await eventually(lambda: len(notices.heard) >= 2, "both notices")
    assert [type(notice) for notice in notices.heard] == [UserJoined, UserLeft]


async def test_replicas_share_the_work_and_announce_each_change_once(
    service, gateway, bus, settings, tmp_path
):
    diffs = Listener()
    diffs.listen(bus, settings.subjects.presence_diff, PresenceDiff)
    await bus.flush()
    async with replica(settings, tmp_path) as second:
        await eventually(second.ready, "second replica ready")
        for i in range(40):
            await gateway.send(connected(f"c{i}", f"u{i}"))
        await gateway.send(*(disconnected(f"c{i}") for i in range(40)))

        async def everyone_offline() -> bool:
            assert (await gateway.send()).known
            return sum(len(diff.changes) for diff in diffs.heard) >= 80

        await eventually(everyone_offline, "everyone offline")
        assert await second.stop() == 0
    versions = sorted(diff.version - i for diff in diffs.heard for i in range(len(diff.changes)))
    assert versions == list(range(1, 81))


async def test_diffs_of_one_replica_leave_in_the_order_of_their_versions(service, bus, settings):
    diffs = Listener()
    diffs.listen(bus, settings.subjects.presence_diff, PresenceDiff)
    await bus.flush()
    gateways = [Gateway(bus, settings, f"g{i}") for i in range(20)]
    for i in range(10):
        await asyncio.gather(*(g.send(connected(f"c{i}", f"{g.name}-{i}")) for g in gateways))
    await eventually(lambda: len(diffs.heard) == 200, "all diffs")
    assert [diff.version for diff in diffs.heard] == list(range(1, 201))


async def test_without_redis_it_answers_unavailable_and_heals(gateway, make_settings, own_redis, tmp_path):
    async with replica(make_settings(redis_url=own_redis.url, **PATIENT), tmp_path) as service:
        await eventually(service.ready, "presence_svc ready")
        first = await gateway.send(connected("c1", "ann"))
        own_redis.kill()
        with pytest.raises(RequestRefused) as refused:
            await gateway.send()
        assert refused.value.code == "unavailable"

        async def not_ready() -> bool:
            return (await service.health())[0] == 503

        await eventually(not_ready, "not ready")
        _, text = await service.health()
        assert json.loads(text)["checks"] == {"bus": True, "redis": False}
        assert (await service.health("/healthz"))[0] == 200
        for leftover in (*own_redis.directory.rglob("*.rdb"), *own_redis.directory.rglob("appendonly*/*")):
            leftover.unlink(missing_ok=True)
        own_redis.start()
        await eventually(service.ready, "ready again")
        again = await gateway.send()
        assert not again.known
        assert again.epoch != first.epoch
        assert (await gateway.send(connected("c1", "ann"), fresh=True)).known
        assert list(await gateway.users()) == ["ann"]


async def test_a_redis_that_hangs_does_not_hang_the_asker(gateway, make_settings, own_redis, tmp_path):
    async with replica(make_settings(redis_url=own_redis.url, **PATIENT), tmp_path) as service:
        await eventually(service.ready, "presence_svc ready")
        await gateway.send(connected("c1", "ann"))
        own_redis.pause()
        try:
            with pytest.raises((RequestRefused, NoAnswer)):
                await gateway.send()
        finally:
            own_redis.resume()
        await eventually(service.ready, "ready again")
        repeated = await gateway.ask(PRESENCE_APPLY, gateway.request())
        assert repeated.known


async def test_it_starts_before_redis_does(make_settings, own_redis, tmp_path):
    settings = make_settings(redis_url=own_redis.url, **PATIENT)
    own_redis.kill()
    async with replica(settings, tmp_path) as service:

        async def serves() -> bool:
            return (await service.health())[0] == 503

        await eventually(serves, "not ready")
        own_redis.start()
        await eventually(service.ready, "ready")


async def test_it_stops_on_sigterm_with_exit_code_0(service):
    assert await service.stop() == 0


async def test_metrics_count_its_work(service, gateway):
    await gateway.send(connected("c1", "ann"))
    _, text = await service.health("/metrics")
    assert re.search(r'^tidings_presence_batches_total\{outcome="applied"\} 1\.0$', text, re.MULTILINE)
    assert re.search(r"^tidings_presence_changes_total 1\.0$", text, re.MULTILINE)


@pytest.mark.parametrize(
    ("redis_url", "code", "reason"), [("", 3, "is not set"), ("http://x", 2, "TIDINGS_REDIS_URL")]
)
async def test_a_wrong_redis_url_ends_it_with_a_reason(make_settings, tmp_path, redis_url, code, reason):
    async with replica(make_settings(redis_url=redis_url), tmp_path) as service:
        assert await asyncio.wait_for(service.process.wait(), PATIENCE_S) == code
        assert reason in service.log.read_text()
        assert "Traceback" not in service.log.read_text()


async def test_it_is_a_nats_micro_service(service, bus):
    answers = await bus.request_many(
        "$SRV.INFO.tidings-presence", b"", timeout_s=PATIENCE_S, until=lambda _: True
    )
    names = {endpoint["name"] for answer in answers for endpoint in json.loads(answer.data)["endpoints"]}
    assert names == {"apply", "list", "stats", "rooms"}


async def test_what_another_replica_did_not_live_to_publish_is_published(service, bus, settings):
    diffs, rooms, members = Listener(), Listener(), Listener()
    subjects = settings.subjects
    diffs.listen(bus, subjects.presence_diff, PresenceDiff)
    rooms.listen(bus, subjects.presence_room("default", "lobby"), PresenceDiff)
    members.listen(bus, subjects.room_members("default", "lobby"), UserJoined | UserLeft)
    await bus.flush()
    async with Redis.from_url(settings.redis_url) as redis:
        # As a replica that is killed between its script and the bus: the store has the changes, and they are not published.
        died = PresenceStore(redis, settings.prefix, LeaseTimings.of(settings))
        await SimulatedGateway(died).send(connected("c1", "ann"), joined("c1", "lobby"))
        batch = PresenceBatch(gateway="g2", boot="b", batch=1, fresh=True, ops=[
            connected("d1", "bob"), joined("d1", "lobby"),
        ])  # fmt: skip
        applied = await died.apply(batch)
        assert applied.changes.commit_id == 2
        heard = (members.heard, diffs.heard, rooms.heard)
        await eventually(lambda: all(heard), "the notice and the diffs")
        assert members.heard == [UserJoined(user_id="bob", username="Bob", room="lobby")]
        assert [change.user.user_id for diff in diffs.heard for change in diff.changes] == ["bob"]
        assert [diff.version for diff in rooms.heard] == [applied.changes.rooms[0].version]

        async def confirmed() -> bool:
            return not await redis.exists(f"{{{settings.prefix}:presence}}:outbox")

        await eventually(confirmed, "published and confirmed")
        await died.close()


async def test_what_could_not_be_published_is_published_when_the_bus_is_back(
    make_settings, tmp_path, redis_server
):
    with NatsServer(tmp_path / "nats") as nats:
        settings = make_settings(nats_url=nats.url, presence_lease_s=3.0, presence_grace_s=0.5)
        async with replica(settings, tmp_path) as service:
            await eventually(service.ready, "presence_svc ready")
            nats.kill()
            async with Redis.from_url(settings.redis_url) as redis:
                store = PresenceStore(redis, settings.prefix, LeaseTimings.of(settings))
                await store.apply(
                    PresenceBatch(gateway="g", boot="b", batch=1, fresh=True, ops=[connected("c", "ann")])
                )
                nats.start()
                listener = Listener()
                bus = await Bus.connect(settings, "test")
                listener.listen(bus, settings.subjects.presence_diff, PresenceDiff)
                await eventually(lambda: listener.heard, "the diff")
                await bus.close()
                await store.close()
