"""Reports of one machine, on time.

A late sample is worthless: while the bus is unavailable samples are dropped, and the next report has their number
(`reports_unsent`).
"""

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass, field

import msgspec
import structlog

from services import telemetry
from services.bus.client import Bus
from services.bus.errors import BusError
from services.telemetry import MetricName
from services.wire.events import MetricsReport

log = structlog.get_logger(__name__)

# Part of the interval: late enough to be fresh at the end of a second, early enough not to miss it when busy.
PHASE = 0.7

_encode = msgspec.json.Encoder().encode


@dataclass(eq=False)
class MachineReporter:
    """Reports one machine."""

    _bus: Bus
    _subject: str
    _source: str  # the machine's name; the same after a restart, so that its history continues
    _boot: str  # id of this process
    _sample: Callable[[], dict[str, float]]  # returns the gauges; may block, runs in a thread
    _interval_s: float
    _wall: Callable[[], float] = time.time
    _seq: int = 0
    _unsent: int = 0
    _sampled_at: float = field(default_factory=time.monotonic)

    @property
    def sampling(self) -> bool:
        """Whether sampling works: a hanging file system would stop it."""
        return time.monotonic() - self._sampled_at < 3 * self._interval_s + 5

    async def run(self) -> None:
        """Report each interval until cancelled."""
        while True:
            await asyncio.sleep(self._until_next(self._wall()))
            gauges = await asyncio.to_thread(self._sample)
            self._sampled_at = time.monotonic()
            self.report(gauges)

    def _until_next(self, now: float) -> float:
        due = (now // self._interval_s + PHASE) * self._interval_s
        return (due if due > now else due + self._interval_s) - now

    def report(self, gauges: dict[str, float]) -> None:
        """Publish one report, or count it as unsent."""
        self._seq += 1
        report = MetricsReport(
            source=self._source,
            kind="agent",
            boot=self._boot,
            seq=self._seq,
            timestamp=int(self._wall() * 1000),
            gauges=gauges,
            interval_ms=int(self._interval_s * 1000),
            counters={"reports_unsent": float(self._unsent)} if self._unsent else {},
        )
        try:
            self._bus.publish(self._subject, _encode(report))
        except BusError as fault:
            if not self._unsent:
                log.warning("reports not sent", reason=str(fault))
            self._unsent += 1
            telemetry.counter(MetricName.AGENT_REPORTS).labels("unsent").inc()
            return
        if self._unsent:
            log.info("reports are sent again", unsent=self._unsent)
            self._unsent = 0
        telemetry.counter(MetricName.AGENT_REPORTS).labels("sent").inc()
