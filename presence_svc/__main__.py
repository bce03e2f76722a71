"""`python -m presence_svc`: one replica of the presence service."""

from functools import partial

from presence_svc.announcer import Announcer
from presence_svc.policy import AnnouncePolicy, LeaseTimings
from presence_svc.service import PresenceService
from presence_svc.store import PresenceStore
from presence_svc.sweeper import Sweeper
from presence_svc.webhooks import Webhooks
from services.bus.rpc import Service
from services.health import HealthServer, export_process
from services.lifecycle import Lifecycle, run
from services.permissions import Role
from services.redis_client import close_redis, open_redis, wait_for_redis
from services.settings import Settings, instance_name
from services.tasks import TaskSet
from services.tracing.exporting import bus_class, open_traces


async def main(settings: Settings, lifecycle: Lifecycle) -> None:
    """Wire one replica and serve until stopped. While Redis is away, it answers `unavailable`."""
    redis = open_redis(settings, "presence")
    lifecycle.on_stop("redis", partial(close_redis, redis), timeout_s=1)
    instance = instance_name(settings, "presence")
    traces = open_traces(settings, "presence", instance, lifecycle)
    bus = await bus_class(traces).connect(settings, instance, role=Role.PRESENCE)
    lifecycle.on_stop("bus", bus.close, timeout_s=2)
    lifecycle.ship_logs(bus.publish, settings)

    store = PresenceStore(redis, settings.prefix, LeaseTimings.of(settings), AnnouncePolicy.of(settings))
    lifecycle.on_stop("store", store.close, timeout_s=1)
    announcer = Announcer(bus, settings, store)
    lifecycle.on_stop("acknowledgements", announcer.ack, timeout_s=1)
    sweeper = Sweeper(store, announcer)
    checks = {"bus": lambda: bus.healthy, "redis": lambda: sweeper.store_healthy}
    export_process(checks, bus.stats)
    health = HealthServer(settings, "presence", checks)
    await health.start()
    lifecycle.on_stop("health", health.close, timeout_s=1)

    tasks = TaskSet(lifecycle.fail)
    lifecycle.on_stop("tasks", tasks.close, timeout_s=1)
    loops = [("sweeper", sweeper.run), ("acknowledgements", announcer.run)]
    if settings.presence_webhook_urls:
        webhooks = Webhooks(store, settings)
        lifecycle.on_stop("webhooks", webhooks.close, timeout_s=1)
        loops += [(f"webhook {one.target}", one.run) for one in webhooks.deliveries]

    async def check_and_start() -> None:
        await wait_for_redis(redis, Role.PRESENCE, settings)
        for name, run_loop in loops:
            tasks.spawn(run_loop(), name, critical=True)

    tasks.spawn(check_and_start(), "redis check", critical=True)

    service = Service(bus, settings, "presence")
    PresenceService(store, announcer, bus.max_payload).serve_on(service)
    await service.start()
    lifecycle.on_stop("service", service.stop, timeout_s=3)
    await lifecycle.stopped()


if __name__ == "__main__":
    run("presence", main)
