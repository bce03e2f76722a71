"""The store in Redis: one script per change (`lua/`), Redis' clock, one hash tag for all keys.

Works on Redis 6.2 and later and on Valkey, alone or in a cluster (all keys are in one slot).

```
{PREFIX:metrics}:lease        TERM|HOLDER, expires           :term         last term given
                :meta         second, term                   :series       names by last second
                :rows:TIER:CHUNK:SERIES   packed rows; the list expires when its youngest row may
                :watches      alert id -> instance           :acks         alert id -> acknowledgement of an episode
                :episodes     episode -> log entry           :order        episodes by start
                :outbox       unpublished events by second   :silences     id -> silence
                :logs         the newest log lines           :transitions  the newest transitions of alerts
                :rules        id -> rule of the API          :windows      id -> maintenance window
                :notices      alert id -> alert that fires, or whose end is not sent to all receivers yet
                :told         receiver and group -> delivered message        :intents      message, delivery unknown
                :receivers    name -> status
```
"""

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import msgspec
from redis.exceptions import RedisClusterException, RedisError

from metrics_svc.aggregation.packed import pack, unpack
from metrics_svc.aggregation.rollups import DAY_S, MINUTES, SECONDS, Tier
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
    MetricsStoreUnavailable,
    SecondCommit,
    StoreLimitReached,
)
from services import redis_scripts
from services.redis_client import AnyRedis, close_redis, one_line
from services.redis_scripts import Argument, Script
from services.wire.alerting import Receiver, Window
from services.wire.events import AlertEvent
from services.wire.records import Alert, AlertLogEntry, AlertTransition, LogEntry
from services.wire.rpc import AlertAck, Silence

ACQUIRE = Script.read("metrics_svc", "acquire")
RELEASE = Script.read("metrics_svc", "release")
WRITE = Script.read("metrics_svc", "write")
ANNOUNCED = Script.read("metrics_svc", "announced")
ACKNOWLEDGE = Script.read("metrics_svc", "acknowledge")
PUT_DOCUMENT = Script.read("metrics_svc", "put_document")
NOTIFY = Script.read("metrics_svc", "notify")

# What the leader reads twice a second; thousands of alerts may fire.
_NOTIFY_HASHES: dict[str, type[Any]] = {
    "notices": AlertLogEntry,
    "told": SentNotification,
    "intents": SentNotification,
    "receivers": Receiver,
    "acks": AckRecord,
    "silences": Silence,
    "windows": Window,
}

_to_json = msgspec.json.Encoder().encode
_pack = msgspec.msgpack.Encoder().encode
_instance = msgspec.json.Decoder(AlertInstance).decode
_entry = msgspec.json.Decoder(AlertLogEntry).decode
_event = msgspec.json.Decoder(AlertEvent).decode
_silence = msgspec.json.Decoder(Silence).decode
_log_entry = msgspec.json.Decoder(LogEntry).decode
_ack = msgspec.json.Decoder(AckRecord).decode
_transition = msgspec.json.Decoder(AlertTransition).decode


def _json(value: object) -> str:
    """Encode as text: Redis' MessagePack has no bytes."""
    return _to_json(value).decode()


def _changed(values: Mapping[str, object]) -> list[tuple[str, str]]:
    """Fields of a hash and their values as JSON; an empty text removes the field."""
    return [(key, _json(value) if value is not None else "") for key, value in values.items()]


def _token(holder: str, term: int) -> str:
    return f"{term}|{holder}"


def _not_ended(silences: Iterable[Silence], now: int) -> list[Silence]:
    kept = [silence for silence in silences if silence.ends_at > now]
    return sorted(kept, key=lambda silence: (silence.starts_at, silence.id))


@contextmanager
def _converting_faults() -> Iterator[None]:
    """Convert any fault of Redis to MetricsStoreUnavailable, also that of a wrong script: the effect is the same."""
    try:
        yield
    except (RedisError, RedisClusterException) as fault:
        raise MetricsStoreUnavailable(f"redis: {one_line(fault)}") from fault


async def _converted(command: Any) -> Any:
    """Await one command."""
    with _converting_faults():
        return await command


class _Decoded:
    """Decoded values of one hash. Values that did not change since the last read are not decoded again."""

    def __init__(self, kind: type[Any]) -> None:
        self._decode = msgspec.json.Decoder(kind).decode
        self._known: dict[bytes, tuple[bytes, Any]] = {}

    def of(self, stored: dict[bytes, bytes]) -> dict[str, Any]:
        """Return the values by key: the same objects as before if the bytes are equal."""
        known = self._known
        self._known = {
            key: before
            if (before := known.get(key)) is not None and before[0] == data
            else (data, self._decode(data))
            for key, data in stored.items()
        }
        return {key.decode(): value for key, (_, value) in self._known.items()}


