"""Seconds are written once, by the leader, and rows of all tiers are read; on every store of metrics."""

from collections.abc import Callable

import pytest

from metrics_svc.aggregation.packed import decode_row, merge_packed
from metrics_svc.aggregation.rollups import SECONDS, TENS, SeriesRow
from metrics_svc.aggregation.rows import LATENCY, RowAccumulator
from metrics_svc.store import MAX_EPISODES, CommitStatus, MetricsStore, MetricsStoreUnavailable, SecondCommit
from metrics_svc.store_redis import RedisMetricsStore
from services.redis_client import open_redis
from services.settings import Settings
from services.wire.records import AlertTransition
from tests.support.deadline import eventually
from tests.support.metrics import T0
from tests.support.metrics_store import LONG_MS, entry, firing, lead, second, stored_rows
from tidings_cli.local.servers import RedisServer


class TestLease:
    async def test_one_holds_it_and_renews_it(self, store: MetricsStore) -> None:
        first = await store.acquire("a", LONG_MS)
        again = await store.acquire("a", LONG_MS)
        other = await store.acquire("b", LONG_MS)
        assert first.term == again.term > 0
        assert other.term == 0
        assert 0 < other.left_ms <= LONG_MS
        assert first.clock_s > T0

    async def test_terms_rise(self, store: MetricsStore) -> None:
        terms = []
        for holder in ("a", "b", "a"):
            terms.append(await lead(store, holder))
            await store.release(holder, terms[-1])
        assert terms == sorted(set(terms))

    async def test_a_term_is_above_every_one_that_was_seen(self, store: MetricsStore) -> None:
        """A failover may lose the last term and lead to a slower clock."""
        term = await lead(store)
        lost = term + 3_600_000
        assert (await store.acquire("b", LONG_MS, lost)).newest == term  # another's, and still held
        renewed = await store.acquire("a", LONG_MS, lost)
        assert renewed.term == renewed.newest > lost
        await store.release("a", renewed.term)
        assert (await store.acquire("b", LONG_MS, lost + 10)).term > lost + 10

    async def test_it_runs_out(self, store: MetricsStore) -> None:
        first = await store.acquire("a", 30)

        async def taken() -> int:
            return (await store.acquire("b", LONG_MS)).term

        assert await eventually(taken, "the lease") > first.term

    async def test_only_its_holder_gives_it_up(self, store: MetricsStore) -> None:
        term = await lead(store)
        await store.release("b", term)
        await store.release("a", term - 1)
        assert (await store.acquire("b", LONG_MS)).term == 0


class TestWriting:
    async def test_a_second_is_written_once(self, store: MetricsStore) -> None:
        term = await lead(store)
        tick = SecondCommit(T0, [second(T0, cpu=1.0)])
        assert await store.write("a", term, tick) is CommitStatus.DONE
        assert await store.write("a", term, tick) is CommitStatus.AGAIN
        assert await store.write("a", term, SecondCommit(T0 - 1, [])) is CommitStatus.STALE
        assert await store.last_second() == T0
        assert len(await store.newest("", 10)) == 1

    async def test_any_number_of_episodes_at_once(self, store: MetricsStore) -> None:
        """More than a command of Redis has room for when called from Lua."""
        term = await lead(store)
        many = [entry(T0 + at, metric=f"m{at}") for at in range(9_000)]
        tick = SecondCommit(T0, [second(T0, cpu=1.0)], entries=many)
        assert await store.write("a", term, tick) is CommitStatus.DONE
        assert len(await store.newest("", 10)) == 1
        kept = await store.episodes(2 * MAX_EPISODES)
        assert [line.metric for line in kept[:2]] == ["m8999", "m8998"]
        assert len(kept) == MAX_EPISODES

    async def test_a_successor_does_not_write_it_again(self, store: MetricsStore) -> None:
        term = await lead(store)
        await store.write("a", term, SecondCommit(T0, [second(T0, cpu=1.0)]))
        await store.release("a", term)
        successor = await lead(store, "b")
        assert (
            await store.write("b", successor, SecondCommit(T0, [second(T0, cpu=2.0)])) is CommitStatus.STALE
        )
        assert await store.write("b", successor, SecondCommit(T0 + 1, [])) is CommitStatus.DONE

    async def test_a_fenced_writer_changes_nothing(self, store: MetricsStore) -> None:
        term = await lead(store)
        await store.release("a", term)
        tick = SecondCommit(T0, [second(T0, cpu=1.0)], {"cpu-alert": firing()}, [entry(T0)], [])
        assert await store.write("a", term, tick) is CommitStatus.FENCED
        await lead(store, "b")
        assert await store.write("a", term, tick) is CommitStatus.FENCED
        assert await store.write("b", term, tick) is CommitStatus.FENCED
        assert await store.last_second() == 0
        assert await store.newest("", 10) == []
        assert await store.instances() == {}
        assert await store.episodes(10) == []

    async def test_nothing_is_there_before(self, store: MetricsStore) -> None:
        assert await store.last_second() == 0
        assert await store.newest("", 100) == []
        assert await stored_rows(store, "", TENS, T0, T0 + 100) == []
        assert await store.series(0) == {}
        assert await store.active() == []
        assert await store.episodes(10) == []
        assert await store.unannounced() == []
        assert await store.silences(0) == []
        assert await store.recent_logs(10) == []


