"""Exactness of percentiles merged over nodes and time, against numpy with all values.

`python -m bench metrics.percentiles`. Eight nodes with different latencies report each second for five minutes through the
path that real reports take (wire, validation, seconds, rollups); merged rows are compared with the quantiles of all values.
"""

import msgspec
import numpy as np

from bench.single import keep
from metrics_svc.aggregation.aggregator import Aggregator
from metrics_svc.aggregation.packed import decode_row, merge_packed, pack
from metrics_svc.aggregation.rollups import Rollups
from metrics_svc.aggregation.rows import FLEET, LATENCY
from metrics_svc.aggregation.validation import ReportValidator
from services.latency_sketch import LatencySketch
from services.wire.events import MetricsReport

NODES = 8
LENGTH_S = 300
PER_SECOND = 200
START = 1_700_000_040
SHAPES = ("lognormal", "bimodal", "pareto")


def values_of(shape: str, node: int, rng: np.random.Generator) -> np.ndarray:
    """Return one second of one node's latencies in ms; nodes differ."""
    match shape:
        case "lognormal":
            return rng.lognormal(2 + node / 4, 0.8, PER_SECOND)
        case "bimodal":
            slow = rng.random(PER_SECOND) < 0.08
            return np.where(slow, rng.normal(900, 90, PER_SECOND), rng.normal(12 + node, 2, PER_SECOND)).clip(
                0.01
            )
        case _:
            return (rng.pareto(1.8, PER_SECOND) + 1) * (3 + node)


def errors(shape: str) -> dict[str, float]:
    """Return the largest relative error of each percentile, over one second, ten, sixty, and all of the time."""
    rng = np.random.default_rng(11)
    validator, seconds, rollups = ReportValidator(), Aggregator(), Rollups()
    exact: dict[int, list[np.ndarray]] = {}
    rows = []
    for second in range(START, START + LENGTH_S):
        for node in range(NODES):
            values = values_of(shape, node, rng)
            exact.setdefault(second, []).append(values)
            report = MetricsReport(
                source=f"node-{node}", kind="gateway", boot="b", seq=second, timestamp=second * 1000,
                latency=LatencySketch(values.tolist()).to_wire(),
            )  # fmt: skip
            sent = msgspec.json.decode(msgspec.json.encode(report), type=MetricsReport)
            sample = validator.validate(sent, second + 0.5).sample
            assert sample is not None
            seconds.add(sample, second + 0.5)
        closed = seconds.close(second)
        rows.append((1, closed.rows[FLEET]))
        rows += [
            (done.tier.step_s, done.row)
            for done in rollups.advance(second, closed.rows)
            if done.series == FLEET
        ]
    minutes = [decode_row(pack(row)) for step, row in rows if step == 60]
    rows.append((LENGTH_S, merge_packed(START, minutes, sketches=True)))
    worst: dict[str, float] = {}
    for step, row in rows:
        measured = np.concatenate([part for at in range(row.start, row.start + step) for part in exact[at]])
        for name, q, found in zip(
            ("p50", "p95", "p99"), (0.5, 0.95, 0.99), row.quantiles[LATENCY], strict=True
        ):
            true = np.quantile(measured, q, method="inverted_cdf")
            key = f"{name} over {step} s"
            worst[key] = max(worst.get(key, 0.0), abs(found - true) / true)
    return {name: round(error, 5) for name, error in worst.items()}


if __name__ == "__main__":
    keep(
        "metrics_percentiles",
        {
            "target": "relative error of at most 0.01",
            "nodes": NODES,
            "largest_error": {shape: errors(shape) for shape in SHAPES},
        },
    )
