"""Rows merge and pack without loss; each tier serves its resolutions."""

from itertools import pairwise
from random import Random

import msgspec
import pytest

from metrics_svc.aggregation.packed import decode_row, merge_packed, pack, unpack
from metrics_svc.aggregation.rollups import (
    DAY_S,
    HOUR_S,
    MINUTES,
    SECONDS,
    TENS,
    TIERS,
    Tier,
    choose_tier,
)
from metrics_svc.aggregation.rows import LATENCY, Row, RowAccumulator, Stat, to_record
from services.latency_sketch import LatencySketch
from services.wire.events import Sketch
from tests.support.metrics import T0


def second(start: int, latencies: list[float] | None = None, **values: float) -> Row:
    return Row.of_second(start, values, {LATENCY: LatencySketch(latencies)} if latencies else {})


def wire_of(row: Row) -> dict[str, Sketch]:
    return {name: sketch.to_wire() for name, sketch in row.histograms.items()}


def test_merge_keeps_sum_count_extremes_and_last() -> None:
    merged = RowAccumulator(
        T0, [second(T0, cpu=10.0), second(T0 + 1, cpu=40.0), second(T0 + 2, cpu=25.0)]
    ).row()
    assert merged.stats["cpu"] == Stat(75.0, 3, 10.0, 40.0, 25.0)
    assert merged.value("cpu") == 25.0
    assert merged.seconds == 3


def test_merged_percentiles_are_those_of_all_latencies() -> None:
    merged = RowAccumulator(T0, [second(T0, [10.0] * 99), second(T0 + 1, [1000.0])]).row()
    assert merged.value("latencyP99") == pytest.approx(10, rel=0.01)
    assert merged.stats["latencyP99"].max == pytest.approx(1000, rel=0.01)


def test_rollup_record_has_extremes_by_name_and_count() -> None:
    record = to_record(
        RowAccumulator(T0, [second(T0, cpu=10.0), second(T0 + 1, cpu=40.0)]).row(), 10, rollup=True
    )
    assert (record.cpu, record.min, record.max, record.count) == (25.0, {"cpu": 10.0}, {"cpu": 40.0}, 2)
    assert record.timestamp == (T0 + 10) * 1000


@pytest.mark.parametrize("latencies", [None, [0.0, 1.5, 3.0, 3.0, 1e6]])
@pytest.mark.parametrize("merged", [False, True])
def test_packing_keeps_everything(latencies: list[float] | None, merged: bool) -> None:
    row = second(T0, latencies, cpu=12.25, requests=3.0)
    if merged:
        row = RowAccumulator(T0, [row, second(T0 + 1, latencies, cpu=1.0)]).row()
    again = merge_packed(row.start, [decode_row(pack(row))], sketches=True)
    assert (again.start, again.seconds, again.stats, again.quantiles) == (
        row.start,
        row.seconds,
        row.stats,
        row.quantiles,
    )
    assert wire_of(again) == wire_of(row)


def test_unpacking_without_sketch_keeps_the_percentiles() -> None:
    [row] = unpack([pack(second(T0, [5.0] * 10))])
    assert row.histograms == {}
    assert row.value("latencyP95") == pytest.approx(5.0, rel=0.01)


@pytest.mark.parametrize("requests", [0, 30, 1000])
def test_a_minute_packs_into_far_less_than_its_seconds(requests: int) -> None:
    """What the memory of history depends on: a row's size follows the spread of values, not how many there were."""
    random = Random(1)  # the same latencies in every run
    names = ("cpu", "memory", "disk", "network_in", "network_out", "requests", "errors")
    counted = (
        "connections", "sse_streams", "rooms", "memory_bytes", "process_cpu", "messages_in", "messages_out",
        "bytes_out", "slow_clients", "dropped", "up",
    )  # fmt: skip
    rows = [
        second(
            T0 + at,
            [random.lognormvariate(2, 1) for _ in range(requests)],
            **{name: random.uniform(0, 100) for name in names},
            **{name: float(random.randint(0, 5000)) for name in counted},
        )
        for at in range(60)
    ]
    seconds, minute = sum(len(pack(row)) for row in rows), len(pack(RowAccumulator(T0, rows).row()))
    assert seconds < 60 * 1024
    assert minute < seconds / 20


def test_bytes_that_are_no_row_are_refused() -> None:
    with pytest.raises(msgspec.DecodeError):
        unpack([b"\x93\x01"])


NOW = T0 + 100 * DAY_S


@pytest.mark.parametrize(
    ("age_s", "step", "expected"),
    [
        (60, 1, (SECONDS, 1)),
        (60, 7, (SECONDS, 7)),
        (60, 10, (TENS, 10)),
        (60, 60, (MINUTES, 60)),
        (60, 90, (TENS, 90)),
        (HOUR_S, 15, (SECONDS, 15)),
        (HOUR_S + 1, 15, (TENS, 20)),
        (DAY_S, 30, (TENS, 30)),
        (2 * DAY_S, 30, (MINUTES, 60)),
        (2 * DAY_S, 90, (MINUTES, 120)),
        (60 * DAY_S, 300, (MINUTES, 300)),
    ],
)
def test_the_right_tier_answers(age_s: int, step: int, expected: tuple[Tier, int]) -> None:
    assert choose_tier(NOW - age_s, step, NOW) == expected


def test_tiers_fit_into_each_other() -> None:
    for finer, coarser in pairwise(TIERS):
        assert coarser.step_s % finer.step_s == 0
        assert coarser.keep_s > finer.keep_s
    for tier in TIERS:
        assert tier.chunk_s % tier.step_s == 0


@pytest.mark.parametrize("spread", [0.01, 1.0, 4.0])
@pytest.mark.parametrize("zeros", [0, 50])
def test_merging_packed_rows_equals_merging_rows(spread: float, zeros: int) -> None:
    """Dense and sparse bins, and both together: a wide spread of few values leaves gaps."""
    random = Random(4)  # the same latencies in every run
    rows = [
        second(
            T0 + at,
            [random.lognormvariate(2, spread * (1 + at % 2 / 2)) for _ in range(40)] + [0.0] * zeros,
            cpu=random.uniform(0, 100),
        )
        for at in range(30)
    ]
    packed = [decode_row(pack(row)) for row in rows]
    slow, fast = RowAccumulator(T0, rows).row(), merge_packed(T0, packed, sketches=True)
    assert fast.quantiles == slow.quantiles
    assert (fast.seconds, fast.stats.keys()) == (slow.seconds, slow.stats.keys())
    for name, stat in slow.stats.items():
        other = fast.stats[name]
        assert (other.count, other.min, other.max, other.last) == (stat.count, stat.min, stat.max, stat.last)
        assert other.sum == pytest.approx(stat.sum)
    for row in rows:
        assert wire_of(merge_packed(row.start, [decode_row(pack(row))], sketches=True)) == wire_of(row)
