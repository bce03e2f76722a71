"""Two replicas: one ticks, the other takes over, and of each second there is one record."""

import signal
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from services.settings import Settings
from services.wire import rpc
from tests.support.deadline import eventually
from tests.support.metrics_fleet import Fleet, Process

# A replica without CPU time for two seconds loses its lease.
pytestmark = [pytest.mark.timing, pytest.mark.timeout(90)]

Pair = tuple[Fleet, Process, Process]


@pytest.fixture
async def pair(make_settings: Callable[..., Settings], tmp_path: Path) -> AsyncIterator[Pair]:
    """A fleet with the replica that ticks and the one that waits."""
    async with Fleet(make_settings(), tmp_path) as fleet:
        replicas = [fleet.start(), fleet.start()]
        for replica in replicas:
            await eventually(lambda replica=replica: replica.logged("started"), "both replicas")
        leader = await fleet.leader(*replicas)
        replicas.remove(leader)
        await eventually(lambda: len(fleet.ticks) >= 3, "three seconds")
        yield fleet, leader, replicas[0]


def two_terms(fleet: Fleet) -> bool:
    return len({tick.term for tick in fleet.ticks}) == 2


def succeeded_at(fleet: Fleet) -> float:
    """Return when the first tick of another term was heard."""
    terms = [tick.term for tick in fleet.ticks]
    return fleet.ticked_at[next(place for place, term in enumerate(terms) if term != terms[0])]


async def test_killed(pair: Pair) -> None:
    fleet, leader, other = pair
    await fleet.report_until(lambda: fleet.ticks[-1].record.cpu == 42, "reports", gauges={"cpu": 42})
    last, killed = fleet.seconds[-1], time.monotonic()
    leader.kill()
    await fleet.report_until(lambda: two_terms(fleet), "the successor's tick", gauges={"cpu": 42})
    assert succeeded_at(fleet) - killed <= 3.0
    assert other.logged("leader term started")
    await fleet.report_until(lambda: fleet.seconds[-1] > last + 5, "more ticks", gauges={"cpu": 42})
    assert fleet.seconds == list(range(fleet.seconds[0], fleet.seconds[-1] + 1))  # no hole, none twice
    terms = [tick.term for tick in fleet.ticks]
    assert terms == sorted(terms)
    assert len(set(terms)) == 2
    rows = (await fleet.ask(rpc.METRICS_HISTORY, rpc.HistoryQuery(limit=3600))).rows
    stored = [row.timestamp // 1000 for row in rows]
    assert stored == list(range(stored[0], stored[-1] + 1))
    assert {row.cpu for row in rows if row.timestamp // 1000 > last} == {42}


async def test_stopped_in_order_is_replaced_within_a_second(pair: Pair) -> None:
    fleet, leader, _ = pair
    assert leader.stop() == 0
    stopped = time.monotonic()
    await eventually(lambda: two_terms(fleet), "the successor's tick")
    assert succeeded_at(fleet) - stopped <= 2.0
    await eventually(lambda: len(fleet.seconds) >= 8, "more ticks")
    assert fleet.seconds == list(range(fleet.seconds[0], fleet.seconds[-1] + 1))


async def test_asleep_and_awake_again(pair: Pair) -> None:
    fleet, leader, other = pair
    leader.signal(signal.SIGSTOP)
    last = fleet.seconds[-1]
    await eventually(
        lambda: other.logged("leader term started") and fleet.seconds[-1] > last + 1, "the successor"
    )
    leader.signal(signal.SIGCONT)
    awake = fleet.seconds[-1]
    await eventually(lambda: fleet.seconds[-1] > awake + 3, "more ticks")
    assert fleet.seconds == list(range(fleet.seconds[0], fleet.seconds[-1] + 1))
    assert len({tick.term for tick in fleet.ticks if tick.record.timestamp // 1000 > awake}) == 1


async def test_an_alert_outlives_the_replica_that_raised_it(pair: Pair) -> None:
    fleet, leader, _ = pair
    await fleet.report_until(lambda: fleet.alerts, "the alert", gauges={"cpu": 95})
    leader.kill()
    last = fleet.seconds[-1]
    await fleet.report_until(lambda: fleet.seconds[-1] > last, "the next tick", gauges={"cpu": 95})
    await fleet.report_until(lambda: len(fleet.alerts) > 1, "the end", gauges={"cpu": 5})
    assert fleet.said == ["cpu-alert critical", "cpu-alert resolved"]
