"""What this machine does now, from psutil; memory against the container's limit where there is one."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import psutil

# cgroup v1 says "no limit" with a number near the largest address.
_NO_LIMIT = 1 << 60
_LOOPBACK = ("lo",)


@dataclass(frozen=True, slots=True)
class Memory:
    """Bytes in use and bytes there are."""

    used: int
    total: int

    @property
    def percent(self) -> float:
        """Share in use, 0 to 100."""
        return min(100.0, 100.0 * self.used / self.total) if self.total else 0.0


def cgroup_memory(root: Path = Path("/sys/fs/cgroup")) -> Memory | None:
    """Return the memory of this process's container, None where none is limited.

    Inside a container its own cgroup is mounted at the root (v2: `memory.max`; v1:
    `memory/memory.limit_in_bytes`). Page cache that can be dropped at once (`inactive_file`) does not count
    as used, as `docker stats` has it.
    """
    for limit_file, usage_file, stat_file, cache_key in (
        ("memory.max", "memory.current", "memory.stat", "inactive_file"),
        (
            "memory/memory.limit_in_bytes",
            "memory/memory.usage_in_bytes",
            "memory/memory.stat",
            "total_inactive_file",
        ),
    ):
        try:
            limit = int((root / limit_file).read_text())
            used = int((root / usage_file).read_text())
            stat = dict(line.split(" ", 1) for line in (root / stat_file).read_text().splitlines())
            cache = int(stat.get(cache_key, 0))
        except (OSError, ValueError):  # no such file, or `max`: no limit of this kind
            continue
        if 0 < limit < _NO_LIMIT:
            return Memory(max(0, used - cache), limit)
    return None


def _loopback(interface: str) -> bool:
    return interface in _LOOPBACK or (
        interface.startswith("lo") and interface[2:].isdigit()
    )  # lo0 on BSD and macOS


@dataclass(frozen=True, slots=True)
class Traffic:
    """Bytes that went through all interfaces but loopback, and when they were read."""

    received: int
    sent: int
    at: float


def read_traffic(now: float) -> Traffic:
    """Return the counters of all interfaces but loopback."""
    counters = psutil.net_io_counters(pernic=True)
    outside = [counter for name, counter in counters.items() if not _loopback(name)]
    return Traffic(
        sum(counter.bytes_recv for counter in outside), sum(counter.bytes_sent for counter in outside), now
    )


def rates(before: Traffic, after: Traffic) -> tuple[float, float]:
    """Return bytes per second in and out; 0 where a counter went back (an interface vanished)."""
    passed = after.at - before.at
    if passed <= 0:
        return 0.0, 0.0
    return max(0, after.received - before.received) / passed, max(0, after.sent - before.sent) / passed


class Machine:
    """Samples this machine. `disk` is a path on the file system to watch."""

    def __init__(self, disk: Path, clock: Callable[[], float] = time.monotonic) -> None:
        self._disk = disk
        self._clock = clock
        self._traffic = read_traffic(clock())
        psutil.cpu_percent(None)  # psutil measures from the call before; this one begins

    def sample(self) -> dict[str, float]:
        """Return the gauges of a report. Rates and cpu are means since the sample before."""
        traffic = read_traffic(self._clock())
        received, sent = rates(self._traffic, traffic)
        self._traffic = traffic
        memory = cgroup_memory()
        return {
            "cpu": psutil.cpu_percent(None),
            "memory": memory.percent if memory is not None else psutil.virtual_memory().percent,
            "disk": psutil.disk_usage(str(self._disk)).percent,
            "network_in": received,
            "network_out": sent,
        }


def existing(path: Path) -> Path:
    """Return the path, or the nearest folder above it that exists."""
    path = path.absolute()
    while not path.exists() and path != path.parent:
        path = path.parent
    return path
