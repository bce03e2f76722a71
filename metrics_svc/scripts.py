"""The connection to Redis, and Lua scripts run by hash: with their source where the server forgot it."""

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import resources
from typing import Any

from redis.asyncio import BlockingConnectionPool, Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import NoScriptError, RedisError

from metrics_svc.store import StoreUnavailable

Argument = str | bytes | int

# Half of the lease: a renewal that hangs must fail while the next one can still come in time.
SOCKET_TIMEOUT_S = 1.0
MAX_CONNECTIONS = 8


def connect(url: str) -> Redis:
    """Return a client that connects when first used. One retry: every operation here may be repeated."""
    pool = BlockingConnectionPool.from_url(
        url,
        max_connections=MAX_CONNECTIONS,
        timeout=SOCKET_TIMEOUT_S,
        socket_timeout=SOCKET_TIMEOUT_S,
        socket_connect_timeout=SOCKET_TIMEOUT_S,
        retry=Retry(NoBackoff(), 1),
        client_name="tidings-metrics",
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


@dataclass(frozen=True, slots=True)
class Script:
    """One script: its source, which says what KEYS and ARGV are, and the hash that Redis knows it by."""

    source: str
    sha: str

    @classmethod
    def load(cls, name: str) -> "Script":
        """Read `lua/NAME.lua`."""
        source = (resources.files("metrics_svc") / "lua" / f"{name}.lua").read_text(encoding="utf-8")
        return cls(source, hashlib.sha1(source.encode(), usedforsecurity=False).hexdigest())

    async def run(self, redis: Redis, keys: list[str], arguments: list[Argument]) -> Any:
        """Run the script. Raises StoreUnavailable."""
        with reaching():
            try:
                return await redis.evalsha(self.sha, len(keys), *keys, *arguments)
            except NoScriptError:
                return await redis.eval(self.source, len(keys), *keys, *arguments)
