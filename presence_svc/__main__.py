"""`python -m presence_svc`: one replica of the presence service."""

import asyncio

import structlog
from redis.asyncio import Redis
from redis.exceptions import RedisError

from presence_svc.redis_link import check_server, open_redis
from presence_svc.service import Announcer, PresenceService
from presence_svc.store import Timing
from presence_svc.store_redis import RedisPresenceStore
from presence_svc.sweeper import Sweeper
from services.bus.client import Bus
from services.bus.rpc import Service
from services.health import HealthServer
from services.lifecycle import CannotStart, Lifecycle, run
from services.settings import Settings, instance_name
from services.tasks import TaskSet

log = structlog.get_logger(__name__)

CHECK_AGAIN_S = 1.0


async def main(settings: Settings, lifecycle: Lifecycle) -> None:
    """Wire one replica and serve until told to stop. Until Redis is there, it answers `unavailable`."""
    redis = open_redis(settings)
    lifecycle.on_stop("redis", redis.aclose, timeout_s=1)
    bus = await Bus.connect(settings, instance_name(settings, "presence"))
    lifecycle.on_stop("bus", bus.close, timeout_s=2)
    lifecycle.ship_logs(bus, settings)

    store = RedisPresenceStore(redis, settings.prefix, Timing.of(settings))
    lifecycle.on_stop("store", store.close, timeout_s=1)
    announcer = Announcer(bus, settings)
    sweeper = Sweeper(store, announcer)
    health = HealthServer(
        settings,
        "presence",
        {"bus": lambda: bus.healthy, "redis": lambda: sweeper.store_healthy},
    )
    await health.start()
    lifecycle.on_stop("health", health.close, timeout_s=1)

    tasks = TaskSet()
    lifecycle.on_stop("tasks", tasks.close, timeout_s=1)
    tasks.spawn(_check_redis(redis, lifecycle), "redis check")
    tasks.spawn(_sweep(sweeper, lifecycle), "sweeper")

    service = Service(bus, settings, "presence")
    PresenceService(store, announcer, bus.max_payload).serve_on(service)
    await service.start()
    lifecycle.on_stop("service", service.stop, timeout_s=3)
    await lifecycle.stopped()


async def _sweep(sweeper: Sweeper, lifecycle: Lifecycle) -> None:
    """Sweep, and end the process if that fails for other reasons than Redis being away."""
    try:
        await sweeper.run()
    except Exception as fault:  # noqa: BLE001  # whatever it is: a replica that does not sweep must not look well
        lifecycle.fail(fault)


async def _check_redis(redis: Redis, lifecycle: Lifecycle) -> None:
    """End the process if Redis turns out too old, however late it comes."""
    while True:
        try:
            await check_server(redis)
        except CannotStart as fault:
            lifecycle.fail(fault)
        except RedisError as fault:
            log.debug("redis not checked yet", reason=str(fault))
            await asyncio.sleep(CHECK_AGAIN_S)
            continue
        return


if __name__ == "__main__":
    run("presence", main)
