"""The store of metrics in memory: the reference that the Redis store must agree with."""

import time
from collections import deque
from collections.abc import Callable
from itertools import islice

import msgspec

from metrics_svc.aggregation.packed import pack, unpack
from metrics_svc.aggregation.rollups import SECONDS, Tier
from metrics_svc.aggregation.rows import Row
from metrics_svc.alerts.instance import AlertInstance
from metrics_svc.alerts.states import AlertState
from metrics_svc.notify.nflog import AckRecord, NotifyChange, NotifyState, SentNotification
from metrics_svc.store import (
    MAX_DOCUMENTS,
    MAX_EPISODES,
    MAX_LOG_LINES,
    MAX_SILENCES,
    MAX_TRANSITIONS,
    MAX_UNANNOUNCED,
    CommitStatus,
    DocumentKind,
    Grant,
    MetricsStore,
    SecondCommit,
    StoreLimitReached,
)
from services.wire.alerting import Receiver, Window
from services.wire.events import AlertEvent
from services.wire.records import Alert, AlertLogEntry, AlertTransition, LogEntry
from services.wire.rpc import AlertAck, Silence


class MemoryStore(MetricsStore):
    """`clock` returns seconds since 1970."""

    def __init__(self, clock: Callable[[], float] = time.time) -> None:
        self._clock = clock
        self._holder = ""
        self._term = 0
        self._lease_until = 0.0
        self._last_second = 0
        self._written_by = 0
        self._rows: dict[tuple[str, Tier], deque[tuple[int, bytes]]] = {}
        self._series: dict[str, int] = {}
        self._instances: dict[str, AlertInstance] = {}
        self._acks: dict[str, AckRecord] = {}
        self._transitions: deque[AlertTransition] = deque(maxlen=MAX_TRANSITIONS)
        self._documents: dict[DocumentKind, dict[str, bytes]] = {name: {} for name in DocumentKind}
        self._pending_alerts: dict[str, AlertLogEntry] = {}
        self._nflog: dict[str, SentNotification] = {}
        self._pending_sends: dict[str, SentNotification] = {}
        self._receivers: dict[str, Receiver] = {}
        self._episodes: dict[tuple[str, int], AlertLogEntry] = {}
        self._events: deque[tuple[int, AlertEvent]] = deque(maxlen=MAX_UNANNOUNCED)
        self._logs: deque[LogEntry] = deque(maxlen=MAX_LOG_LINES)

    async def acquire(self, holder: str, ttl_ms: int, seen: int = 0) -> Grant:
        now = self._clock()
        held = now < self._lease_until
        if held and self._holder != holder:
            return Grant(0, round((self._lease_until - now) * 1000), now, self._term)
        if not held or self._term < seen:
            self._term = max(self._term + 1, round(now * 1000), seen + 1)
            self._holder = holder
        self._lease_until = now + ttl_ms / 1000
        return Grant(self._term, ttl_ms, now, self._term)

    async def release(self, holder: str, term: int) -> None:
        if self._holds(holder, term):
            self._lease_until = 0.0

    def _holds(self, holder: str, term: int) -> bool:
        return self._clock() < self._lease_until and (self._holder, self._term) == (holder, term)

    async def write(self, holder: str, term: int, commit: SecondCommit) -> CommitStatus:
        if not self._holds(holder, term):
            return CommitStatus.FENCED
        if commit.second <= self._last_second:
            repeated = commit.second == self._last_second and self._written_by == term
            return CommitStatus.AGAIN if repeated else CommitStatus.STALE
        self._last_second, self._written_by = commit.second, term
        for series_row in commit.rows:
            rows = self._rows.setdefault((series_row.series, series_row.tier), deque())
            rows.append((series_row.row.start, pack(series_row.row)))
            while rows[0][0] < commit.second - series_row.tier.keep_s - series_row.tier.chunk_s:
                rows.popleft()
            self._series[series_row.series] = commit.second
        for alert_id, instance in commit.instances.items():
            if instance is None:
                self._instances.pop(alert_id, None)
            else:
                self._instances[alert_id] = instance
        for entry in commit.entries:
            self._episodes[entry.id, entry.started_at] = entry
            self._pending_alerts[entry.id] = entry
        if surplus := len(self._episodes) - MAX_EPISODES:
            for key in sorted(self._episodes, key=lambda key: (key[1], key[0]))[: max(0, surplus)]:
                del self._episodes[key]
        for entry in commit.current:
            if entry.id in self._pending_alerts:
                self._pending_alerts[entry.id] = entry
        for alert_id in commit.ended:
            self._acks.pop(alert_id, None)
        self._events.extend((commit.second, event) for event in commit.events)
        self._transitions.extend(commit.transitions)
        return CommitStatus.DONE

    async def last_second(self) -> int:
        return self._last_second

    async def instances(self) -> dict[str, AlertInstance]:
        return dict(self._instances)

    async def unannounced(self) -> list[AlertEvent]:
        return [event for _, event in self._events]

    async def remove_announced(self, holder: str, term: int, through: int) -> None:
        while self._holds(holder, term) and self._events and self._events[0][0] <= through:
            self._events.popleft()

    async def packed(self, series: str, tier: Tier, start: int, end: int) -> list[bytes]:
        return [data for first, data in self._rows.get((series, tier), ()) if start <= first < end]

    async def newest(self, series: str, count: int) -> list[Row]:
        stored = self._rows.get((series, SECONDS), deque())
        newest = list(islice(reversed(stored), count))
        return unpack(data for _, data in reversed(newest))

    async def series(self, since: int) -> dict[str, int]:
        return {name: last for name, last in sorted(self._series.items()) if last >= since}

    async def active(self) -> list[Alert]:
        firing = [instance for instance in self._instances.values() if instance.state is AlertState.FIRING]
        firing.sort(key=lambda instance: instance.started_at or 0)
        return [
            msgspec.structs.replace(
                alert,
                acknowledged=alert.id in self._acks
                and self._acks[alert.id].started_at == str(instance.started_at),
            )
            for instance in firing
            if (alert := instance.current) is not None
        ]

    async def episodes(self, limit: int) -> list[AlertLogEntry]:
        newest = sorted(self._episodes, key=lambda key: (key[1], key[0]), reverse=True)
        return [self._episodes[key] for key in newest[:limit]]

    async def acknowledge(self, ack: AlertAck, now: int) -> bool:  # who and when is for readers of Redis
        instance = self._instances.get(ack.id)
        if instance is None or instance.state is not AlertState.FIRING:
            return False
        self._acks[ack.id] = AckRecord(str(instance.started_at), ack.by, ack.comment)
        return True

    async def silences(self, now: int) -> list[Silence]:
        stored = self._documents[DocumentKind.SILENCES].values()
        silences = [msgspec.json.decode(data, type=Silence) for data in stored]
        return sorted(
            (silence for silence in silences if silence.ends_at > now),
            key=lambda silence: (silence.starts_at, silence.id),
        )

    async def put_silence(self, silence: Silence, now: int) -> None:
        kept = {kept.id: msgspec.json.encode(kept) for kept in await self.silences(now)}
        if silence.id not in kept and len(kept) >= MAX_SILENCES:
            raise StoreLimitReached(f"there are {MAX_SILENCES} silences already")
        self._documents[DocumentKind.SILENCES] = kept | {silence.id: msgspec.json.encode(silence)}

    async def transitions(self, limit: int) -> list[AlertTransition]:
        return list(islice(reversed(self._transitions), limit))

    async def documents(self, kind: DocumentKind) -> dict[str, bytes]:
        return dict(self._documents[kind])

    async def put_document(self, kind: DocumentKind, document_id: str, data: bytes) -> None:
        documents = self._documents[kind]
        if document_id not in documents and len(documents) >= MAX_DOCUMENTS:
            raise StoreLimitReached(f"there are {MAX_DOCUMENTS} of them already")
        documents[document_id] = data

    async def delete_document(self, kind: DocumentKind, document_id: str) -> bool:
        return self._documents[kind].pop(document_id, None) is not None

    async def notify_state(self, now: int) -> NotifyState:
        windows = [
            msgspec.json.decode(data, type=Window) for data in self._documents[DocumentKind.WINDOWS].values()
        ]
        return NotifyState(
            dict(self._pending_alerts),
            dict(self._nflog),
            dict(self._pending_sends),
            dict(self._receivers),
            dict(self._acks),
            await self.silences(now),
            windows,
        )

    async def notify_write(self, holder: str, term: int, change: NotifyChange) -> bool:
        if not self._holds(holder, term):
            return False
        for stored, changes in ((self._nflog, change.nflog), (self._pending_sends, change.pending_sends)):
            for key, sent in changes.items():
                if sent is None:
                    stored.pop(key, None)
                else:
                    stored[key] = sent
        for name, receiver in change.receivers.items():
            if receiver is None:
                self._receivers.pop(name, None)
            else:
                self._receivers[name] = receiver
        for entry in change.done:
            if self._pending_alerts.get(entry.id) == entry:
                del self._pending_alerts[entry.id]
        return True

    async def append_logs(self, entries: list[LogEntry]) -> None:
        self._logs.extend(entries)

    async def recent_logs(self, limit: int) -> list[LogEntry]:
        return list(self._logs)[-limit:] if limit else []

    async def close(self) -> None:
        """Nothing to close."""