class RedisMetricsStore(MetricsStore):
    """`redis` has short timeouts and `decode_responses=False`; it is closed with the store."""

    def __init__(self, redis: AnyRedis, prefix: str) -> None:
        self._redis = redis
        self._prefix = prefix
        self._notify_hashes = {name: _Decoded(kind) for name, kind in _NOTIFY_HASHES.items()}

    def _key(self, *parts: str) -> str:
        return ":".join((f"{{{self._prefix}:metrics}}", *parts))

    def _chunk_key(self, series: str, tier: Tier, chunk: int) -> str:
        return self._key("rows", tier.name, str(chunk), series)

    async def _run(self, script: Script, keys: list[str], arguments: list[Argument]) -> Any:
        return await _converted(redis_scripts.run(self._redis, script, keys, arguments))

    # --- the lease ---

    async def acquire(self, holder: str, ttl_ms: int, seen: int = 0) -> Grant:
        keys = [self._key("lease"), self._key("term")]
        term, left_ms, seconds, micros, newest = await self._run(ACQUIRE, keys, [holder, ttl_ms, seen])
        return Grant(int(term), int(left_ms), int(seconds) + int(micros) / 1e6, int(newest))

    async def release(self, holder: str, term: int) -> None:
        await self._run(RELEASE, [self._key("lease")], [_token(holder, term)])

    # --- written by the leader ---

    async def write(self, holder: str, term: int, commit: SecondCommit) -> CommitStatus:
        names = (
            "lease", "meta", "watches", "acks", "episodes", "order", "outbox", "series", "notices", "transitions",
        )  # fmt: skip
        keys = [self._key(name) for name in names]
        keys += [self._chunk_key(row.series, row.tier, row.tier.chunk(row.row.start)) for row in commit.rows]
        payload = _pack(
            (
                [(row.series, row.tier.keep_s + row.tier.chunk_s) for row in commit.rows],
                _changed(commit.instances),
                [
                    (f"{entry.id}@{entry.started_at}", entry.started_at, _json(entry), entry.id)
                    for entry in commit.entries
                ],
                list(map(_json, commit.events)),
                commit.ended,
                list(map(_json, commit.transitions)),
                [(entry.id, _json(entry)) for entry in commit.current],
            )
        )
        arguments: list[Argument] = [
            _token(holder, term),
            term,
            commit.second,
            MAX_EPISODES,
            MAX_UNANNOUNCED,
            MAX_TRANSITIONS,
            payload,
            *[pack(row.row) for row in commit.rows],
        ]
        return CommitStatus((await self._run(WRITE, keys, arguments)).decode())

    async def last_second(self) -> int:
        return int(await _converted(self._redis.hget(self._key("meta"), "second")) or 0)

    async def instances(self) -> dict[str, AlertInstance]:
        stored = await _converted(self._redis.hgetall(self._key("watches")))
        return {id.decode(): _instance(data) for id, data in stored.items()}

    async def unannounced(self) -> list[AlertEvent]:
        return [_event(data) for data in await _converted(self._redis.zrange(self._key("outbox"), 0, -1))]

    async def remove_announced(self, holder: str, term: int, through: int) -> None:
        keys = [self._key("lease"), self._key("outbox")]
        await self._run(ANNOUNCED, keys, [_token(holder, term), through])

    async def notify_state(self, now: int) -> NotifyState:
        with _converting_faults():
            async with self._redis.pipeline(transaction=True) as pipeline:
                for name in self._notify_hashes:
                    pipeline.hgetall(self._key(name))
                stored = await pipeline.execute()
        alerts, sent, pending, receivers, acks, silences, windows = map(
            _Decoded.of, self._notify_hashes.values(), stored
        )
        current = _not_ended(silences.values(), now)
        return NotifyState(alerts, sent, pending, receivers, acks, current, list(windows.values()))

    async def notify_write(self, holder: str, term: int, change: NotifyChange) -> bool:
        keys = [self._key(name) for name in ("lease", "told", "intents", "receivers", "notices")]
        done = [(entry.id, _json(entry)) for entry in change.done]
        payload = _pack(
            (_changed(change.nflog), _changed(change.pending_sends), _changed(change.receivers), done)
        )
        return bool(await self._run(NOTIFY, keys, [_token(holder, term), payload]))

    # --- read and written by any replica ---

    async def packed(self, series: str, tier: Tier, start: int, end: int) -> list[bytes]:
        chunks = range(tier.chunk(start), end, tier.chunk_s)
        return await self._read([(self._chunk_key(series, tier, chunk), 0) for chunk in chunks])

    async def newest(self, series: str, count: int) -> list[Row]:
        last = await _converted(self._redis.zscore(self._key("series"), series))
        if last is None or count <= 0:
            return []
        newest = SECONDS.chunk(int(last))
        chunks = range(newest - SECONDS.chunk_s * -(-count // SECONDS.chunk_s), newest + 1, SECONDS.chunk_s)
        stored = await self._read([(self._chunk_key(series, SECONDS, chunk), -count) for chunk in chunks])
        return unpack(stored[-count:])

    async def _read(self, lists: list[tuple[str, int]]) -> list[bytes]:
        """Elements of several lists, each from an index on, in one round trip."""
        with _converting_faults():
            async with self._redis.pipeline(transaction=False) as pipeline:
                for key, first in lists:
                    pipeline.lrange(key, first, -1)
                answers: list[list[bytes]] = await pipeline.execute()
        return [data for answer in answers for data in answer]

    async def series(self, since: int) -> dict[str, int]:
        key = self._key("series")
        # Remove the names whose last row has expired in every tier.
        await _converted(self._redis.zremrangebyscore(key, "-inf", since - MINUTES.keep_s - DAY_S))
        named = await _converted(self._redis.zrangebyscore(key, since, "+inf", withscores=True))
        return {name.decode(): int(last) for name, last in sorted(named)}

    async def active(self) -> list[Alert]:
        with _converting_faults():
            async with self._redis.pipeline(transaction=True) as pipeline:
                pipeline.hvals(self._key("watches"))
                pipeline.hgetall(self._key("acks"))
                stored, acks = await pipeline.execute()
        acknowledged = {id.decode(): _ack(data).started_at for id, data in acks.items()}
        firing = [instance for instance in map(_instance, stored) if instance.state is AlertState.FIRING]
        firing.sort(key=lambda instance: instance.started_at or 0)
        return [
            msgspec.structs.replace(
                alert, acknowledged=acknowledged.get(alert.id) == str(instance.started_at)
            )
            for instance in firing
            if (alert := instance.current) is not None
        ]

    async def episodes(self, limit: int) -> list[AlertLogEntry]:
        if limit <= 0:
            return []
        with _converting_faults():
            newest: Any = await self._redis.zrange(self._key("order"), 0, limit - 1, desc=True)
            stored = await self._redis.hmget(self._key("episodes"), newest) if newest else []
        return [_entry(data) for data in stored if data is not None]  # None: trimmed in between

    async def acknowledge(self, ack: AlertAck, now: int) -> bool:
        keys = [self._key("watches"), self._key("acks")]
        return bool(await self._run(ACKNOWLEDGE, keys, [ack.id, ack.by, ack.comment, now]))

    async def silences(self, now: int) -> list[Silence]:
        return _not_ended(map(_silence, await _converted(self._redis.hvals(self._key("silences")))), now)

    async def put_silence(self, silence: Silence, now: int) -> None:
        arguments: list[Argument] = [silence.id, _json(silence), MAX_SILENCES, now]
        if not await self._run(PUT_DOCUMENT, [self._key("silences")], arguments):
            raise StoreLimitReached(f"there are {MAX_SILENCES} silences already")

    async def transitions(self, limit: int) -> list[AlertTransition]:
        if limit <= 0:
            return []
        stored = await _converted(self._redis.lrange(self._key("transitions"), -limit, -1))
        return [_transition(data) for data in reversed(stored)]

    async def documents(self, kind: DocumentKind) -> dict[str, bytes]:
        stored = await _converted(self._redis.hgetall(self._key(kind.value)))
        return {id.decode(): data for id, data in stored.items()}

    async def put_document(self, kind: DocumentKind, document_id: str, data: bytes) -> None:
        arguments: list[Argument] = [document_id, data, MAX_DOCUMENTS, 0]
        if not await self._run(PUT_DOCUMENT, [self._key(kind.value)], arguments):
            raise StoreLimitReached(f"there are {MAX_DOCUMENTS} of them already")

    async def delete_document(self, kind: DocumentKind, document_id: str) -> bool:
        return bool(await _converted(self._redis.hdel(self._key(kind.value), document_id)))

    async def append_logs(self, entries: list[LogEntry]) -> None:
        if not entries:
            return
        with _converting_faults():
            async with self._redis.pipeline(transaction=True) as pipeline:
                pipeline.rpush(self._key("logs"), *[_json(entry) for entry in entries[-MAX_LOG_LINES:]])
                pipeline.ltrim(self._key("logs"), -MAX_LOG_LINES, -1)
                await pipeline.execute()

    async def recent_logs(self, limit: int) -> list[LogEntry]:
        if limit <= 0:
            return []
        return [
            _log_entry(data) for data in await _converted(self._redis.lrange(self._key("logs"), -limit, -1))
        ]

    async def close(self) -> None:
        await _converted(close_redis(self._redis))
