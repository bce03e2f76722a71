"""Measurements of this machine by psutil; cpu and memory relative to the container's limits, if any.

In a container, the host is measured through its `/proc`, mounted at another path: cpu, memory and traffic are then
those of the host.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import psutil

# cgroup v1 says "no limit" with a number near the largest address.
_NO_LIMIT = 1 << 60
OWN_PROC = Path("/proc")
# Interfaces of containers and bridges: their traffic passes through the host's own interfaces too, and would count twice.
_INNER = (
    *("br-", "cali", "cilium", "cni", "docker", "dummy", "flannel", "geneve", "kube-", "lxc", "nodelocaldns"),
    *("podman", "tunl", "veth", "virbr", "vxlan"),
)


def cgroup_memory(root: Path) -> float | None:
    """Memory in use of this process's container, in percent of its limit; None without a limit.

    Inside a container its own cgroup is mounted at the root (v2: `memory.max`; v1: `memory/memory.limit_in_bytes`).
    As in `docker stats`, page cache that can be dropped at once (`inactive_file`) does not count as used.
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
            return min(100.0, 100.0 * max(0, used - cache) / limit)
    return None


@dataclass(frozen=True, slots=True)
class CpuTime:
    """Cpu seconds used so far, and the limit in cores."""

    used_s: float
    cores: float


def cgroup_cpu(root: Path) -> CpuTime | None:
    """Cpu time of this process's container, None without a limit.

    v2: `cpu.max` and `cpu.stat`; v1: `cpu/cpu.cfs_quota_us` and `cpuacct/cpuacct.usage`.
    """
    try:
        quota, period = (root / "cpu.max").read_text().split()
        stat = dict(line.split(" ", 1) for line in (root / "cpu.stat").read_text().splitlines())
        return CpuTime(int(stat["usage_usec"]) / 1e6, int(quota) / int(period))
    except (OSError, ValueError, KeyError, ZeroDivisionError):
        pass  # no such file, or `max`: no limit of this kind
    try:
        quota_us = int((root / "cpu/cpu.cfs_quota_us").read_text())
        period_us = int((root / "cpu/cpu.cfs_period_us").read_text())
        used_ns = int((root / "cpuacct/cpuacct.usage").read_text())
    except (OSError, ValueError):
        return None
    return CpuTime(used_ns / 1e9, quota_us / period_us) if quota_us > 0 < period_us else None


def _loopback(interface: str) -> bool:
    return interface == "lo" or (interface.startswith("lo") and interface[2:].isdigit())  # lo0: BSD, macOS


@dataclass(frozen=True, slots=True)
class NetworkTraffic:
    """Byte counters of all interfaces but loopback, and when they were read."""

    received: int
    sent: int
    at: float


def read_host_traffic(proc: Path, now: float) -> NetworkTraffic:
    """Counters of the host's own interfaces: those of its first process, without inner ones."""
    received = sent = 0
    for line in (proc / "1/net/dev").read_text().splitlines()[2:]:  # two lines of headings
        name, _, numbers = line.partition(":")
        name = name.strip()
        if not _loopback(name) and not name.startswith(_INNER):
            columns = numbers.split()
            received += int(columns[0])
            sent += int(columns[8])
    return NetworkTraffic(received, sent, now)


def read_traffic(now: float) -> NetworkTraffic:
    """Counters of all interfaces but loopback."""
    counters = psutil.net_io_counters(pernic=True)
    outside = [counter for name, counter in counters.items() if not _loopback(name)]
    return NetworkTraffic(
        sum(counter.bytes_recv for counter in outside), sum(counter.bytes_sent for counter in outside), now
    )


def rates(before: NetworkTraffic, after: NetworkTraffic) -> tuple[float, float]:
    """Bytes per second in and out; 0 if a counter decreased (an interface vanished)."""
    passed = after.at - before.at
    if passed <= 0:
        return 0.0, 0.0
    return max(0, after.received - before.received) / passed, max(0, after.sent - before.sent) / passed


class Machine:
    """Samples this machine.

    `disk` is a path on the file system to measure; `proc` the host's, which psutil reads too (`PROCFS_PATH`).
    """

    def __init__(
        self,
        disk: Path,
        clock: Callable[[], float] = time.monotonic,
        cgroup: Path = Path("/sys/fs/cgroup"),
        proc: Path = OWN_PROC,
    ) -> None:
        self._disk = disk
        self._clock = clock
        self._cgroup = cgroup if proc == OWN_PROC else None
        self._proc = proc
        self._cpu_before = self._container_cpu()
        self._cpu_at = clock()
        self._traffic = self._read_traffic()
        psutil.cpu_percent(None)  # psutil measures since the previous call

    def sample(self) -> dict[str, float]:
        """Gauges of a report. Rates and cpu are means since the previous sample."""
        traffic = self._read_traffic()
        received, sent = rates(self._traffic, traffic)
        self._traffic = traffic
        memory = cgroup_memory(self._cgroup) if self._cgroup else None
        return {
            "cpu": self._cpu_percent(),
            "memory": memory if memory is not None else psutil.virtual_memory().percent,
            "disk": psutil.disk_usage(str(self._disk)).percent,
            "network_in": received,
            "network_out": sent,
        }

    def _read_traffic(self) -> NetworkTraffic:
        if self._proc == OWN_PROC:
            return read_traffic(self._clock())
        return read_host_traffic(self._proc, self._clock())

    def _container_cpu(self) -> CpuTime | None:
        return cgroup_cpu(self._cgroup) if self._cgroup else None

    def _cpu_percent(self) -> float:
        """Used share of the container's cores, or of the machine's without a limit."""
        before, at = self._cpu_before, self._cpu_at
        now, self._cpu_at = self._container_cpu(), self._clock()
        self._cpu_before = now
        percent = psutil.cpu_percent(None)
        passed = self._cpu_at - at
        if before is None or now is None or passed <= 0 or not now.cores:
            return percent
        return min(100.0, 100.0 * max(0.0, now.used_s - before.used_s) / passed / now.cores)


def existing(path: Path) -> Path:
    """The path, or its nearest parent that exists."""
    path = path.absolute()
    while not path.exists() and path != path.parent:
        path = path.parent
    return path
