"""The tick of a replica: leadership, waiting seconds, publishing once."""

from typing import Any

import msgspec
import pytest
from structlog.testing import capture_logs

from metrics_svc.aggregation.aggregator import Aggregator
from metrics_svc.aggregation.rollups import TENS
from metrics_svc.aggregation.rows import FLEET
from metrics_svc.aggregation.validation import ReportValidator
from metrics_svc.alerts.rule_store import RuleStore
from metrics_svc.evaluation_loop import BACKLOG_S, EvaluationLoop
from metrics_svc.intake import Intake
from metrics_svc.leader_lease import TTL_MS, FleetClock, LeaderLease
from metrics_svc.store import CommitStatus, MetricsStoreUnavailable, SecondCommit
from services import telemetry
from services.telemetry import MetricName
from services.wire.events import AlertEvent, MetricsTick
from services.wire.server import AlertRaised
from services.wire.subjects import Subjects
from tests.support.metrics import T0, ManualTime, Message, RecordingBus, report
from tests.support.metrics_store import stored_rows
from tests.support.metrics_store_memory import MemoryStore

SUBJECTS = Subjects("t")


class FaultyStore(MemoryStore):
    """A store that can be out of reach, or lose its answer after having done what was asked."""

    away = False
    answer_lost = False

    async def acquire(self, holder: str, ttl_ms: int, seen: int = 0) -> Any:
        self._reach()
        return await super().acquire(holder, ttl_ms, seen)

    async def write(self, holder: str, term: int, tick: SecondCommit) -> CommitStatus:
        self._reach()
        written = await super().write(holder, term, tick)
        if self.answer_lost:
            raise MetricsStoreUnavailable("the answer was lost")
        return written

    def _reach(self) -> None:
        if self.away:
            raise MetricsStoreUnavailable("away")


class Replica:
    """One replica, driven by hand."""

    def __init__(self, store: MemoryStore, bus: RecordingBus, time: ManualTime, name: str) -> None:
        self.bus = bus
        self.time = time
        self.clock = FleetClock(time, time)
        self.seconds = Aggregator()
        self.lease = LeaderLease(store, name, self.clock, time)
        self.intake = Intake(ReportValidator(), self.seconds, self.clock.now)
        self.loop = EvaluationLoop(
            self.seconds,
            self.lease,
            store,
            self.clock,
            RuleStore(None),
            bus,
            SUBJECTS,  # type: ignore[arg-type]
        )
        self.loop._next = int(time.now)

    def hear(self, **fields: Any) -> None:
        self.intake.on_report(Message(report(**fields)))  # type: ignore[arg-type]


