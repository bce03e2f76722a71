"""Start the agent: `python -m metrics_svc.agent`."""

import asyncio
import secrets
import socket

import psutil

from metrics_svc.agent.machine import OWN_PROC, Machine, existing
from metrics_svc.agent.reporter import MachineReporter
from services.bus.client import Bus
from services.health import HealthServer, export_process
from services.lifecycle import CannotStart, Lifecycle, run
from services.permissions import Role
from services.settings import Settings, instance_name
from services.tasks import TaskSet

KIND = "agent"


async def main(settings: Settings, lifecycle: Lifecycle) -> None:
    bus = await Bus.connect(settings, instance_name(settings, KIND), role=Role.AGENT)
    lifecycle.on_stop("bus", bus.close, timeout_s=2)
    lifecycle.ship_logs(bus.publish, settings)
    machine = await asyncio.to_thread(machine_of, settings)
    reporter = MachineReporter(
        bus,
        settings.subjects.metrics_report,
        settings.instance or socket.gethostname(),
        secrets.token_hex(4),
        machine.sample,
        settings.agent_interval_s,
    )
    checks = {"bus": lambda: bus.healthy, "samples": lambda: reporter.sampling}
    export_process(checks, bus.stats)
    health = HealthServer(settings, KIND, checks)
    await health.start()
    lifecycle.on_stop("health", health.close, timeout_s=1)
    tasks = TaskSet(lifecycle.fail)
    lifecycle.on_stop("tasks", tasks.close, timeout_s=1)
    tasks.spawn(reporter.run(), "reporter", critical=True)
    await lifecycle.stopped()


def machine_of(settings: Settings) -> Machine:
    """The machine to sample.

    Raises:
        CannotStart: `agent_proc` is not the /proc of a host.
    """
    if settings.agent_proc != OWN_PROC:
        psutil.PROCFS_PATH = str(settings.agent_proc)  # for this process
    try:
        return Machine(existing(settings.data_dir), proc=settings.agent_proc)
    except (OSError, ValueError, IndexError) as fault:
        if settings.agent_proc == OWN_PROC:
            raise
        raise CannotStart(
            f"TIDINGS_AGENT_PROC: {settings.agent_proc} is not the /proc of a machine: {fault}"
        ) from fault


if __name__ == "__main__":
    run(KIND, main)
