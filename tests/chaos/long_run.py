"""`python -m tests.chaos.long_run`: hundreds of faults under load, a summary, and a dated result."""

import argparse
import asyncio
import datetime
import json
import os
import platform
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

from tests.chaos.load import under_load
from tests.chaos.schedule import Fault, run_schedule
from tests.support.cluster import CHAOS_SETTINGS, Cluster
from tidings_cli.verify.campaign import Plan
from tidings_cli.verify.report import Kind, Report

_RESULTS = Path(__file__).parents[2] / "bench" / "results"


def _say(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


async def _run(cluster: Cluster, directory: Path, seed: int, count: int) -> tuple[Report, Counter[str]]:
    plan = Plan(publishers=4, members=20, rooms=5, rate=10.0)
    started = time.monotonic()

    def on_fault(number: int, fault: Fault) -> None:
        _say(f"{time.monotonic() - started:7.1f} s  {number:4}/{count}  {fault.name}")

    async with under_load(cluster.urls, directory / "history.jsonl", plan) as running:
        injected = await run_schedule(cluster, running, seed, count, on_fault=on_fault)
    return running.report, injected


def _result(report: Report, injected: Counter[str], seed: int, took_s: float) -> dict[str, object]:
    return {
        "measured": "delivery under faults",
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
        "machine": f"{os.cpu_count()} cores, {platform.machine()}, Python {platform.python_version()}",
        "seed": seed,
        "seconds": round(took_s),
        "load": "4 publishers, 10 messages/s each; 20 members over WebSocket in 2 of 5 rooms each, 4 over SSE in 3; 2 gateways",
        "faults": injected.total(),
        "faults_by_kind": dict(sorted(injected.items())),
        "published": report.published,
        "attempts": report.attempts,
        "acknowledged": report.acknowledged,
        "received": report.received,
        "recovered_on_return": report.recovered_messages,
        "connections_lost": report.lost,
        "acknowledged_lost": report.count(Kind.MISSING),
        "duplicates": report.count(Kind.DUPLICATE),
        "out_of_order": report.count(Kind.OUT_OF_ORDER),
        "findings": len(report.findings),
        "told_of_gaps": len(report.gaps),
        "told_of_gaps_without_a_new_epoch": sum(not gap.other_epoch for gap in report.gaps),
        "stored_again_after_a_wipe": report.repeated,
        "longest_answer_s": round(report.longest_answer_s, 2),
    }


def main() -> int:
    """Run, print and write. Exit code 1 if a guarantee was broken (named in the checker's report)."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--faults", type=int, default=204)
    parser.add_argument("--seed", type=int, default=int(time.time()))
    parser.add_argument("--results", type=Path, default=_RESULTS)
    options = parser.parse_args()
    directory = Path(tempfile.mkdtemp(prefix="tidings-chaos-"))
    _say(f"seed {options.seed}; logs and history in {directory}")
    started = time.monotonic()
    with Cluster(directory, **CHAOS_SETTINGS) as cluster:
        try:
            report, injected = asyncio.run(_run(cluster, directory, options.seed, options.faults))
        except AssertionError as broken:
            _say(str(broken))
            return 1
    result = _result(report, injected, options.seed, time.monotonic() - started)
    _say("")
    _say(report.text())
    _say("")
    _say(json.dumps(result, indent=2))
    options.results.mkdir(parents=True, exist_ok=True)
    path = options.results / f"{result['date']}-delivery-chaos.json"
    path.write_text(json.dumps(result, indent=2) + "\n")
    _say(f"written to {path}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
