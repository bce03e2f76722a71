"""20,000 samples a second into one replica on one core: all counted, and the delay of the record.

`python -m bench metrics.ingest [--seconds 30]`. A sample is one measured value. Two shapes of the same load: applications
that push once a second (reports of 20 values from 100 sources), and twenty of the load in each report of a single value.
"""

import argparse
import asyncio
import random
import time
from typing import Any

import msgspec

from bench.metrics.rig import Rig, paced, running
from bench.single import keep, quantile
from services.bus.message import BusMessage
from services.bus.rpc import call
from services.wire.events import MetricsReport, MetricsTick
from services.wire.rpc import METRICS_HISTORY, HistoryQuery

SAMPLES_PER_S = 20_000
SOURCES = 100
_tick = msgspec.json.Decoder(MetricsTick).decode
_encode = msgspec.json.Encoder().encode


async def measure(rig: Rig, seconds: float, per_report: int) -> dict[str, Any]:
    """Measure `SAMPLES_PER_S` in reports of `per_report` values."""
    subjects = rig.settings.subjects
    delays: list[float] = []
    counted = 0.0

    def on_tick(message: BusMessage) -> None:
        nonlocal counted
        record = _tick(message.data).record
        counted += record.requests
        delays.append(time.time() - record.timestamp / 1000)

    random.seed(7)
    latencies = [[random.lognormvariate(2, 1) for _ in range(per_report)] for _ in range(1000)]
    sequences = [0] * SOURCES
    boot = f"b{per_report}"

    def send(number: int) -> None:
        source = number % SOURCES
        sequences[source] += 1
        report = MetricsReport(
            source=f"app-{source}", kind="app", boot=boot, seq=sequences[source],
            timestamp=int(time.time() * 1000), requests=float(per_report), latencies=latencies[number % 1000],
        )  # fmt: skip
        rig.bus.publish(subjects.metrics_report, _encode(report))

    subscription = rig.bus.subscribe(subjects.metrics_feed, on_tick)
    cpu, begun = rig.cpu_s(), time.monotonic()
    await paced(seconds, SAMPLES_PER_S // per_report, send)
    busy = (rig.cpu_s() - cpu) / (time.monotonic() - begun)
    await asyncio.sleep(2.5)  # the last second has to end and to be published
    subscription.close()
    stored = await call(rig.bus, subjects, METRICS_HISTORY, HistoryQuery(limit=3600))
    sent = sum(sequences) * per_report
    return {
        "values_per_report": per_report,
        "samples_per_s_sent": round(sent / seconds),
        "samples_sent": sent,
        "samples_counted": round(counted),
        "samples_stored": round(sum(record.requests for record in stored.rows)),
        "seconds_heard": len(delays),
        "record_after_second_ms": {
            "p50": round(1000 * quantile(delays, 0.5), 1),
            "p95": round(1000 * quantile(delays, 0.95), 1),
            "max": round(1000 * max(delays), 1),
        },
        "cpu_of_one_core": round(busy, 3),
    }


async def main(seconds: float) -> None:
    """Measure both shapes."""
    figures = []
    for per_report in (20, 1):
        async with running() as rig:
            figures.append(await measure(rig, seconds, per_report))
    keep("metrics_ingest", {"target": "20,000 samples/s, record within 250 ms", "runs": figures})


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=30)
    asyncio.run(main(parser.parse_args().seconds))