class TestRows:
    async def test_rows_come_back_as_they_were(self, store: MetricsStore) -> None:
        term = await lead(store)
        written = [second(T0 + at, [1.0, 50.0 * at + 1], cpu=float(at)) for at in range(3)]
        for placed in written:
            await store.write("a", term, SecondCommit(placed.row.start, [placed]))
        rows = await stored_rows(store, "", SECONDS, T0, T0 + 3)
        packed = [decode_row(data) for data in await store.packed("", SECONDS, T0, T0 + 3)]
        assert [row.start for row in rows] == [row.start for row in packed] == [T0, T0 + 1, T0 + 2]
        for row, stored, placed in zip(rows, packed, written, strict=True):
            assert (row.stats, row.histograms, row.quantiles) == (placed.row.stats, {}, placed.row.quantiles)
            merged = merge_packed(stored.start, [stored], sketches=True)
            assert merged.histograms[LATENCY].to_wire() == placed.row.histograms[LATENCY].to_wire()
        assert [row.start for row in await stored_rows(store, "", SECONDS, T0 + 1, T0 + 2)] == [T0 + 1]

    async def test_series_and_tiers_are_apart(self, store: MetricsStore) -> None:
        term = await lead(store)
        tens = RowAccumulator(T0, [second(T0 + at, cpu=1.0).row for at in range(10)]).row()
        name = "web:1 {x} é"
        rows = [
            second(T0, cpu=1.0),
            second(T0, series=name, cpu=2.0),
            SeriesRow("", TENS, tens),
        ]
        await store.write("a", term, SecondCommit(T0, rows))
        assert await store.series(T0) == {"": T0, name: T0}
        assert await store.series(T0 + 1) == {}
        assert [row.value("cpu") for row in await store.newest(name, 5)] == [2.0]
        assert [row.seconds for row in await stored_rows(store, "", TENS, T0, T0 + 1)] == [10]
        assert await stored_rows(store, name, TENS, T0, T0 + 1) == []

    async def test_the_newest_across_chunks(self, store: MetricsStore) -> None:
        term = await lead(store)
        border = SECONDS.chunk(T0) + SECONDS.chunk_s
        for at in range(border - 3, border + 3):
            await store.write("a", term, SecondCommit(at, [second(at, cpu=1.0)]))
        assert [row.start for row in await store.newest("", 4)] == list(range(border - 1, border + 3))
        assert len(await store.newest("", 1000)) == 6
        assert await store.newest("", 0) == []
        across = await stored_rows(store, "", SECONDS, border - 2, border + 2)
        assert [row.start for row in across] == list(range(border - 2, border + 2))


@pytest.mark.parametrize("key", ["watches", "order", "notices", "series", "transitions", "rows:10s"])
async def test_a_second_that_fails_on_its_way_leaves_nothing(
    redis_server: RedisServer, make_settings: Callable[..., Settings], key: str
) -> None:
    """Redis does not roll back a script. A write that failed is tried again, and must not push its rows twice."""
    settings = make_settings(redis_url=redis_server.url)
    redis = open_redis(settings, "metrics")
    store = RedisMetricsStore(redis, settings.prefix)
    rows = [second(T0, cpu=1.0), SeriesRow("", TENS, second(T0, cpu=1.0).row)]
    tick = SecondCommit(
        T0, rows, instances={"cpu-alert": firing()}, entries=[entry(T0)],
        transitions=[AlertTransition(id="a", timestamp=T0, before="x", after="y", reason="z")],
    )  # fmt: skip
    if key.startswith("rows"):
        key = f"{key}:{TENS.chunk(T0)}:"
    spoilt = f"{{{settings.prefix}:metrics}}:{key}"
    try:
        term = await lead(store)
        await redis.set(spoilt, "something else")
        for _ in range(3):
            with pytest.raises(MetricsStoreUnavailable):
                await store.write("a", term, tick)
        await redis.delete(spoilt)
        assert await store.packed("", SECONDS, T0, T0 + 1) == []
        assert await store.write("a", term, tick) is CommitStatus.DONE
        assert len(await store.newest("", 10)) == 1
        assert len(await store.packed("", SECONDS, T0, T0 + 1)) == 1
        assert len(await store.transitions(10)) == 1
    finally:
        await store.close()