class World:
    """Two replicas over one store, and their published messages."""

    def __init__(self) -> None:
        self.time = ManualTime()
        self.store = FaultyStore(self.time)
        self.bus = RecordingBus()
        self.a = Replica(self.store, self.bus, self.time, "a")
        self.b = Replica(self.store, self.bus, self.time, "b")

    def hear(self, **fields: Any) -> None:
        """All replicas receive all reports."""
        said = fields | {"seq": int(self.time.now * 10)}
        for replica in (self.a, self.b):
            replica.hear(**said)

    async def run(self, seconds: int, *replicas: Replica, **fields: Any) -> None:
        """Let seconds pass: each is reported in its middle, the lease renewed, and turned at its end."""
        for _ in range(seconds):
            self.time.now += 0.5
            if fields:
                self.hear(**fields)
            self.time.now += 0.5
            for replica in replicas:
                await replica.lease.attempt()
            for replica in (self.a, self.b):
                if replica in replicas:
                    await replica.loop.run_once()

    @property
    def ticks(self) -> list[MetricsTick]:
        return [msgspec.json.decode(data, type=MetricsTick) for data in self.bus.on(SUBJECTS.metrics_feed)]

    @property
    def ticked(self) -> list[int]:
        return [tick.record.timestamp // 1000 - 1 - T0 for tick in self.ticks]

    @property
    def alerts(self) -> list[AlertEvent]:
        return [msgspec.json.decode(data, type=AlertEvent) for data in self.bus.on(SUBJECTS.alerts_feed)]


@pytest.fixture
def world() -> World:
    return World()


async def test_one_replica_ticks_each_second_once(world: World) -> None:
    await world.run(5, world.a, world.b, requests=7.0)
    assert world.ticked == [0, 1, 2, 3, 4]
    assert {tick.record.requests for tick in world.ticks} == {7.0}
    assert len({tick.term for tick in world.ticks}) == 1
    assert [world.a.loop.is_leader, world.b.loop.is_leader] == [True, False]


async def test_a_successor_writes_what_its_predecessor_did_not(world: World) -> None:
    await world.run(3, world.a, world.b, requests=7.0)
    await world.run(4, world.b, requests=7.0)  # a is dead
    assert world.ticked == [0, 1, 2, 3, 4, 5, 6]
    assert {tick.record.requests for tick in world.ticks} == {7.0}
    assert world.ticks[-1].term > world.ticks[0].term
    assert len(await world.store.newest(FLEET, 100)) == 7


async def test_rollups_go_on_over_a_takeover(world: World) -> None:
    await world.run(4, world.a, world.b, requests=7.0)
    await world.run(60, world.b, requests=7.0)
    rows = await stored_rows(world.store, FLEET, TENS, T0, T0 + 60)
    assert [(row.start - T0, row.seconds) for row in rows] == [(at, 10) for at in range(0, 60, 10)]
    assert {row.value("requests") for row in rows} == {7.0}


async def test_a_sleeper_that_wakes_does_not_tick(world: World) -> None:
    await world.run(3, world.a, world.b)
    await world.run(4, world.b)
    world.time.now += 1
    await world.a.loop.run_once()
    assert not world.a.loop.is_leader  # by the clock its lease is over
    world.a.lease._valid_until = world.time.now + 1  # and if its clock were wrong, the store knows better
    await world.a.loop.run_once()
    assert not world.a.loop.is_leader
    assert world.ticked == [0, 1, 2, 3, 4, 5, 6]
    await world.b.loop.run_once()
    assert world.ticked == [0, 1, 2, 3, 4, 5, 6, 7]


async def test_seconds_wait_while_the_store_is_away(world: World) -> None:
    await world.run(2, world.a, requests=7.0)
    world.store.away = True
    await world.run(5, world.a, requests=7.0)
    assert world.ticked == [0, 1]
    assert not world.a.lease.reachable
    world.store.away = False
    await world.run(1, world.a, requests=7.0)
    assert world.ticked == list(range(8))
    assert {tick.record.requests for tick in world.ticks} == {7.0}


async def test_a_long_outage_leaves_a_hole_and_no_burst(world: World) -> None:
    await world.run(1, world.a, requests=7.0)
    world.store.away = True
    await world.run(BACKLOG_S + 20, world.a, requests=7.0)
    world.store.away = False
    await world.run(1, world.a, requests=7.0)
    assert len(world.ticked) == 1 + BACKLOG_S
    assert {tick.record.requests for tick in world.ticks} == {7.0}


async def test_seconds_that_were_not_written_are_counted(world: World) -> None:
    dropped = telemetry.counter(MetricName.METRICS_SECONDS_DROPPED)
    before = dropped._value.get()
    await world.run(BACKLOG_S + 10, world.a, world.b)  # b keeps the last of them, and needs none
    await world.run(4, world.b)
    assert dropped._value.get() == before
    world.store.away = True
    await world.run(BACKLOG_S + 20, world.b)
    world.store.away = False
    with capture_logs() as logs:
        await world.run(1, world.b)
    assert dropped._value.get() - before == 21
    assert [line["count"] for line in logs if line["event"] == "seconds are missing from the history"] == [21]


async def test_a_write_whose_answer_was_lost_is_not_repeated(world: World) -> None:
    world.store.answer_lost = True
    await world.run(1, world.a, gauges={"cpu": 99.0}, source="m", kind="agent")
    assert world.ticked == []
    world.store.answer_lost = False
    await world.run(1, world.a, gauges={"cpu": 99.0}, source="m", kind="agent")
    assert world.ticked == [0, 1]
    assert [type(event) for event in world.alerts] == [AlertRaised]
    assert len(await world.store.episodes(10)) == 1


async def test_alerts_wait_for_the_bus_records_do_not(world: World) -> None:
    world.bus.down = True
    await world.run(2, world.a, gauges={"cpu": 99.0}, source="m", kind="agent")
    assert len(await world.store.unannounced()) == 1
    world.bus.down = False
    await world.run(2, world.a, gauges={"cpu": 99.0}, source="m", kind="agent")
    assert world.ticked == [2, 3]
    assert [event.data.id for event in world.alerts] == ["cpu-alert"]
    assert await world.store.unannounced() == []


async def test_a_successor_announces_what_its_predecessor_did_not(world: World) -> None:
    await world.run(1, world.a, world.b)
    world.bus.down = True
    await world.run(1, world.a, gauges={"cpu": 99.0}, source="m", kind="agent")
    world.bus.down = False
    await world.run(4, world.b, gauges={"cpu": 99.0}, source="m", kind="agent")
    assert [event.data.id for event in world.alerts] == ["cpu-alert"]


async def test_states_survive_a_change_of_the_leader(world: World) -> None:
    await world.run(2, world.a, world.b, gauges={"cpu": 99.0}, source="m", kind="agent")
    await world.run(4, world.b, gauges={"cpu": 99.0}, source="m", kind="agent")
    await world.run(5, world.b, gauges={"cpu": 1.0}, source="m", kind="agent")
    assert [type(event).__name__ for event in world.alerts] == ["AlertRaised", "AlertResolved"]


async def test_a_suspended_process_skips_what_is_too_old(world: World) -> None:
    await world.run(1, world.a)
    world.time.now += 1000
    await world.a.lease.attempt()
    await world.a.loop.run_once()
    assert len(world.ticked) == 1 + BACKLOG_S


@pytest.mark.parametrize("data", [b"", b"{}", b"[1]", b'{"type":"log_report"}', b"[" * 100_000, b"\xff"])
async def test_garbage_on_the_bus_is_counted_and_forgotten(world: World, data: bytes) -> None:
    world.a.intake.on_report(Message(data))  # type: ignore[arg-type]
    world.a.intake.on_logs(Message(data))  # type: ignore[arg-type]
    await world.run(1, world.a)
    assert world.ticked == [0]


async def test_the_lease_lives_two_seconds(world: World) -> None:
    assert await world.a.lease.attempt() < TTL_MS / 1000 / 2
    assert world.a.lease.term
    assert await world.b.lease.attempt() <= TTL_MS / 1000 + 0.02
    world.time.now += TTL_MS / 1000 + 0.001
    assert world.a.lease.term == 0
    await world.b.lease.attempt()
    assert world.b.lease.term
    await world.a.lease.attempt()
    assert world.a.lease.term == 0


async def test_a_released_lease_is_free_at_once(world: World) -> None:
    await world.a.lease.attempt()
    await world.a.lease.release()
    await world.b.lease.attempt()
    assert world.b.lease.term
    assert await world.b.lease.wait_for_term(0)
