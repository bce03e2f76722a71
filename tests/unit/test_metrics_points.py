"""Points read from packed rows are those of the rows, unpacked."""

import pytest

from metrics_svc.aggregation.packed import has_points, pack, read_points, unpack
from metrics_svc.aggregation.rows import LATENCY, LATENCY_NAMES, Row, RowAccumulator, to_point
from services.latency_sketch import LatencySketch
from tests.support.metrics import T0

STEP = 10


def row(at: int) -> Row:
    """Return ten seconds: some with latencies, some without `cpu`, one of a single second."""
    seconds = [
        Row.of_second(
            second,
            {"cpu": second % 7 / 3, "up": 1.0} if at % 3 else {"up": 1.0},
            {"basket": LatencySketch([second % 5 + 1.0])}
            | ({LATENCY: LatencySketch([second % 90 + 0.5, 3.0])} if at % 2 else {}),
        )
        for second in range(at * STEP + T0, at * STEP + T0 + (1 if at == 4 else STEP))
    ]
    return RowAccumulator(T0 + at * STEP, seconds).row()


ROWS = [row(at) for at in range(12)]
PACKED = [pack(each) for each in ROWS]


@pytest.mark.parametrize("metric", ["cpu", "up", "basket", "nothing", *LATENCY_NAMES])
def test_the_same_as_unpacked(metric: str) -> None:
    assert has_points(metric)
    whole = [to_point(each, metric, STEP, rollup=True) for each in unpack(PACKED)]
    assert read_points(PACKED, metric, T0, T0 + 12 * STEP, STEP) == [
        point for point in whole if point is not None
    ]


def test_only_rows_that_begin_in_the_time_asked_for() -> None:
    found = read_points(PACKED, "up", T0 + STEP, T0 + 3 * STEP, STEP)
    assert [point.timestamp // 1000 - T0 for point in found] == [2 * STEP, 3 * STEP]


@pytest.mark.parametrize("metric", ["basket.p95", "cpu.p50", 'cpu"', "c\\u", "", "x\ny"])
def test_what_is_left_to_complete_rows(metric: str) -> None:
    assert not has_points(metric)
