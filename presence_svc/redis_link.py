"""The connection to Redis: short time limits, few retries, and a server that can run our scripts.

A call that timed out may have run, so it is repeated once only, and every script may be repeated.
"""

import re
from typing import Any

import structlog
from redis.asyncio import BlockingConnectionPool, Redis
from redis.asyncio.retry import Retry
from redis.backoff import ExponentialBackoff

from services.lifecycle import CannotStart
from services.settings import Settings

log = structlog.get_logger(__name__)

LEAST_VERSION = (6, 2)  # ZMSCORE, HRANDFIELD, ZADD GT
COMMAND_TIMEOUT_S = 1.0
RETRIES = 1
MAX_CONNECTIONS = 16


def open_redis(settings: Settings) -> Redis:
    """Return a client; it connects when first used.

    Raises:
        CannotStart: no URL, or none that can be understood.
    """
    if not settings.redis_url:
        raise CannotStart("TIDINGS_REDIS_URL is not set: presence needs a Redis or Valkey server")
    try:
        pool = BlockingConnectionPool.from_url(
            settings.redis_url,
            max_connections=MAX_CONNECTIONS,
            timeout=COMMAND_TIMEOUT_S,
            socket_timeout=COMMAND_TIMEOUT_S,
            socket_connect_timeout=COMMAND_TIMEOUT_S,
            socket_keepalive=True,
            health_check_interval=0,
            retry=Retry(ExponentialBackoff(cap=0.2, base=0.02), RETRIES),
            client_name="tidings-presence",
        )
    except ValueError as fault:
        raise CannotStart(f"TIDINGS_REDIS_URL: {fault}") from fault
    return Redis.from_pool(pool)


async def check_server(redis: Redis) -> None:
    """Return if the server can hold presence; warn where it may lose it.

    Raises:
        CannotStart: too old.
        redis.exceptions.RedisError: it cannot be reached now.
    """
    info: dict[str, Any] = await redis.info()
    found = str(info.get("redis_version", ""))
    if parse_version(found) < LEAST_VERSION:
        least = ".".join(map(str, LEAST_VERSION))
        raise CannotStart(f"TIDINGS_REDIS_URL: the server is Redis {found}, presence needs {least} or later")
    policy = info.get("maxmemory_policy", "noeviction")
    if info.get("maxmemory") and policy != "noeviction":
        log.warning("redis may evict presence", maxmemory_policy=policy, advice="set noeviction")


def parse_version(text: str) -> tuple[int, ...]:
    """Return the leading numbers of a version: `7.2.4-rc1` is (7, 2, 4). Nothing readable is ()."""
    match = re.match(r"\d+(?:\.\d+)*", text)
    return tuple(int(part) for part in match.group().split(".")) if match else ()
