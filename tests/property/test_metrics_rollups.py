"""Rollups equal the seconds that they cover, also with gaps and after a change of leader."""

import asyncio

from hypothesis import given, settings
from hypothesis import strategies as st

from metrics_svc.aggregation.packed import pack
from metrics_svc.aggregation.rollups import ROLLUP_TIERS, SECONDS, Rollups, SeriesRow, Tier
from metrics_svc.aggregation.rows import LATENCY, Row, RowAccumulator
from metrics_svc.leader_state import restored_rollups
from services.latency_sketch import LatencySketch
from tests.support.metrics import T0
from tests.support.properties import examples

samples = st.lists(
    st.tuples(st.integers(0, 200), st.floats(0, 100), st.lists(st.floats(0.1, 5000), max_size=3)),
    unique_by=lambda sample: sample[0],
    min_size=1,
    max_size=60,
).map(sorted)


def seconds_of(drawn: list[tuple[int, float, list[float]]]) -> list[Row]:
    return [
        Row.of_second(T0 + at, {"cpu": cpu}, {LATENCY: LatencySketch(latencies)} if latencies else {})
        for at, cpu, latencies in drawn
    ]


def shape(placed: SeriesRow) -> tuple[object, ...]:
    row = placed.row
    bins = row.histograms[LATENCY].bins if LATENCY in row.histograms else None
    return placed.series, placed.tier, row.start, row.seconds, row.stats, row.quantiles, bins


def rounded(placed: SeriesRow) -> tuple[object, ...]:
    """Return the shape, but for the last digits of sums: they depend on the order of adding up."""
    series, tier, start, seconds, _, percentiles, bins = shape(placed)
    stats = {
        name: (round(stat.sum, 6), stat.count, stat.min, stat.max, stat.last)
        for name, stat in placed.row.stats.items()
    }
    return series, tier, start, seconds, stats, percentiles, bins


def run(rows: list[Row], rollups: Rollups) -> list[SeriesRow]:
    return [placed for row in rows for placed in rollups.advance(row.start, {"": row})]


@given(samples)
@settings(max_examples=examples(100))
def test_each_rollup_is_the_merge_of_its_seconds(drawn: list[tuple[int, float, list[float]]]) -> None:
    rows = seconds_of(drawn)
    # One second far behind, so that whatever was open closes.
    closing = Row.of_second(T0 + 10_000, {})
    closed = run([*rows, closing], Rollups())
    for tier in ROLLUP_TIERS:
        mine = {placed.row.start: placed.row for placed in closed if placed.tier is tier}
        mine.pop(tier.bucket(closing.start), None)
        assert set(mine) == {tier.bucket(row.start) for row in rows}
        for start, row in mine.items():
            members = [second for second in rows if tier.bucket(second.start) == start]
            whole = RowAccumulator(start, members).row()
            assert shape(SeriesRow("", tier, row))[2:4] == (start, len(members))
            assert row.stats["cpu"].min == whole.stats["cpu"].min
            assert row.stats["cpu"].count == whole.stats["cpu"].count
            assert abs(row.stats["cpu"].sum - whole.stats["cpu"].sum) < 1e-6
            assert row.quantiles == whole.quantiles


class Stored:
    """The part of a store that a successor reads: the seconds of one series, packed."""

    def __init__(self, rows: list[Row]) -> None:
        self._rows = rows

    async def series(self, since: int) -> dict[str, int]:
        return dict.fromkeys([""] if any(row.start >= since for row in self._rows) else [], since)

    async def packed(self, series: str, tier: Tier, start: int, end: int) -> list[bytes]:
        assert (series, tier) == ("", SECONDS)
        return [pack(row) for row in self._rows if tier.chunk(start) <= row.start]


@given(samples, st.integers(0, 60))
@settings(max_examples=examples(100))
def test_a_successor_that_restores_the_open_rows_goes_on_the_same(
    drawn: list[tuple[int, float, list[float]]], cut: int
) -> None:
    rows = seconds_of(drawn)
    cut = min(cut, len(rows))
    undisturbed = run(rows, Rollups())
    before = run(rows[:cut], Rollups())
    last = rows[cut - 1].start if cut else 0
    successor = asyncio.run(restored_rollups(Stored(rows[:cut]), last))  # type: ignore[arg-type]
    after = run(rows[cut:], successor)
    assert [rounded(placed) for placed in before + after] == [rounded(placed) for placed in undisturbed]


def test_a_row_closes_with_its_last_second() -> None:
    rollups = Rollups()
    tiers: list[Tier] = []
    for at in range(60):
        tiers += [placed.tier for placed in rollups.advance(T0 + at, {"": Row(T0 + at)})]
        assert len(tiers) == (at + 1) // 10 + (at + 1) // 60
