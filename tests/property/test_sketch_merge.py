"""Merged sketches are the sketch of all values, and within 1 % of numpy's exact percentiles."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from services.sketch import RELATIVE_ACCURACY, LatencySketch
from tests.support.properties import examples

latencies = st.lists(st.floats(min_value=0.0, max_value=1e9), min_size=1, max_size=200)
QUANTILES = (0.0, 0.5, 0.95, 0.99, 1.0)


@given(st.lists(latencies, min_size=1, max_size=6))
@settings(max_examples=examples(150))
def test_merged_equals_sketch_of_all(parts: list[list[float]]) -> None:
    merged = LatencySketch()
    for part in parts:
        merged.merge(LatencySketch.from_wire(LatencySketch(part).to_wire()))
    whole = LatencySketch(value for part in parts for value in part)
    assert merged.bins == whole.bins
    assert (merged.zero, merged.count, merged.min, merged.max) == (
        whole.zero,
        whole.count,
        whole.min,
        whole.max,
    )
    assert merged.quantiles(QUANTILES) == whole.quantiles(QUANTILES)


@given(st.lists(latencies, min_size=1, max_size=6))
@settings(max_examples=examples(150))
def test_merged_is_within_one_percent_of_exact(parts: list[list[float]]) -> None:
    merged = LatencySketch()
    for part in parts:
        merged.merge(LatencySketch(part))
    values = [value for part in parts for value in part]
    found = merged.quantiles(QUANTILES)
    assert found is not None
    exact = np.percentile(values, [100 * q for q in QUANTILES], method="inverted_cdf")
    for ours, theirs in zip(found, exact, strict=True):
        # 1e-9 is the least value a bin holds; what is smaller counts as nought.
        assert abs(ours - theirs) <= RELATIVE_ACCURACY * theirs * 1.0001 + 1e-9


def test_real_distributions_over_nodes() -> None:
    random = np.random.default_rng(7)
    nodes = [
        random.lognormal(1.5, 0.8, 20_000),
        random.gamma(2.0, 30.0, 5_000),
        random.exponential(400.0, 500),
    ]
    merged = LatencySketch()
    for node in nodes:
        merged.merge(LatencySketch(node.tolist()))
    found = merged.quantiles((0.5, 0.95, 0.99))
    assert found is not None
    # So many values that numpy's interpolating default agrees, too.
    exact = np.percentile(np.concatenate(nodes), [50, 95, 99])
    assert np.all(np.abs(np.array(found) - exact) <= 0.011 * exact)
