"""The log stream: lines are cut to size, stored, published once, and never pile up."""

import msgspec
import pytest

from metrics_svc import log_stream
from metrics_svc.log_stream import LogStream, sanitized
from metrics_svc.store import MetricsStoreUnavailable
from services.wire.events import LogReport
from services.wire.records import LogEntry
from services.wire.subjects import Subjects
from tests.support.metrics import Message, RecordingBus
from tests.support.metrics_store_memory import MemoryStore

SUBJECTS = Subjects("t")


def line(event: str = "it happened", level: str = "info", **fields: object) -> LogEntry:
    return LogEntry(timestamp=1, level=level, source="gw", event=event, fields=fields)


class AwayStore(MemoryStore):
    async def append_logs(self, entries: list[LogEntry]) -> None:
        raise MetricsStoreUnavailable("away")


@pytest.fixture
def bus() -> RecordingBus:
    return RecordingBus()


def stream(store: MemoryStore, bus: RecordingBus) -> LogStream:
    return LogStream(store, bus, SUBJECTS)  # type: ignore[arg-type]


def published(bus: RecordingBus) -> list[LogReport]:
    return [msgspec.json.decode(data, type=LogReport) for data in bus.on(SUBJECTS.logs_feed)]


def hear(logs: LogStream, *entries: LogEntry, dropped: int = 0) -> None:
    report = LogReport(source="gw", entries=list(entries), dropped=dropped)
    logs.on_report(Message(report, SUBJECTS.logs_report("app")))  # type: ignore[arg-type]


async def test_stored_then_published_as_it_came(bus: RecordingBus) -> None:
    store = MemoryStore()
    logs = stream(store, bus)
    hear(logs, line("one", user="u"), line("two"), dropped=3)
    await logs.drain()
    assert await store.recent_logs(10) == [line("one", user="u"), line("two")]
    assert published(bus) == [LogReport(source="gw", entries=[line("one", user="u"), line("two")], dropped=3)]
    await logs.drain()
    assert len(published(bus)) == 1


async def test_published_also_when_the_store_is_away(bus: RecordingBus) -> None:
    logs = stream(AwayStore(), bus)
    hear(logs, line("one"))
    await logs.drain()
    assert len(published(bus)) == 1


async def test_stored_also_when_the_bus_is_away(bus: RecordingBus) -> None:
    store = MemoryStore()
    logs = stream(store, bus)
    hear(logs, line("one"))
    bus.down = True
    await logs.drain()
    assert len(await store.recent_logs(10)) == 1


async def test_the_oldest_waiting_give_way(bus: RecordingBus, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(log_stream, "MAX_WAITING_LINES", 4)
    store = MemoryStore()
    logs = stream(store, bus)
    for number in range(5):
        hear(logs, line(f"{number}a"), line(f"{number}b"))
    await logs.drain()
    assert [entry.event for entry in await store.recent_logs(10)] == ["3a", "3b", "4a", "4b"]


def test_lines_are_cut_to_size() -> None:
    assert sanitized(line(), "app") == line()
    assert sanitized(line(level="shout"), "app").level == "info"
    assert len(sanitized(line("x" * 10_000), "app").event) == log_stream.MAX_EVENT_CHARS + 1
    assert sanitized(line(big="x" * 10_000), "app").fields == {"omitted": "fields over the size limit"}


@pytest.mark.parametrize("data", [b"", b"{}", b"[" * 100_000, b'{"type":"log_report","entries":[{}]}'])
async def test_garbage_is_dropped(bus: RecordingBus, data: bytes) -> None:
    logs = stream(MemoryStore(), bus)
    logs.on_report(Message(data))  # type: ignore[arg-type]
    await logs.drain()
    assert published(bus) == []


async def test_a_report_has_a_most_of_lines(bus: RecordingBus) -> None:
    logs = stream(MemoryStore(), bus)
    hear(logs, *[line(str(number)) for number in range(log_stream.MAX_LINES_PER_REPORT + 2)], dropped=1)
    await logs.drain()
    (report,) = published(bus)
    assert report.entries[0].event == "2"
    assert report.dropped == 3


@pytest.mark.parametrize(
    ("kind", "source", "shown"),
    [
        ("gateway", "gateway-1", "gateway-1"),
        ("agent", "agent", "agent"),
        ("app", "shop", "shop"),
        ("app", "agents-of-change", "agents-of-change"),
        ("app", "app-1", "app-1"),
        ("agent", "gateway-1", "agent:gateway-1"),
        ("agent", "shop", "agent:shop"),
        ("presence", "metrics:x", "presence:metrics:x"),
        ("app", "gateway-1", "app:gateway-1"),
        ("app", "metrics", "app:metrics"),
        ("app", "agent:shop", "app:agent:shop"),
    ],
)
async def test_no_role_writes_lines_in_anothers_name(
    bus: RecordingBus, kind: str, source: str, shown: str
) -> None:
    store = MemoryStore()
    logs = stream(store, bus)
    entry = msgspec.structs.replace(line(), source=source)
    logs.on_report(Message(LogReport(source=source, entries=[entry]), SUBJECTS.logs_report(kind)))  # type: ignore[arg-type]
    await logs.drain()
    assert [kept.source for kept in await store.recent_logs(10)] == [shown]
    assert [report.source for report in published(bus)] == [shown]
