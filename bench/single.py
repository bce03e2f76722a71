"""Common parts of the measurements of one service: pinned processes, percentiles, kept figures."""

import json
import subprocess
import sys
from datetime import UTC, datetime
from typing import Any, BinaryIO

from bench.machine import SERVER_CORES, describe, pinned
from bench.report import RESULTS


def spawn(module: str, env: dict[str, str], log: BinaryIO) -> "subprocess.Popen[bytes]":
    """Start one of our processes on the server's core."""
    return subprocess.Popen(
        [sys.executable, "-m", module],
        env=env,
        stdout=log,
        stderr=log,
        preexec_fn=pinned(SERVER_CORES),  # noqa: PLW1509  # no threads here
    )


def quantile(values: list[float], q: float) -> float:
    """Return the value that a share `q` of all does not exceed."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(q * len(ordered)))]


def percentiles(values: list[float]) -> dict[str, float]:
    """Return count, median, p95, p99 and maximum."""
    parts = {"p50": 0.5, "p95": 0.95, "p99": 0.99, "max": 1.0}
    return {"count": len(values)} | {name: round(quantile(values, q), 2) for name, q in parts.items()}


def keep(case: str, figures: dict[str, Any], **machine: Any) -> None:
    """Print figures, and keep them with the date and the machine in `bench/results/`. `machine` adds to its description.

    A value of None removes what the description has under that name.
    """
    now = datetime.now(UTC)
    described = {name: value for name, value in (describe() | machine).items() if value is not None}
    result = {
        "case": case,
        "date": now.isoformat(timespec="seconds"),
        "machine": described,
        "figures": figures,
    }
    text = json.dumps(result, indent=2)
    print(text)
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / f"{now:%Y-%m-%d}-{case}.json").write_text(text + "\n", encoding="utf-8")
