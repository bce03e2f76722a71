"""Queries of history: the right rows for each."""

import pytest

from metrics_svc import history
from metrics_svc.aggregation.rollups import SECONDS, Rollups, SeriesRow
from metrics_svc.aggregation.rows import FLEET, LATENCY, Row
from metrics_svc.history import MAX_ROLLUPS, BadQuery
from metrics_svc.store import SecondCommit
from services.latency_sketch import LatencySketch
from services.wire.records import UNSET, MetricsRecord
from services.wire.rpc import HistoryQuery
from tests.support.metrics import T0, ManualTime
from tests.support.metrics_store_memory import MemoryStore

LENGTH_S = 300
NOW = T0 + LENGTH_S


async def query(store: MemoryStore, question: HistoryQuery, now: float) -> list[MetricsRecord]:
    return (await history.query(store, question, now)).rows


@pytest.fixture
async def store() -> MemoryStore:
    """Five minutes: cpu counts up, one request a second, the slow one in the last second of each minute."""
    store = MemoryStore(ManualTime())
    term = (await store.acquire("a", 10**9)).term
    rollups = Rollups()
    for at in range(LENGTH_S):
        latency = LatencySketch([900.0 if at % 60 == 59 else 10.0])
        row = Row.of_second(T0 + at, {"cpu": float(at), "requests": 1.0}, {LATENCY: latency})
        closed = rollups.advance(T0 + at, {FLEET: row})
        await store.write("a", term, SecondCommit(T0 + at, [SeriesRow(FLEET, SECONDS, row), *closed]))
    return store


async def test_the_last_hundred_by_default(store: MemoryStore) -> None:
    rows = await query(store, HistoryQuery(), NOW)
    assert [row.cpu for row in rows] == list(range(200, 300))
    assert rows[-1].timestamp == NOW * 1000


async def test_limit(store: MemoryStore) -> None:
    assert [row.cpu for row in await query(store, HistoryQuery(limit=2), NOW)] == [298, 299]
    assert await query(store, HistoryQuery(limit=0), NOW) == []


