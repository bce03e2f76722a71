"""Every presence store: the one in memory, and the one in Redis, in Valkey and in a cluster of Redis."""

from collections.abc import AsyncIterator

import pytest

from presence_svc.policy import PresenceStore
from presence_svc.store import RedisPresenceStore
from services.redis_client import close_redis, open_redis
from services.settings import Settings
from tests.support.presence import TIMING, SimulatedGateway, TurnedClock
from tests.support.presence_model.store import MemoryPresenceStore


@pytest.fixture
def clock() -> TurnedClock:
    return TurnedClock()


@pytest.fixture(params=["memory", "redis", "valkey", "cluster"])
async def store(
    request: pytest.FixtureRequest, clock: TurnedClock, prefix: str
) -> AsyncIterator[PresenceStore]:
    if request.param == "memory":
        yield MemoryPresenceStore(TIMING, clock)
        return
    url = request.getfixturevalue(f"{request.param}_server").url
    redis = open_redis(Settings(redis_url=url), "presence")
    redis_store = RedisPresenceStore(redis, prefix, TIMING, clock=clock)
    yield redis_store
    await redis_store.close()
    await close_redis(redis)


@pytest.fixture
def gateway(store: PresenceStore) -> SimulatedGateway:
    return SimulatedGateway(store)


@pytest.fixture
def other(store: PresenceStore) -> SimulatedGateway:
    return SimulatedGateway(store, "g2")
