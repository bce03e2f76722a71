"""A sketch: accepted and refused values, and its percentiles."""

from math import inf, nan

import msgspec
import pytest
from ddsketch import DDSketch

from services.latency_sketch import MAX_MS, BadSample, LatencySketch
from services.wire.events import Sketch


@pytest.mark.parametrize("value", [nan, inf, -inf, -1.0, -1e-12, MAX_MS * 1.01])
def test_refuses_what_no_latency_can_be(value: float) -> None:
    sketch = LatencySketch([1.0])
    with pytest.raises(BadSample):
        sketch.add(value)
    assert sketch.count == 1
    assert sketch.quantile(0.5) == 1.0


def test_empty_has_no_quantile() -> None:
    sketch = LatencySketch()
    assert sketch.quantile(0.5) is None
    assert sketch.to_wire() == Sketch()
    assert LatencySketch.from_wire(Sketch()).count == 0


def test_one_value_is_every_quantile() -> None:
    sketch = LatencySketch([37.0])
    assert [sketch.quantile(q) for q in (0.0, 0.5, 0.99, 1.0)] == [37.0] * 4


def test_zeros_count() -> None:
    sketch = LatencySketch([0.0, 0.0, 0.0, 100.0])
    assert sketch.quantile(0.5) == 0.0
    assert sketch.quantile(1.0) == 100.0


def test_slowest_of_ten_is_the_99th_percentile() -> None:
    assert LatencySketch([5.0] * 9 + [800.0]).quantile(0.99) == 800.0


@pytest.mark.parametrize(("q", "expected"), [(0.07, 7), (0.5, 50), (0.95, 95), (0.99, 99), (1.0, 100)])
def test_rank_is_the_nearest(q: float, expected: float) -> None:
    sketch = LatencySketch(float(value) for value in range(1, 101))
    found = sketch.quantile(q)
    assert found is not None
    assert abs(found - expected) <= 0.01 * expected


def test_bins_are_those_of_the_ddsketch_libraries() -> None:
    values = [0.0013, 0.7, 1.0, 12.5, 99.0, 1234.5, 1e6]
    theirs = DDSketch(0.01)
    for value in values:
        theirs.add(value)
    keys = {theirs._mapping.key(value) for value in values}
    assert set(LatencySketch(values).bins) == keys


def test_survives_json() -> None:
    sketch = LatencySketch([0.0, 1.5, 3.0, 3.0, 1000.0])
    data = msgspec.json.encode(sketch.to_wire())
    again = LatencySketch.from_wire(msgspec.json.decode(data, type=Sketch))
    assert again.to_wire() == sketch.to_wire()


def test_wire_form_is_a_copy() -> None:
    sketch = LatencySketch([1.0])
    wire = sketch.to_wire()
    sketch.add(1.0)
    assert sum(wire.bins.values()) == 1


GOOD = LatencySketch([1.0, 2.0]).to_wire()


@pytest.mark.parametrize(
    "changes",
    [
        {"bins": {0: nan}},
        {"bins": {0: inf}},
        {"bins": {0: -1.0}},
        {"bins": {0: 0.0}},
        {"bins": {0: 1e300}},
        {"bins": {10**9: 1.0}},
        {"bins": {-(10**9): 1.0}},
        {"zero": -1.0},
        {"zero": nan},
        {"sum": nan},
        {"sum": -1.0},
        {"min": nan},
        {"min": -1.0},
        {"max": inf},
        {"min": 3.0, "max": 2.0},
        {"min": msgspec.UNSET},
        {"max": msgspec.UNSET},
    ],
)
def test_refuses_sketches_no_values_made(changes: dict[str, object]) -> None:
    with pytest.raises(BadSample):
        LatencySketch.from_wire(msgspec.structs.replace(GOOD, **changes))


def test_the_senders_count_is_not_believed() -> None:
    assert LatencySketch.from_wire(msgspec.structs.replace(GOOD, count=1e9)).count == 2
