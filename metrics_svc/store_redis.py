"""The store in Redis: one script per change (`lua/`), Redis' clock, one hash tag for all keys.

Works on Redis 6.2 and later and on Valkey, alone or in a cluster (all keys are in one slot).

```
{PREFIX:metrics}:lease        TERM|HOLDER, expires           :term      last term given
                :meta         second, term                   :series    names by last second
                :rows:TIER:CHUNK:SERIES   packed rows; the list expires when its youngest row may
                :watches      alert id -> state              :acks      alert id -> who, for which episode
                :episodes     episode -> line of the log     :order     episodes by start
                :outbox       events not announced, by second   :silences  id -> silence
                :logs         the newest log lines
```
"""

from typing import Any

import msgspec
from redis.asyncio import Redis

from metrics_svc.aggregation.rows import Row, pack, unpack, unpack_between
from metrics_svc.aggregation.tiers import DAY_S, MINUTES, SECONDS, Tier
from metrics_svc.alerts.judge import Watch
from metrics_svc.alerts.states import State
from metrics_svc.scripts import Argument, Script, reaching
from metrics_svc.store import (
    MAX_EPISODES,
    MAX_LOG_LINES,
    MAX_SILENCES,
    MAX_UNANNOUNCED,
    Grant,
    Tick,
    TooManySilences,
    Written,
)
from services.wire.events import AlertEvent
from services.wire.records import Alert, AlertLogEntry, LogEntry
from services.wire.rpc import AlertAck, Silence

ACQUIRE = Script.load("acquire")
RELEASE = Script.load("release")
WRITE = Script.load("write")
ANNOUNCED = Script.load("announced")
ACKNOWLEDGE = Script.load("acknowledge")
PUT_SILENCE = Script.load("put_silence")

_to_json = msgspec.json.Encoder().encode
_pack = msgspec.msgpack.Encoder().encode
_watch = msgspec.json.Decoder(Watch).decode
_entry = msgspec.json.Decoder(AlertLogEntry).decode
_event = msgspec.json.Decoder(AlertEvent).decode
_silence = msgspec.json.Decoder(Silence).decode
_log_entry = msgspec.json.Decoder(LogEntry).decode


def _json(value: object) -> str:
    """Return text: the server's MessagePack knows no bytes."""
    return _to_json(value).decode()


class _Ack(msgspec.Struct, rename="camel"):
    started_at: str


_ack = msgspec.json.Decoder(_Ack).decode


