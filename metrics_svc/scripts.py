"""The connection to Redis, and this package's scripts on it."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from redis.asyncio import BlockingConnectionPool, Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import RedisError

from metrics_svc.store import StoreUnavailable
from services import redis_scripts
from services.redis_scripts import Argument, Script

# Half of the lease: a renewal that hangs must fail while the next one can still come in time.
SOCKET_TIMEOUT_S = 1.0
MAX_CONNECTIONS = 8


def connect(url: str, **tls: Any) -> Redis:
    """Return a client that connects when first used. One retry: every operation here may be repeated."""
    pool = BlockingConnectionPool.from_url(
        url,
        max_connections=MAX_CONNECTIONS,
        timeout=SOCKET_TIMEOUT_S,
        socket_timeout=SOCKET_TIMEOUT_S,
        socket_connect_timeout=SOCKET_TIMEOUT_S,
        retry=Retry(NoBackoff(), 1),
        client_name="tidings-metrics",
        **tls,
    )
    return Redis.from_pool(pool)


@contextmanager
def reaching() -> Iterator[None]:
    """Turn any fault of Redis into StoreUnavailable.

    A script that is wrong raises it too; tests run every script, and for the caller the store is as good as
    gone.
    """
    try:
        yield
    except RedisError as fault:
        raise StoreUnavailable(f"redis: {fault}") from fault


def load(name: str) -> Script:
    """Read `lua/NAME.lua`."""
    return Script.read("metrics_svc", name)


async def run(redis: Redis, script: Script, keys: list[str], arguments: list[Argument]) -> Any:
    """Run a script. Raises StoreUnavailable."""
    with reaching():
        return await redis_scripts.run(redis, script, keys, arguments)
