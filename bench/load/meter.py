"""The cost of a measurement: time, and the CPU of server, brokers and load."""

import time
from dataclasses import dataclass

from bench.launch import Running


@dataclass(frozen=True)
class Lap:
    """A span of time, and the shares of a core that server and load used.

    Above 0.9 of its core, the load may be what was measured.
    """

    elapsed_s: float
    server_utilisation: float
    load_utilisation: float


class Meter:
    """Runs from its creation."""

    def __init__(self, server: Running) -> None:
        self._server = server
        self._cpu = server.cpu_s()
        self._broker = server.broker_cpu_s()
        self._load = time.process_time()
        self._began = time.perf_counter()

    @property
    def elapsed_s(self) -> float:
        """Seconds since its creation."""
        return time.perf_counter() - self._began

    def lap(self) -> Lap:
        """Return the span so far."""
        elapsed = max(1e-9, self.elapsed_s)
        return Lap(elapsed, self.cpu_s() / elapsed, (time.process_time() - self._load) / elapsed)

    def cpu_s(self) -> float:
        """Return the server's CPU seconds so far."""
        return self._server.cpu_s() - self._cpu

    def cpu_us(self, count: int) -> float:
        """Return the server's CPU microseconds for each of `count`."""
        return self.cpu_s() / max(1, count) * 1e6

    def broker_us(self, count: int) -> float:
        """Return the brokers' CPU microseconds for each of `count`."""
        return (self._server.broker_cpu_s() - self._broker) / max(1, count) * 1e6
