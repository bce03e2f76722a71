"""Every store of metrics: the one in memory, and the one in Redis, in Valkey and in a cluster of Redis."""

from collections.abc import AsyncIterator, Callable

import pytest

from metrics_svc.store import MetricsStore
from metrics_svc.store_redis import RedisMetricsStore
from services.redis_client import open_redis
from services.settings import Settings
from tests.support.metrics_store_memory import MemoryStore


@pytest.fixture(params=["memory", "redis", "valkey", "cluster"])
async def store(
    request: pytest.FixtureRequest, make_settings: Callable[..., Settings]
) -> AsyncIterator[MetricsStore]:
    if request.param == "memory":
        yield MemoryStore()
        return
    settings = make_settings(redis_url=request.getfixturevalue(f"{request.param}_server").url)
    redis_store = RedisMetricsStore(open_redis(settings, "metrics"), settings.prefix)
    yield redis_store
    await redis_store.close()
