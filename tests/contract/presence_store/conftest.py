"""Every presence store: the one in memory, and the one in Redis, in Valkey and in a cluster of Redis."""

from collections.abc import AsyncIterator, Awaitable, Callable

import pytest

from presence_svc.policy import AnnouncePolicy, LeaseTimings
from presence_svc.store import WORK_PER_CALL, PresenceStore
from services.redis_client import close_redis, open_redis
from services.settings import Settings
from tests.support.presence import TIMINGS, AnyStore, ManualClock, SimulatedGateway
from tests.support.presence_model.model import MemoryPresenceStore

MakeStore = Callable[..., Awaitable[AnyStore]]


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture(params=["memory", "redis", "valkey", "cluster"])
async def make_store(
    request: pytest.FixtureRequest, clock: ManualClock, prefix: str
) -> AsyncIterator[MakeStore]:
    redis = None
    made: list[PresenceStore] = []
    if request.param != "memory":
        url = request.getfixturevalue(f"{request.param}_server").url
        redis = open_redis(Settings(redis_url=url), "presence")

    async def make(
        policy: AnnouncePolicy | None = None, timings: LeaseTimings = TIMINGS, work: int = WORK_PER_CALL
    ) -> AnyStore:
        if redis is None:
            return MemoryPresenceStore(timings, clock, policy)
        made.append(PresenceStore(redis, prefix, timings, policy, clock=clock, work=work))
        return made[-1]

    yield make
    for store in made:
        await store.close()
    if redis is not None:
        await close_redis(redis)


@pytest.fixture
async def store(make_store: MakeStore) -> AnyStore:
    return await make_store()


@pytest.fixture
def gateway(store: AnyStore) -> SimulatedGateway:
    return SimulatedGateway(store)


@pytest.fixture
def other(store: AnyStore) -> SimulatedGateway:
    return SimulatedGateway(store, "g2")
