"""Start metrics_svc: `python -m metrics_svc`."""

import secrets
from typing import Any

from metrics_svc.aggregation.admission import Admission
from metrics_svc.aggregation.seconds import FRESH_S, Seconds
from metrics_svc.alerts.rules_file import RulesFile
from metrics_svc.clock import FleetClock
from metrics_svc.endpoints import Endpoints
from metrics_svc.intake import Intake
from metrics_svc.lease import Lease
from metrics_svc.log_stream import QUEUE, LogStream
from metrics_svc.scripts import connect
from metrics_svc.store_redis import RedisStore
from metrics_svc.ticker import Ticker
from metrics_svc.webhook import Webhooks
from services.bus.client import Bus
from services.bus.rpc import Service
from services.health import HealthServer
from services.lifecycle import Lifecycle, run
from services.settings import Settings, instance_name
from services.tasks import TaskSet

KIND = "metrics"


async def main(settings: Settings, lifecycle: Lifecycle) -> None:
    """Wire the parts and wait."""
    instance = instance_name(settings, KIND)
    subjects = settings.subjects
    bus = await Bus.connect(settings, instance)
    lifecycle.on_stop("bus", bus.close, timeout_s=2)
    lifecycle.ship_logs(bus, settings)
    store = RedisStore(connect(settings.redis_url), settings.prefix)
    lifecycle.on_stop("store", store.close, timeout_s=1)

    clock = FleetClock()
    # A machine that reports less often than each second is not gone in between.
    seconds = Seconds(fresh_s=max(FRESH_S, round(2.5 * settings.agent_interval_s)))
    rules = RulesFile(settings.rules_file)
    # Two processes given the same name must not take each other for themselves.
    lease = Lease(store, f"{instance}-{secrets.token_hex(4)}", clock)
    webhooks = Webhooks(settings.webhook_urls, store, clock, rules)
    ticker = Ticker(seconds, lease, store, clock, rules, bus, subjects, webhooks.notify)
    intake = Intake(Admission(), seconds, clock.now)
    logs = LogStream(store, bus, subjects)
    service = Service(bus, settings, KIND)
    Endpoints(store, clock).serve(service)

    def details() -> dict[str, Any]:
        return {"instance": instance, "leads": ticker.leads, "rules_error": rules.error}

    health = HealthServer(
        settings, KIND, {"bus": lambda: bus.healthy, "redis": lambda: lease.reachable}, details
    )
    await health.start()
    lifecycle.on_stop("health", health.close, timeout_s=1)

    bus.subscribe(subjects.metrics_report, intake.on_report)
    bus.subscribe(subjects.logs_feed, intake.on_logs)
    bus.subscribe(subjects.logs_report, logs.on_report, queue=QUEUE)
    await lease.attempt()  # learn the fleet's time before the first second begins
    tasks = TaskSet()
    lifecycle.on_stop("lease", lease.release, timeout_s=1)
    lifecycle.on_stop("tasks", tasks.close, timeout_s=1)
    for name, work in (
        ("lease", lease.run()),
        ("ticker", ticker.run()),
        ("logs", logs.run()),
        ("webhooks", webhooks.run()),
    ):
        task = tasks.spawn(work, name)
        task.add_done_callback(lambda done: _fail_with(lifecycle, done))
    await service.start()
    lifecycle.on_stop("service", service.stop, timeout_s=3)
    await lifecycle.stopped()


def _fail_with(lifecycle: Lifecycle, task: Any) -> None:
    """End the process when one of its loops ends by a fault: a supervisor starts it afresh."""
    if not task.cancelled() and (fault := task.exception()) is not None:
        lifecycle.fail(fault)


if __name__ == "__main__":
    run(KIND, main)
