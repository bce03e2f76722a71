"""Other users of this machine during a measurement."""

import os
import resource
import time
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median

_TICK_S = 1 / os.sysconf("SC_CLK_TCK")


def _busy_s() -> float:
    """Return the busy seconds of all cores (proc_stat(5): all but idle and iowait, without virtual machines)."""
    ticks = [int(value) for value in Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:9]]
    return (sum(ticks) - ticks[3] - ticks[4]) * _TICK_S


def _ours_s() -> float:
    """Return the CPU seconds of this process and of all its children that have ended."""
    children = resource.getrusage(resource.RUSAGE_CHILDREN)
    return time.process_time() + children.ru_utime + children.ru_stime


@dataclass
class Contention:
    """Measured between steps, when all children have ended."""

    shares: list[float] = field(default_factory=list)
    load_averages: list[float] = field(default_factory=list)
    _at: tuple[float, float, float] = (0.0, 0.0, 0.0)

    def begin(self) -> None:
        """Start a step."""
        self._at = (time.monotonic(), _busy_s(), _ours_s())

    def end(self) -> float:
        """End a step; return the share of the machine that others used."""
        at, busy, ours = self._at
        elapsed = max(1e-9, time.monotonic() - at) * (os.cpu_count() or 1)
        others = max(0.0, (_busy_s() - busy) - (_ours_s() - ours)) / elapsed
        self.shares.append(others)
        self.load_averages.append(os.getloadavg()[0])
        return others

    def summary(self) -> dict[str, float]:
        """Return the summary that is kept with the figures."""
        if not self.shares:
            return {}
        return {
            "others_share_of_cpu_median": round(median(self.shares), 3),
            "others_share_of_cpu_most": round(max(self.shares), 3),
            "load_average_median": round(median(self.load_averages), 2),
            "load_average_most": round(max(self.load_averages), 2),
        }
