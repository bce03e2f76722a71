"""What this machine is, and which processor each process gets."""

import os
import platform
import subprocess
from collections.abc import Callable
from functools import partial
from pathlib import Path


def _cores() -> tuple[set[int], set[int]]:
    """Return the cores of the server under test, and those of load and brokers."""
    available = sorted(os.sched_getaffinity(0))
    if len(available) < 2:
        return {available[0]}, {available[0]}
    return {available[0]}, set(available[1:])


SERVER_CORES, LOAD_CORES = _cores()


def pinned(cores: set[int]) -> Callable[[], None]:
    """Return what a child runs before it starts, so that all its threads stay on `cores`."""
    return partial(os.sched_setaffinity, 0, cores)


def describe() -> dict[str, object]:
    """Return what a reader needs to judge the figures."""
    model = next(
        (
            line.partition(":")[2].strip()
            for line in Path("/proc/cpuinfo").read_text().splitlines()
            if line.startswith("model name")
        ),
        platform.processor(),
    )
    return {
        "cpu": model,
        "cores": os.cpu_count(),
        "server_cores": sorted(SERVER_CORES),
        "load_cores": sorted(LOAD_CORES),
        "kernel": platform.release(),
        "python": platform.python_version(),
        "load_average_at_start": os.getloadavg()[0],
    }


def version_of(*command: str) -> str:
    """Return the first line a program prints of its version."""
    done = subprocess.run(command, capture_output=True, text=True, timeout=20, check=False)
    lines = (done.stdout or done.stderr).strip().splitlines()
    return lines[0] if lines else "unknown"
