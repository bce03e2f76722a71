"""`tidings backup --redis` and `tidings restore --redis`: what metrics_svc keeps in Redis, as a file.

History, alert states, acknowledgements, silences, rules given by API, and log lines: every key of metrics, as Redis's own
DUMP has it, all of one moment. Works through whatever TIDINGS_REDIS_URL names, Sentinels and clusters too, as a user that
may do everything (the operator's). Presence is not worth keeping: gateways announce their connections again.
"""

import os
from pathlib import Path
from typing import Any

import msgspec
import redis

from services.clock import now_ms
from services.lifecycle import CannotStart
from services.permissions.redis import access_of
from services.permissions.roles import Role
from services.redis_client import AnyRedis, close_redis, one_line, open_redis
from services.settings import Settings
from tidings_cli.backup import CannotBackUp

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


async def back_up_store(settings: Settings, folder: Path) -> int:
    """Write the keys of metrics into `folder`, which may have a backup of the streams already; return how many.

    Raises:
        CannotBackUp: Redis is out of reach or forbids it, there is nothing, or there is such a file already.
    """
    path = folder / _FILE
    if path.exists():
        raise CannotBackUp(f"{path} is there already: give a new folder")
    client = _opened(settings)
    try:
        keys = await _keys(client, settings)
        taken_at_ms = now_ms()
        answer: Any = await client.eval(_DUMP, len(keys), *keys) if keys else []
    except _FAULTS as fault:
        raise CannotBackUp(_explained(fault)) from fault
    finally:
        await close_redis(client)
    if not answer:
        raise CannotBackUp(f"Redis has nothing of metrics under the prefix {settings.prefix!r}")
    kept = _Backup(_FORMAT, settings.prefix, taken_at_ms, [(key, value, ttl) for key, value, ttl in answer])
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)  # noqa: ASYNC240  # nothing else runs in this process
        draft = path.with_name(f".{_FILE}.new")
        with os.fdopen(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as file:
            file.write(msgspec.msgpack.encode(kept))
        draft.replace(path)  # as above
    except OSError as fault:
        raise CannotBackUp(f"{folder}: {fault.strerror}") from fault
    return len(kept.keys)


async def restore_store(settings: Settings, folder: Path, *, replace: bool) -> int:
    """Put the keys of a backup back; return how many. Stop metrics_svc first. `replace` deletes what is there.

    Raises:
        CannotBackUp: no such backup, keys are there and may not be replaced, or Redis refuses.
    """
    try:
        kept = msgspec.msgpack.decode((folder / _FILE).read_bytes(), type=_Backup)  # as above
    except (OSError, msgspec.MsgspecError) as fault:
        raise CannotBackUp(f"{folder / _FILE} cannot be read: {fault}") from None
    if kept.format != _FORMAT or kept.prefix != settings.prefix:
        raise CannotBackUp(f"{folder / _FILE} is of format {kept.format} and prefix {kept.prefix!r}")
    client = _opened(settings)
    try:
        there = await _keys(client, settings)
        if there and not replace:
            raise CannotBackUp(
                f"{len(there)} keys of metrics are there: with --replace they are deleted first"
            )
        async with client.pipeline(transaction=True) as steps:  # all or nothing, and nobody sees a half
            if there:
                steps.delete(*there)
            restored = 0
            for key, value, ttl in kept.keys:
                if ttl < 0 or kept.taken_at_ms + ttl > now_ms():
                    expires_at = 0 if ttl < 0 else kept.taken_at_ms + ttl
                    steps.restore(key, expires_at, value, replace=True, absttl=True)
                    restored += 1
            await steps.execute()
    except _FAULTS as fault:
        raise CannotBackUp(_explained(fault)) from fault
    else:
        return restored
    finally:
        await close_redis(client)


def _opened(settings: Settings) -> AnyRedis:
    try:
        return open_redis(settings, "backup", timeout_s=_ANSWER_S)
    except CannotStart as fault:
        raise CannotBackUp(str(fault)) from None


async def _keys(client: AnyRedis, settings: Settings) -> list[bytes]:
    pattern = f"{access_of(Role.METRICS, settings).key_prefix}*"
    return sorted({key async for key in client.scan_iter(match=pattern, count=1000)})


def _explained(fault: Exception) -> str:
    said = one_line(fault)
    if isinstance(fault, redis.exceptions.NoPermissionError) or "ACL" in said:
        return f"Redis: {said}; use the operator's user in TIDINGS_REDIS_URL"
    return f"Redis: {said}"
