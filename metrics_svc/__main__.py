"""Start metrics_svc: `python -m metrics_svc`."""

import secrets
from typing import Any

from metrics_svc.aggregation.aggregator import Aggregator
from metrics_svc.aggregation.validation import ReportValidator
from metrics_svc.alert_endpoints import AlertEndpoints
from metrics_svc.alerts.rule_store import RuleStore
from metrics_svc.endpoints import MetricsEndpoints
from metrics_svc.evaluation_loop import EvaluationLoop
from metrics_svc.intake import Intake
from metrics_svc.leader_lease import FleetClock, LeaderLease
from metrics_svc.log_stream import QUEUE, LogStream
from metrics_svc.notify.notifier import Notifier
from metrics_svc.notify.receivers import configured_receivers
from metrics_svc.store_redis import RedisMetricsStore
from services.bus.rpc import Service
from services.health import HealthServer, export_process
from services.lifecycle import Lifecycle, run
from services.permissions import Role
from services.redis_client import open_redis, wait_for_redis
from services.settings import Settings, instance_name
from services.tasks import TaskSet
from services.tracing.exporting import bus_class, open_traces

KIND = "metrics"
# Half of the lease: a renewal that hangs must fail early enough for another one.
REDIS_TIMEOUT_S = 1.0


async def main(settings: Settings, lifecycle: Lifecycle) -> None:
    instance = instance_name(settings, KIND)
    subjects = settings.subjects
    traces = open_traces(settings, KIND, instance, lifecycle)
    bus = await bus_class(traces).connect(settings, instance, role=Role.METRICS)
    lifecycle.on_stop("bus", bus.close, timeout_s=2)
    lifecycle.ship_logs(bus.publish, settings)
    redis = open_redis(settings, "metrics", timeout_s=REDIS_TIMEOUT_S)
    store = RedisMetricsStore(redis, settings.prefix)
    lifecycle.on_stop("store", store.close, timeout_s=1)

    clock = FleetClock()
    aggregator = Aggregator(agent_interval_s=settings.agent_interval_s)
    rules = RuleStore(settings.rules_file)
    # Unique, because two processes may have the same name.
    lease = LeaderLease(store, f"{instance}-{secrets.token_hex(4)}", clock)
    loop = EvaluationLoop(aggregator, lease, store, clock, rules, bus, subjects)
    notifier = Notifier(
        configured_receivers(settings),
        store,
        lease.holder,
        lambda: lease.term,
        lambda: rules.rules,
        lambda: int(clock.now() * 1000),
        settings.external_url,
    )
    intake = Intake(ReportValidator(), aggregator, clock.now)
    logs = LogStream(store, bus, subjects)
    service = Service(bus, settings, KIND)
    MetricsEndpoints(store, clock).serve(service)
    AlertEndpoints(store, clock, rules).serve(service)

    def details() -> dict[str, Any]:
        return {
            "instance": instance,
            "leads": loop.is_leader,
            "rules_error": rules.error,
            "rules_limited": sorted(loop.limited),
            "receivers_down": notifier.down if loop.is_leader else [],
        }

    checks = {"bus": lambda: bus.healthy, "redis": lambda: lease.reachable}
    export_process(checks, bus.stats)
    health = HealthServer(settings, KIND, checks, details)
    await health.start()
    lifecycle.on_stop("health", health.close, timeout_s=1)

    bus.subscribe(subjects.metrics_report, intake.on_report)
    bus.subscribe(subjects.logs_feed, intake.on_logs)
    bus.subscribe(subjects.logs_report("*"), logs.on_report, queue=QUEUE)
    await lease.attempt()  # sets the clock before the first second
    tasks = TaskSet(lifecycle.fail)
    lifecycle.on_stop("lease", lease.release, timeout_s=1)
    lifecycle.on_stop("tasks", tasks.close, timeout_s=1)
    for name, work in (
        ("lease", lease.run()),
        ("loop", loop.run()),
        ("logs", logs.run()),
        ("redis check", wait_for_redis(redis, Role.METRICS, settings)),
        ("notifier", notifier.run()),
    ):
        tasks.spawn(work, name, critical=True)
    await service.start()
    lifecycle.on_stop("service", service.stop, timeout_s=3)
    await lifecycle.stopped()


if __name__ == "__main__":
    run(KIND, main)
