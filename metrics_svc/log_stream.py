"""The fleet's log stream: lines of all processes, stored for a while and published.

One replica processes each report (queue group). Lines are truncated, never interpreted. While the store is unavailable
they are published and counted as not stored; when too many wait, the oldest are dropped.
"""

import asyncio
import re
from collections import deque
from dataclasses import dataclass, field

import msgspec
import structlog

from metrics_svc.store import MetricsStore, MetricsStoreUnavailable
from services import telemetry
from services.bus.client import Bus
from services.bus.errors import BusError
from services.bus.message import BusMessage
from services.permissions import Role
from services.telemetry import MetricName
from services.wire.events import LogReport
from services.wire.records import UNSET, LogEntry
from services.wire.subjects import LOGS_OF_APPLICATIONS, Subjects

log = structlog.get_logger(__name__)

QUEUE = "metrics-logs"
MAX_WAITING_LINES = 10_000
MAX_LINES_PER_REPORT = 1000
MAX_EVENT_CHARS = 4096
MAX_FIELDS_BYTES = 8192
_FIRST_WORD = re.compile(r"[-:]")
_ROLES = frozenset(Role) - {Role.APP}  # what sends lines itself
LEVELS = ("debug", "info", "warning", "error", "critical")

_decode = msgspec.json.Decoder(LogReport).decode
_encode = msgspec.json.Encoder().encode


def source_name(kind: str, source: str) -> str:
    """Name of a source in the stream; no role or application can use a name of another role.

    NATS permissions prove the `kind`, but not the name: `gateway-1` is certainly a gateway, and an agent of that name
    becomes `agent:gateway-1`.
    """
    word = _FIRST_WORD.split(source, maxsplit=1)[0]
    plain = word not in _ROLES if kind == LOGS_OF_APPLICATIONS else word == kind
    return source if plain else f"{kind}:{source}"


def sanitized(entry: LogEntry, kind: str) -> LogEntry:
    """Copy of a line with bounded size, a known level and a source name that its sender may use."""
    changes: dict[str, object] = {}
    if (source := source_name(kind, entry.source)) != entry.source:
        changes["source"] = source
    if entry.level not in LEVELS:
        changes["level"] = "info"
    if len(entry.event) > MAX_EVENT_CHARS:
        changes["event"] = entry.event[:MAX_EVENT_CHARS] + "…"
    if entry.fields is not UNSET and len(_encode(entry.fields)) > MAX_FIELDS_BYTES:
        changes["fields"] = {"omitted": "fields over the size limit"}
    return msgspec.structs.replace(entry, **changes) if changes else entry


@dataclass(eq=False)
class LogStream:
    """Stores and republishes log reports."""

    _store: MetricsStore
    _bus: Bus
    _subjects: Subjects
    _waiting: deque[LogReport] = field(default_factory=deque)
    _waiting_lines: int = 0
    _arrived: asyncio.Event = field(default_factory=asyncio.Event)
    _store_unavailable: bool = False

    def on_report(self, message: BusMessage) -> None:
        try:
            report = _decode(message.data)
        except (msgspec.DecodeError, RecursionError):
            _count("malformed", 1)
            return
        kind = message.subject.rpartition(".")[2]
        surplus = max(0, len(report.entries) - MAX_LINES_PER_REPORT)
        entries = [sanitized(entry, kind) for entry in report.entries[surplus:]]
        _count("dropped", surplus + report.dropped)
        source = source_name(kind, report.source)
        self._waiting.append(LogReport(source=source, entries=entries, dropped=report.dropped + surplus))
        self._waiting_lines += len(entries)
        while self._waiting_lines > MAX_WAITING_LINES:
            lost = self._waiting.popleft()
            self._waiting_lines -= len(lost.entries)
            _count("dropped", len(lost.entries))
        self._arrived.set()

    async def run(self) -> None:
        """Store and publish reports as they arrive, until cancelled."""
        while True:
            await self._arrived.wait()
            self._arrived.clear()
            await self.drain()

    async def drain(self) -> None:
        """Store and publish all queued reports."""
        reports = list(self._waiting)
        self._waiting.clear()
        self._waiting_lines = 0
        entries = [entry for report in reports for entry in report.entries]
        try:
            await self._store.append_logs(entries)
        except MetricsStoreUnavailable as fault:
            _count("unstored", len(entries))
            if not self._store_unavailable:
                log.warning("log lines not stored", reason=str(fault))
            self._store_unavailable = True
        else:
            _count("stored", len(entries))
            self._store_unavailable = False
        for report in reports:
            try:
                self._bus.publish(self._subjects.logs_feed, _encode(report))
            except BusError:
                _count("unpublished", len(report.entries))


def _count(outcome: str, lines: int) -> None:
    if lines:
        telemetry.counter(MetricName.LOG_STREAM_LINES).labels(outcome).inc(lines)
