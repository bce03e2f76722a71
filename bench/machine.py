"""This machine, and the processor of each process."""

import contextlib
import os
import platform
import re
import resource
import subprocess
import time
from collections.abc import Callable
from functools import partial
from importlib.metadata import version
from pathlib import Path

# Text of programs around their version.
_SPOKEN = re.compile(r"^(nats-server: |(Redis|Valkey) server v=|cc )| sha=.*$")

_CPUCLOCK_SCHED = 2  # clock_getcpuclockid(3): the clock of a process is made of its inverted id and this

# Packages whose version may move a figure.
_PACKAGES = (
    "uvloop",
    "httptools",
    "uvicorn",
    "starlette",
    "websockets",
    "msgspec",
    "nats-py",
    "python-socketio",
)


def _cores() -> tuple[set[int], set[int]]:
    """Return the cores of the server under test, and those of load and brokers."""
    available = sorted(os.sched_getaffinity(0))
    if len(available) < 2:
        return {available[0]}, {available[0]}
    return {available[0]}, set(available[1:])


SERVER_CORES, LOAD_CORES = _cores()


def pinned(cores: set[int]) -> Callable[[], None]:
    """Return a child's start function that pins all its threads to `cores`."""
    return partial(os.sched_setaffinity, 0, cores)


def cpu_s(pid: int) -> float:
    """Return the CPU seconds of a process and all its threads, ended ones too, to the nanosecond.

    /proc counts in ticks of 10 ms, which is a percent of a short run.
    """
    return time.clock_gettime((~pid << 3) | _CPUCLOCK_SCHED)


def prioritise(pid: int, nice: int) -> None:
    """Set the priority of a process and of the session that it leads.

    Both, because Linux shares processors among sessions first (sched(7), "The autogroup feature"); on kernels without
    that the nice value alone decides. Threads that exist already keep theirs.

    Raises:
        PermissionError: a higher priority takes a privilege.
    """
    os.setpriority(os.PRIO_PROCESS, pid, nice)
    with contextlib.suppress(FileNotFoundError):
        Path(f"/proc/{pid}/autogroup").write_text(str(nice))


def allow_connections(count: int) -> None:
    """Allow this process and its children `count` connections each.

    Raises:
        OSError: the hard limit is lower.
    """
    needed = count + 500
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY and hard < needed:
        raise OSError(f"at most {hard} open files are allowed here (ulimit -Hn), and {needed} are needed")
    if soft < needed:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def describe() -> dict[str, object]:
    """Return the description of the machine for readers of figures."""
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
        "memory_gib": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1),
        "server_cores": sorted(SERVER_CORES),
        "load_cores": sorted(LOAD_CORES),
        "kernel": platform.release(),
        "python": platform.python_version(),
        "load_average_at_start": os.getloadavg()[0],
    }


def versions(**programs: list[str]) -> dict[str, str]:
    """Return versions of our packages, of this checkout, and of programs by their version commands."""
    found = {"tidings": version_of("git", "describe", "--always", "--dirty")}
    for name, command in programs.items():
        if command:
            found[name] = version_of(*command)
    for name in _PACKAGES:
        with contextlib.suppress(ModuleNotFoundError):
            found[name] = version(name)
    return found


def version_of(*command: str) -> str:
    """Return the first line a program prints of its version."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=20, check=False)
    except OSError:
        return "unknown"
    lines = (done.stdout or done.stderr).strip().splitlines()
    return _SPOKEN.sub("", lines[0]) if lines else "unknown"
