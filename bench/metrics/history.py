"""Time of a query for the last 24 hours over the bus.

`python -m bench metrics.history`. A day of rows, as busy seconds leave them (30 timed requests a second, eight metrics),
is written to Redis; then the same queries are repeated while the replica keeps working.
"""

import asyncio
import random
import time
from typing import Any

from redis.asyncio import Redis

from bench.metrics.rig import Rig, running
from bench.single import keep, quantile
from metrics_svc.aggregation.packed import pack
from metrics_svc.aggregation.rollups import DAY_S, HOUR_S, MINUTES, SECONDS, TENS, Tier
from metrics_svc.aggregation.rows import LATENCY, Row, RowAccumulator
from services.bus.rpc import call
from services.latency_sketch import LatencySketch
from services.wire.rpc import METRICS_HISTORY, HistoryQuery

ROUNDS = 15
QUESTIONS = {
    "records, step 60 s (1,440 rows)": {"step": 60},
    "records, step 300 s (288 rows, sketches of 1,440 merged)": {"step": 300},
    "records, step 3600 s (24 rows, sketches of 1,440 merged)": {"step": 3600},
    "one metric, step 60 s (1,440 points)": {"step": 60, "metric": "cpu"},
    "one metric, step 10 s (8,640 points)": {"step": 10, "metric": "cpu"},
    "latencyP99, step 60 s (1,440 points)": {"step": 60, "metric": "latencyP99"},
}
_NAMES = ("cpu", "memory", "disk", "network_in", "network_out", "requests", "errors", "connections")


def rows(tier: Tier, since: int, until: int) -> list[Row]:
    """Return rows of a tier: a few kinds, repeated, because distinct rows take minutes to make."""
    random.seed(3)
    kinds = []
    for _ in range(20):
        seconds = [
            Row.of_second(
                at,
                {name: random.uniform(0, 100) for name in _NAMES},  # load
                {LATENCY: LatencySketch(random.lognormvariate(2, 1) for _ in range(30))},
            )
            for at in range(tier.step_s)
        ]
        kinds.append(RowAccumulator(0, seconds).row())
    made = []
    for at in range(tier.bucket(since), until, tier.step_s):
        kind = kinds[at // tier.step_s % len(kinds)]
        made.append(Row(at, kind.seconds, kind.stats, kind.histograms, kind.quantiles))
    return made


async def fill(rig: Rig, now: int) -> int:
    """Write a day of history; return its bytes."""
    redis = Redis.from_url(rig.settings.redis_url)
    written = 0
    for tier, length in ((SECONDS, HOUR_S), (TENS, DAY_S), (MINUTES, DAY_S)):
        chunks: dict[int, list[bytes]] = {}
        for row in rows(tier, now - length, now - 120):
            chunks.setdefault(tier.chunk(row.start), []).append(pack(row))
        for chunk, packed in chunks.items():
            # Before what the replica wrote meanwhile, so that the lists stay in order.
            await redis.lpush(
                f"{{{rig.settings.prefix}:metrics}}:rows:{tier.name}:{chunk}:", *reversed(packed)
            )
            written += sum(map(len, packed))
    await redis.aclose()
    return written


async def idling(rig: Rig) -> float:
    """Return the share of a core that ticking alone takes."""
    cpu = rig.cpu_s()
    await asyncio.sleep(5)
    return (rig.cpu_s() - cpu) / 5


async def main() -> None:
    """Fill, query, keep."""
    figures: dict[str, Any] = {}
    async with running() as rig:
        now = int(time.time())
        size = await fill(rig, now)
        idle = await idling(rig)
        for name, asked in QUESTIONS.items():
            took = []
            cpu, since = rig.cpu_s(), time.monotonic()
            found = 0
            for _ in range(ROUNDS):
                question = HistoryQuery(start=(now - DAY_S + 60) * 1000, end=now * 1000, **asked)  # type: ignore[arg-type]
                begun = time.perf_counter()
                answer = await call(rig.bus, rig.settings.subjects, METRICS_HISTORY, question, timeout_s=10)
                took.append(1000 * (time.perf_counter() - begun))
                found = len(answer.rows) or len(answer.points)
                await asyncio.sleep(0.05)
            idle_s = idle * (time.monotonic() - since)
            figures[name] = {
                "cpu_ms_per_query": round(1000 * (rig.cpu_s() - cpu - idle_s) / ROUNDS, 1),
                "rows": found, "p50_ms": round(quantile(took, 0.5), 1), "max_ms": round(max(took), 1),
            }  # fmt: skip
    keep(
        "metrics_history",
        {"target": "24 h in one query under 100 ms", "bytes_stored": size, "questions": figures},
    )


if __name__ == "__main__":
    asyncio.run(main())
