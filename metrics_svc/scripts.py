"""This package's scripts, and what faults of Redis mean to it."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from redis.exceptions import RedisClusterException, RedisError

from metrics_svc.store import MetricsStoreUnavailable
from services import redis_scripts
from services.redis_client import AnyRedis, one_line
from services.redis_scripts import Argument, Script


@contextmanager
def reaching() -> Iterator[None]:
    """Turn any fault of Redis into StoreUnavailable.

    A script that is wrong raises it too; tests run every script, and for the caller the store is as good as
    gone.
    """
    try:
        yield
    except (RedisError, RedisClusterException) as fault:
        raise MetricsStoreUnavailable(f"redis: {one_line(fault)}") from fault


def load(name: str) -> Script:
    """Read `lua/NAME.lua`."""
    return Script.read("metrics_svc", name)


async def run(redis: AnyRedis, script: Script, keys: list[str], arguments: list[Argument]) -> Any:
    """Run a script. Raises StoreUnavailable."""
    with reaching():
        return await redis_scripts.run(redis, script, keys, arguments)
