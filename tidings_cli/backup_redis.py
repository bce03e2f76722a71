"""`tidings backup --redis` and `tidings restore --redis`: the data of metrics_svc in Redis, as a file.

History, alert states, acknowledgements, silences, rules of the API, and log lines: every key of metrics as Redis's DUMP,
all of one moment. Works with any TIDINGS_REDIS_URL, Sentinels and clusters too, with a user that has all permissions (the
operator's). Presence is not kept: gateways announce their connections again.
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import msgspec
import redis

from services.clock import now_ms
from services.lifecycle import CannotStart
from services.permissions import Role
from services.permissions.redis import access_of
from services.redis_client import AnyRedis, close_redis, one_line, open_redis
from services.settings import Settings
from tidings_cli import CommandFailed
from tidings_cli.local.child_server import write_private

_FILE = "redis.msgpack"
_FORMAT = 1
_ANSWER_S = 60.0  # one script reads all keys
_FAULTS = (redis.RedisError, redis.RedisClusterException, OSError)

# KEYS     the keys, all of one slot
# returns  of each that is there: key, its DUMP, milliseconds until it expires (-1: never)
_DUMP = """
local found = {}
for _, key in ipairs(KEYS) do
  local value = redis.call('DUMP', key)
  if value then table.insert(found, {key, value, redis.call('PTTL', key)}) end
end
return found
"""


class _Backup(msgspec.Struct):
    """The file. `taken_at_ms` is when the keys' remaining times were read."""

    format: int
    prefix: str
    taken_at_ms: int
    keys: list[tuple[bytes, bytes, int]]


async def back_up_redis(settings: Settings, folder: Path) -> list[str]:
    """Write the keys of metrics into `folder`, which may already have a backup of the streams; return a line about it.

    Raises:
        CommandFailed: Redis is unreachable or forbids it, there is no key, or the file exists already.
    """
    path = folder / _FILE
    if path.exists():
        raise CommandFailed(f"{path} exists already: give a new folder")
    async with _opened(settings) as client:
        keys = await _keys(client, settings)
        taken_at_ms = now_ms()
        answer: Any = await client.eval(_DUMP, len(keys), *keys) if keys else []
    if not answer:
        raise CommandFailed(f"Redis has no key of metrics under the prefix {settings.prefix!r}")
    kept = _Backup(_FORMAT, settings.prefix, taken_at_ms, [(key, value, ttl) for key, value, ttl in answer])
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)  # noqa: ASYNC240  # nothing else runs in this process
        write_private(path, msgspec.msgpack.encode(kept))
    except OSError as fault:
        raise CommandFailed(f"{folder}: {fault.strerror}") from fault
    return [f"redis: {len(kept.keys)} keys"]


async def restore_redis(settings: Settings, folder: Path, *, replace: bool) -> list[str]:
    """Restore the keys of a backup; return a line about it. Stop metrics_svc first. `replace` deletes existing keys.

    Raises:
        CommandFailed: no such backup, keys exist and may not be replaced, or Redis refuses.
    """
    try:
        kept = msgspec.msgpack.decode((folder / _FILE).read_bytes(), type=_Backup)  # as above
    except (OSError, msgspec.MsgspecError) as fault:
        raise CommandFailed(f"{folder / _FILE} cannot be read: {fault}") from None
    if kept.format != _FORMAT or kept.prefix != settings.prefix:
        raise CommandFailed(f"{folder / _FILE} is of format {kept.format} and prefix {kept.prefix!r}")
    async with _opened(settings) as client:
        there = await _keys(client, settings)
        if there and not replace:
            raise CommandFailed(f"{len(there)} keys of metrics exist: with --replace they are deleted first")
        async with client.pipeline(transaction=True) as steps:  # all or nothing
            if there:
                steps.delete(*there)
            restored = 0
            for key, value, ttl in kept.keys:
                if ttl < 0 or kept.taken_at_ms + ttl > now_ms():
                    expires_at = 0 if ttl < 0 else kept.taken_at_ms + ttl
                    steps.restore(key, expires_at, value, replace=True, absttl=True)
                    restored += 1
            await steps.execute()
    return [f"redis: {restored} keys"]


@asynccontextmanager
async def _opened(settings: Settings) -> AsyncIterator[AnyRedis]:
    """Open a client. A fault of Redis, in the body too, is a CommandFailed."""
    try:
        client = open_redis(settings, "backup", timeout_s=_ANSWER_S)
    except CannotStart as fault:
        raise CommandFailed(str(fault)) from None
    try:
        yield client
    except _FAULTS as fault:
        what = f"Redis: {one_line(fault)}"
        if isinstance(fault, redis.exceptions.NoPermissionError) or "ACL" in what:
            what += "; use the operator's user in TIDINGS_REDIS_URL"
        raise CommandFailed(what) from fault
    finally:
        await close_redis(client)


async def _keys(client: AnyRedis, settings: Settings) -> list[bytes]:
    pattern = f"{access_of(Role.METRICS, settings).key_prefix}*"
    return sorted({key async for key in client.scan_iter(match=pattern, count=1000)})
