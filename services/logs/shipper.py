"""Copy log lines to the bus, where metrics_svc turns those of all processes into one stream.

Lines wait in a bounded buffer until the bus takes them; while it does not, the oldest are given up and
counted. Standard error has every line anyway.
"""

import asyncio
from collections import deque
from collections.abc import Callable, MutableMapping
from contextvars import ContextVar
from typing import Any

import msgspec

from services import telemetry
from services.bus.errors import BusError, PayloadTooLarge
from services.clock import now_ms
from services.telemetry import MetricName
from services.wire.events import LogReport
from services.wire.records import UNSET, LogEntry
from services.wire.subjects import Subjects

BUFFER_LINES = 1000
FLUSH_S = 0.5
# Bounds one report: a line is at most some kilobytes after cleaning, and NATS takes 1 MiB by default.
_LINES_PER_REPORT = 100
_SHIPPED = frozenset({"info", "warning", "error", "critical"})
# In the line itself under other names, or of no use to a reader of the stream.
_OWN_FIELDS = frozenset({"event", "level", "timestamp", "service", "instance"})

_encoder = msgspec.json.Encoder()
_shipping: ContextVar[bool] = ContextVar("shipping", default=False)

# Queues a message, or raises a `BusError`.
Publish = Callable[[str, bytes], None]


class LogShipper:
    """A bounded buffer of lines, sent twice a second once a bus is there.

    Args:
        source: the name of this process in the stream.
        kind: its kind, a role.
        capacity: lines kept while the bus takes none.
    """

    def __init__(self, source: str, kind: str, capacity: int = BUFFER_LINES) -> None:
        self.source = source
        self.kind = kind
        self.dropped = 0
        self._lines: deque[LogEntry] = deque()
        self._capacity = capacity
        self._task: asyncio.Task[None] | None = None

    def __len__(self) -> int:
        return len(self._lines)

    def collect(
        self, _logger: object, _method: str, line: MutableMapping[str, Any]
    ) -> MutableMapping[str, Any]:
        """structlog processor: keep a copy of a cleaned line; none of those written while shipping."""
        if line.get("level") in _SHIPPED and not _shipping.get():
            self.add(as_entry(line, self.source, now_ms()))
        return line

    def add(self, entry: LogEntry) -> None:
        """Keep a line, at the cost of the oldest when full."""
        if len(self._lines) >= self._capacity:
            self._drop_oldest()
        self._lines.append(entry)

    def _drop_oldest(self) -> None:
        self._lines.popleft()
        self.dropped += 1
        telemetry.counter(MetricName.LOG_LINES_DROPPED).inc()

    def start(self, publish: Publish, subjects: Subjects) -> None:
        """Send what is kept, now and from here on, until `stop`."""
        if self._task is None:
            self._publish, self._subject = publish, subjects.logs_report(self.kind)
            self._task = asyncio.create_task(self._run(publish, self._subject), name="log-shipper")

    async def stop(self) -> None:
        """Send the rest and end. Idempotent; what the bus does not take now is given up."""
        task, self._task = self._task, None
        if task is None:
            return
        task.cancel()
        await asyncio.wait([task])
        self.flush(self._publish, self._subject)

    def flush(self, publish: Publish, subject: str) -> None:
        """Send all lines that the bus takes; the others stay."""
        token = _shipping.set(True)
        try:
            size = _LINES_PER_REPORT
            while self._lines:
                size = min(size, len(self._lines))
                batch = [self._lines[i] for i in range(size)]
                report = LogReport(source=self.source, entries=batch, dropped=self.dropped)
                try:
                    publish(subject, _encoder.encode(report))
                except PayloadTooLarge:
                    if size == 1:  # alone over the bus's limit: it will never pass
                        self._drop_oldest()
                    size = max(1, size // 2)
                    continue
                for _ in range(size):
                    self._lines.popleft()
                self.dropped = 0
        except BusError:
            return  # the lines stay, within the buffer's limit
        finally:
            _shipping.reset(token)

    async def _run(self, publish: Publish, subject: str) -> None:
        while True:
            self.flush(publish, subject)
            await asyncio.sleep(FLUSH_S)


def as_entry(line: MutableMapping[str, Any], source: str, now_ms: int) -> LogEntry:
    """Return a cleaned structlog line as a line of the log stream."""
    fields = {key: value for key, value in line.items() if key not in _OWN_FIELDS and not key.startswith("_")}
    return LogEntry(
        timestamp=now_ms,
        level=str(line["level"]),
        source=source,
        event=str(line.get("event", "")),
        fields=fields or UNSET,
    )