async def test_a_range_is_of_record_times(store: MemoryStore) -> None:
    rows = await query(store, HistoryQuery(start=(T0 + 10) * 1000, end=(T0 + 12) * 1000), NOW)
    assert [row.timestamp // 1000 - T0 for row in rows] == [10, 11, 12]
    open_end = await query(store, HistoryQuery(start=(T0 + 298) * 1000), NOW)
    assert [row.timestamp // 1000 - T0 for row in open_end] == [298, 299, 300]
    open_start = await query(store, HistoryQuery(limit=2, end=(T0 + 12) * 1000), NOW)
    assert [row.timestamp // 1000 - T0 for row in open_start] == [11, 12]


@pytest.mark.parametrize("step", [10, 20, 60])
async def test_steps_from_rollups(store: MemoryStore, step: int) -> None:
    rows = await query(store, HistoryQuery(step=step, start=T0 * 1000, end=NOW * 1000), NOW)
    assert [row.timestamp for row in rows] == [(T0 + end) * 1000 for end in range(step, 301, step)]
    assert rows[0].cpu == pytest.approx((step - 1) / 2)
    assert (rows[0].min, rows[0].max) != ({}, {})
    assert isinstance(rows[0].max, dict)
    assert rows[0].max["cpu"] == step - 1
    assert rows[0].count == step


async def test_percentiles_of_a_step_are_those_of_its_requests(store: MemoryStore) -> None:
    for step, slow in ((60, 900.0), (30, 10.0)):
        first = (await query(store, HistoryQuery(step=step, start=T0 * 1000, end=NOW * 1000), NOW))[0]
        assert first.latency_p50 == pytest.approx(10, rel=0.01)
        assert first.latency_p99 == pytest.approx(slow, rel=0.01)


async def test_steps_that_no_rollup_divides_come_from_seconds(store: MemoryStore) -> None:
    rows = await query(store, HistoryQuery(step=7, start=T0 * 1000, end=(T0 + 60) * 1000), NOW)
    assert {row.count for row in rows} == {7}
    assert all(row.timestamp % 7000 == 0 for row in rows)


async def test_the_last_steps_are_complete(store: MemoryStore) -> None:
    rows = await query(store, HistoryQuery(step=10, limit=3), NOW - 4)
    assert [row.timestamp // 1000 - T0 for row in rows] == [270, 280, 290]


async def test_an_unknown_source_has_no_history(store: MemoryStore) -> None:
    assert await query(store, HistoryQuery(source="nobody"), NOW) == []
    assert await query(store, HistoryQuery(source="nobody", step=10), NOW) == []


@pytest.mark.parametrize(
    "question",
    [
        HistoryQuery(limit=-1),
        HistoryQuery(step=-1),
        HistoryQuery(start=-1),
        HistoryQuery(start=2000, end=1000),
        HistoryQuery(start=(NOW - 86_400) * 1000, step=10),
    ],
)
async def test_bad_questions(store: MemoryStore, question: HistoryQuery) -> None:
    with pytest.raises(BadQuery):
        await query(store, question, NOW)


async def test_too_many_rows_name_a_step_that_works(store: MemoryStore) -> None:
    start = (NOW - 86_400) * 1000
    with pytest.raises(BadQuery, match=f"at most {MAX_ROLLUPS}.*step of 58 s"):
        await query(store, HistoryQuery(start=start, step=10), NOW)
    assert len(await query(store, HistoryQuery(start=start, step=60), NOW)) == 5


async def test_absurd_numbers_are_no_burden(store: MemoryStore) -> None:
    assert await query(store, HistoryQuery(start=1, end=2), NOW) == []
    assert await query(store, HistoryQuery(start=10**18), NOW) == []
    assert len(await query(store, HistoryQuery(limit=10**12), NOW)) == LENGTH_S
    assert await query(store, HistoryQuery(limit=10**12, step=10**9), NOW) == []


async def test_one_metric_as_points(store: MemoryStore) -> None:
    whole = HistoryQuery(metric="cpu", step=60, start=T0 * 1000, end=NOW * 1000)
    points = (await history.query(store, whole, NOW)).points
    assert [(point.timestamp // 1000 - T0, point.value, point.min, point.max) for point in points][:2] == [
        (60, 29.5, 0, 59),
        (120, 89.5, 60, 119),
    ]
    seconds = (await history.query(store, HistoryQuery(metric="cpu", limit=3), NOW)).points
    assert [point.value for point in seconds] == [297, 298, 299]
    assert seconds[0].min is UNSET
    assert (await history.query(store, HistoryQuery(metric="nothing"), NOW)).points == []


async def test_points_of_complete_tiers_and_of_merged_rows_agree(store: MemoryStore) -> None:
    tens = HistoryQuery(metric="cpu", step=10, start=T0 * 1000, end=NOW * 1000)
    points = (await history.query(store, tens, NOW)).points
    assert [(point.value, point.min, point.max, point.count) for point in points][:2] == [
        (4.5, 0, 9, 10),
        (14.5, 10, 19, 10),
    ]
    for odd in ('cpu"', "cpu.p95", "c\\u"):
        asked = HistoryQuery(metric=odd, step=10, start=T0 * 1000, end=NOW * 1000)
        assert (await history.query(store, asked, NOW)).points == []


async def test_a_percentile_as_points_is_merged_never_averaged(store: MemoryStore) -> None:
    asked = HistoryQuery(metric="latencyP99", step=120, start=T0 * 1000, end=(T0 + 120) * 1000)
    (point,) = (await history.query(store, asked, NOW)).points
    assert point.value == pytest.approx(900, rel=0.01)


@pytest.mark.parametrize("step", [0, 10, 20])
async def test_a_sources_rows_leave_out_missing_metrics(step: int) -> None:
    store = MemoryStore(ManualTime())
    term = (await store.acquire("a", 10**9)).term
    rollups = Rollups()
    for at in range(60):
        row = Row.of_second(T0 + at, {"requests": 0.0, "errors": 0.0})
        closed = rollups.advance(T0 + at, {"shop": row})
        await store.write("a", term, SecondCommit(T0 + at, [SeriesRow("shop", SECONDS, row), *closed]))
    question = HistoryQuery(source="shop", step=step, start=T0 * 1000, end=(T0 + 60) * 1000)
    found = await history.query(store, question, T0 + 60)
    assert found.rows
    absent = ["cpu", "memory", "disk", "latencyP50", "latencyP95", "latencyP99", "network"]
    assert found.unmeasured == [absent] * len(found.rows)
