"""`python -m presence_svc`: one replica of the presence service."""

import asyncio
from collections.abc import Callable, Coroutine
from functools import partial
from typing import Any

from presence_svc.announcer import Announcer
from presence_svc.policy import Telling, Timing
from presence_svc.service import PresenceService
from presence_svc.store import RedisPresenceStore
from presence_svc.sweeper import Sweeper
from presence_svc.webhooks import Webhooks
from services.bus.rpc import Service
from services.health import HealthServer, export_process
from services.lifecycle import Lifecycle, run
from services.permissions.roles import Role
from services.redis_client import AnyRedis, close_redis, open_redis, wait_for_redis
from services.settings import Settings, instance_name
from services.tasks import TaskSet
from services.tracing.exporting import bus_class, open_traces


async def main(settings: Settings, lifecycle: Lifecycle) -> None:
    """Wire one replica and serve until told to stop. Until Redis is there, it answers `unavailable`."""
    redis = open_redis(settings, "presence")
    lifecycle.on_stop("redis", partial(close_redis, redis), timeout_s=1)
    instance = instance_name(settings, "presence")
    traces = open_traces(settings, "presence", instance, lifecycle)
    bus = await bus_class(traces).connect(settings, instance, role=Role.PRESENCE)
    lifecycle.on_stop("bus", bus.close, timeout_s=2)
    lifecycle.ship_logs(bus.publish, settings)

    store = RedisPresenceStore(redis, settings.prefix, Timing.of(settings), Telling.of(settings))
    lifecycle.on_stop("store", store.close, timeout_s=1)
    announcer = Announcer(bus, settings, store)
    lifecycle.on_stop("confirmations", announcer.confirm, timeout_s=1)
    sweeper = Sweeper(store, announcer)
    checks = {"bus": lambda: bus.healthy, "redis": lambda: sweeper.store_healthy}
    export_process(checks, bus.stats)
    health = HealthServer(settings, "presence", checks)
    await health.start()
    lifecycle.on_stop("health", health.close, timeout_s=1)

    tasks = TaskSet(lifecycle.fail)
    lifecycle.on_stop("tasks", tasks.close, timeout_s=1)
    checked = asyncio.Event()
    tasks.spawn(_check_redis(redis, settings, checked), "redis check", critical=True)
    tasks.spawn(_once_checked(sweeper.run, checked), "sweeper", critical=True)
    tasks.spawn(_once_checked(announcer.run, checked), "confirmations", critical=True)
    if settings.presence_webhook_urls:
        webhooks = Webhooks(store, settings)
        lifecycle.on_stop("webhooks", webhooks.close, timeout_s=1)
        for courier in webhooks.couriers:
            tasks.spawn(_once_checked(courier.run, checked), f"webhook {courier.target}", critical=True)

    service = Service(bus, settings, "presence")
    PresenceService(store, announcer, bus.max_payload).serve_on(service)
    await service.start()
    lifecycle.on_stop("service", service.stop, timeout_s=3)
    await lifecycle.stopped()


async def _once_checked(work: Callable[[], Coroutine[Any, Any, None]], checked: asyncio.Event) -> None:
    """Do `work` once Redis was found fit."""
    await checked.wait()
    await work()


async def _check_redis(redis: AnyRedis, settings: Settings, checked: asyncio.Event) -> None:
    await wait_for_redis(redis, Role.PRESENCE, settings)
    checked.set()


if __name__ == "__main__":
    run("presence", main)