class RedisStore:
    """See `store.MetricsStore`.

    Args:
        redis: a client with short timeouts and `decode_responses=False`; closed with the store.
        prefix: the deployment's.
    """

    def __init__(self, redis: Redis, prefix: str) -> None:
        self._redis = redis
        self._prefix = prefix

    def _key(self, *parts: str) -> str:
        return ":".join((f"{{{self._prefix}:metrics}}", *parts))

    def _chunk_key(self, series: str, tier: Tier, chunk: int) -> str:
        return self._key("rows", tier.name, str(chunk), series)

    # --- who ticks ---

    async def acquire(self, holder: str, ttl_ms: int) -> Grant:
        keys = [self._key("lease"), self._key("term")]
        term, left_ms, seconds, micros = await ACQUIRE.run(self._redis, keys, [holder, ttl_ms])
        return Grant(int(term), int(left_ms), int(seconds) + int(micros) / 1e6)

    async def release(self, holder: str, term: int) -> None:
        await RELEASE.run(self._redis, [self._key("lease")], [_token(holder, term)])

    # --- what the one who ticks writes ---

    async def write(self, holder: str, term: int, tick: Tick) -> Written:
        keys = [
            self._key(name)
            for name in ("lease", "meta", "watches", "acks", "episodes", "order", "outbox", "series")
        ]
        keys += [
            self._chunk_key(placed.series, placed.tier, placed.tier.chunk(placed.row.start))
            for placed in tick.rows
        ]
        payload = _pack(
            (
                [(placed.series, placed.tier.keep_s + placed.tier.chunk_s) for placed in tick.rows],
                [(id, _json(watch) if watch is not None else "") for id, watch in tick.watches.items()],
                [
                    (f"{entry.id}@{entry.started_at}", entry.started_at, _json(entry))
                    for entry in tick.entries
                ],
                [_json(event) for event in tick.events],
                tick.ended,
            )
        )
        arguments: list[Argument] = [
            _token(holder, term),
            term,
            tick.second,
            MAX_EPISODES,
            MAX_UNANNOUNCED,
            payload,
            *[pack(placed.row) for placed in tick.rows],
        ]
        return Written((await WRITE.run(self._redis, keys, arguments)).decode())

    async def last_second(self) -> int:
        with reaching():
            return int(await self._redis.hget(self._key("meta"), "second") or 0)

    async def watches(self) -> dict[str, Watch]:
        with reaching():
            stored: Any = await self._redis.hgetall(self._key("watches"))
        return {id.decode(): _watch(data) for id, data in stored.items()}

    async def unannounced(self) -> list[AlertEvent]:
        with reaching():
            stored: Any = await self._redis.zrange(self._key("outbox"), 0, -1)
        return [_event(data) for data in stored]

    async def announced(self, holder: str, term: int, through: int) -> None:
        keys = [self._key("lease"), self._key("outbox")]
        await ANNOUNCED.run(self._redis, keys, [_token(holder, term), through])

    # --- what any replica reads and writes ---

    async def rows(self, series: str, tier: Tier, start: int, end: int, *, sketches: bool) -> list[Row]:
        chunks = range(tier.chunk(start), end, tier.chunk_s)
        stored = await self._read([(self._chunk_key(series, tier, chunk), 0) for chunk in chunks])
        return unpack_between(stored, start, end, sketch=sketches)

    async def newest(self, series: str, count: int) -> list[Row]:
        with reaching():
            last = await self._redis.zscore(self._key("series"), series)
        if last is None or count <= 0:
            return []
        newest = SECONDS.chunk(int(last))
        chunks = range(newest - SECONDS.chunk_s * -(-count // SECONDS.chunk_s), newest + 1, SECONDS.chunk_s)
        stored = await self._read([(self._chunk_key(series, SECONDS, chunk), -count) for chunk in chunks])
        return [unpack(data, sketch=False) for data in stored[-count:]]

    async def _read(self, lists: list[tuple[str, int]]) -> list[bytes]:
        """Return the elements of several lists, each from an index on, in one round trip."""
        with reaching():
            async with self._redis.pipeline(transaction=False) as pipeline:
                for key, first in lists:
                    pipeline.lrange(key, first, -1)
                answers: list[list[bytes]] = await pipeline.execute()
        return [data for answer in answers for data in answer]

    async def series(self, since: int) -> list[str]:
        with reaching():
            # A name outlives its rows by nothing: forget those whose last row is gone from every tier.
            await self._redis.zremrangebyscore(self._key("series"), "-inf", since - MINUTES.keep_s - DAY_S)
            names: Any = await self._redis.zrangebyscore(self._key("series"), since, "+inf")
        return sorted(name.decode() for name in names)

    async def active(self) -> list[Alert]:
        with reaching():
            async with self._redis.pipeline(transaction=True) as pipeline:
                pipeline.hvals(self._key("watches"))
                pipeline.hgetall(self._key("acks"))
                stored, acks = await pipeline.execute()
        acknowledged = {id.decode(): _ack(data).started_at for id, data in acks.items()}
        firing = [watch for watch in map(_watch, stored) if watch.state is State.FIRING]
        firing.sort(key=lambda watch: watch.started_at or 0)
        return [
            msgspec.structs.replace(
                watch.alert, acknowledged=acknowledged.get(watch.alert.id) == str(watch.started_at)
            )
            for watch in firing
            if watch.alert is not None
        ]

    async def episodes(self, limit: int) -> list[AlertLogEntry]:
        if limit <= 0:
            return []
        with reaching():
            newest: Any = await self._redis.zrange(self._key("order"), 0, limit - 1, desc=True)
            stored = await self._redis.hmget(self._key("episodes"), newest) if newest else []
        return [_entry(data) for data in stored if data is not None]  # None: trimmed in between

    async def acknowledge(self, ack: AlertAck, now: int) -> bool:
        keys = [self._key("watches"), self._key("acks")]
        return bool(await ACKNOWLEDGE.run(self._redis, keys, [ack.id, ack.by, ack.comment, now]))

    async def silences(self, now: int) -> list[Silence]:
        with reaching():
            stored = await self._redis.hvals(self._key("silences"))
        silences = [silence for silence in map(_silence, stored) if silence.ends_at > now]
        return sorted(silences, key=lambda silence: (silence.starts_at, silence.id))

    async def put_silence(self, silence: Silence, now: int) -> None:
        arguments: list[Argument] = [silence.id, _json(silence), now, MAX_SILENCES]
        if not await PUT_SILENCE.run(self._redis, [self._key("silences")], arguments):
            raise TooManySilences

    async def end_silence(self, id: str) -> bool:
        with reaching():
            return bool(await self._redis.hdel(self._key("silences"), id))

    async def append_logs(self, entries: list[LogEntry]) -> None:
        if not entries:
            return
        with reaching():
            async with self._redis.pipeline(transaction=True) as pipeline:
                pipeline.rpush(self._key("logs"), *[_json(entry) for entry in entries[-MAX_LOG_LINES:]])
                pipeline.ltrim(self._key("logs"), -MAX_LOG_LINES, -1)
                await pipeline.execute()

    async def recent_logs(self, limit: int) -> list[LogEntry]:
        if limit <= 0:
            return []
        with reaching():
            stored: Any = await self._redis.lrange(self._key("logs"), -limit, -1)
        return [_log_entry(data) for data in stored]

    async def close(self) -> None:
        with reaching():
            await self._redis.aclose(close_connection_pool=True)


def _token(holder: str, term: int) -> str:
    return f"{term}|{holder}"
