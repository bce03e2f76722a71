"""Redis or Valkey: version, permissions, memory policy, persistence, replication, its clock."""

import time
from typing import Any

import redis
from redis.asyncio import Redis

from services.bus.errors import Misconfigured
from services.lifecycle import CannotStart
from services.permissions import Role
from services.redis_client import (
    AnyRedis,
    close_redis,
    display_address,
    infos,
    one_line,
    open_redis,
    prove_redis,
)
from services.settings import Settings
from tidings_cli.checks.outcome import REACH_S, Outcome, bad, clock, good, warning
from tidings_cli.local.external import UnusableServer, check_redis_info

_NEARLY_FULL = 0.9
_FAULTS = (redis.RedisError, redis.RedisClusterException, OSError)


async def check_store(settings: Settings, role: Role | None) -> list[Outcome]:
    """Check Redis. Checks that depend on a failed one are left out."""
    try:
        client = open_redis(settings, "check", timeout_s=REACH_S)
        address = display_address(settings.redis_url)
    except (CannotStart, ValueError) as fault:
        return [bad("Redis", str(fault), "its format is redis://user:password@host:port/0")]
    try:
        return await _tried(client, address, settings, role)
    finally:
        await close_redis(client)


async def _tried(client: AnyRedis, address: str, settings: Settings, role: Role | None) -> list[Outcome]:
    try:
        servers = await infos(client)  # connects and logs in
    except redis.AuthenticationError as fault:
        advice = "correct user and password in TIDINGS_REDIS_URL (percent-encoded)"
        return [bad("Redis", f"{address} refuses the login: {fault}", advice)]
    except redis.exceptions.NoPermissionError as fault:
        advice = "this user lacks commands: `tidings permissions redis` prints what each process needs"
        return [bad("Redis permissions", str(fault), advice)]
    except _FAULTS as fault:
        advice = "start it, or correct TIDINGS_REDIS_URL; a firewall must let its port through"
        return [bad("Redis", f"{address} cannot be used: {one_line(fault)}", advice)]
    since = time.perf_counter()
    try:
        ours = time.time()
        seconds, microseconds = await _time(client)
    except _FAULTS as fault:
        return [bad("Redis", f"{address}: {fault}", "look at the server's own log")]
    outcomes = _versions(servers, address, since)
    if all(outcome.ok for outcome in outcomes):
        outcomes.append(await _permissions(client, settings, role))
        for info in servers:
            outcomes += [_memory(info), *_persistence(info), *_replication(info)]
        outcomes.append(clock("clock of Redis", seconds + microseconds / 1e6, ours))
    return outcomes


async def _time(client: AnyRedis) -> tuple[int, int]:
    if isinstance(client, Redis):
        seconds, microseconds = await client.time()
        return int(seconds), int(microseconds)
    answers: Any = await client.time(target_nodes=client.get_random_node())
    seconds, microseconds = next(iter(answers.values())) if isinstance(answers, dict) else answers
    return int(seconds), int(microseconds)


def _versions(servers: list[dict[str, Any]], address: str, since: float) -> list[Outcome]:
    try:
        found = min((check_redis_info(info, address) for info in servers), key=lambda one: one.version)
    except UnusableServer as fault:
        return [bad("Redis", str(fault), "install Redis 6.2 or newer, or Valkey")]
    return [good("Redis", str(found), since)]


async def _permissions(client: AnyRedis, settings: Settings, role: Role | None) -> Outcome:
    name = "Redis permissions"
    roles = [role] if role is not None else [Role.PRESENCE, Role.METRICS]
    try:
        for one in roles:
            await prove_redis(client, one, settings)
    except (Misconfigured, redis.exceptions.NoPermissionError) as fault:
        advice = "give the process the user that `tidings permissions redis` prints"
        if role is None:
            advice += "; for the user of one process name it, as in `tidings check presence`"
        return bad(name, str(fault), advice)
    except _FAULTS as fault:
        return bad(name, str(fault), "look at the server's own log")
    return good(name, f"this user may do what {' and '.join(roles)} need{'s' if role else ''}")


def _memory(info: dict[str, Any]) -> Outcome:
    name = "Redis memory"
    used, most = int(info.get("used_memory", 0)), int(info.get("maxmemory", 0))
    policy = str(info.get("maxmemory_policy", "noeviction"))
    if not most:
        return good(name, f"{used} bytes, no limit")
    if policy != "noeviction":
        detail = f"maxmemory-policy is {policy}: when memory is short, Redis evicts presence"
        return bad(name, detail, "CONFIG SET maxmemory-policy noeviction, and in redis.conf")
    if used > _NEARLY_FULL * most:
        advice = "raise maxmemory: at the limit every write is refused"
        return warning(name, f"{used} of {most} bytes", advice)
    return good(name, f"{used} of {most} bytes, noeviction")


def _persistence(info: dict[str, Any]) -> list[Outcome]:
    name = "Redis persistence"
    if info.get("loading"):
        return [bad(name, "it still loads its data", "wait until it has loaded them")]
    broken = [
        field
        for field in ("rdb_last_bgsave_status", "aof_last_write_status", "aof_last_bgrewrite_status")
        if info.get(field, "ok") != "ok"
    ]
    if broken:
        advice = "free space on its disk; Redis refuses writes while it cannot save"
        return [bad(name, f"the last attempt failed ({', '.join(broken)})", advice)]
    if info.get("aof_enabled"):
        return [good(name, "append-only file")]
    if info.get("rdb_last_save_time", 0) > info.get("server_time_usec", 0) // 1_000_000 - info.get(
        "uptime_in_seconds", 0
    ):
        return [good(name, "snapshots")]  # one was written since it started
    detail = "no append-only file, and no snapshot since it started"
    advice = "appendonly yes: without it a restart loses metrics history, alert states and silences"
    return [warning(name, detail, advice)]


def _replication(info: dict[str, Any]) -> list[Outcome]:
    name = "Redis replication"
    if info.get("role") == "slave":
        advice = "name the master in TIDINGS_REDIS_URL, or Sentinels: redis+sentinel://host:26379/NAME"
        return [bad(name, "this is a replica: it takes no writes", advice)]
    replicas = int(info.get("connected_slaves", 0))
    return [good(name, f"{replicas} replica(s)")] if replicas else []
