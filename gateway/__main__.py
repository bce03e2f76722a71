"""Start a gateway: `python -m gateway`."""

from functools import partial

from prometheus_client import REGISTRY

from gateway.gateway import Gateway
from gateway.http.app import build_app
from gateway.server import Server, bind
from services import lifecycle, telemetry
from services.bus.rpc import Service
from services.health import HealthServer, export_process
from services.lifecycle import CannotStart, Lifecycle
from services.permissions import Role
from services.settings import Settings, instance_name
from services.tracing.exporting import bus_class, open_traces
from services.wire.records import GatewayStats
from services.wire.rpc import GATEWAY_STATS, Empty


async def main(settings: Settings, life: Lifecycle) -> None:
    """Wire the parts, serve until stopped, drain."""
    listener = bind(settings)
    instance = instance_name(settings, "gateway")
    traces = open_traces(settings, "gateway", instance, life)
    bus = await bus_class(traces).connect(settings, instance, role=Role.GATEWAY)
    life.on_stop("bus", bus.close, timeout_s=1.0)
    life.ship_logs(bus.publish, settings)

    try:
        gateway = Gateway(bus, settings, instance, life.fail)
    except ValueError as fault:
        raise CannotStart(str(fault)) from fault
    life.on_stop("gateway", gateway.close, timeout_s=1.5)
    await gateway.open()
    REGISTRY.register(gateway.reporter)
    telemetry.announce_build("gateway")
    gateway.tasks.spawn(gateway.reporter.run(), "reporter", critical=True)

    service = Service(bus, settings, "gateway")

    async def stats(_request: Empty) -> GatewayStats:
        return gateway.reporter.stats()

    service.endpoint(GATEWAY_STATS, stats, queue=False)
    gateway.control.serve(service)
    await service.start()
    gateway.tasks.spawn(gateway.control.peers.announce(), "announcements", critical=True)
    life.on_stop("micro service", service.stop, timeout_s=0.5)

    checks = {name: partial(_passes, gateway, name) for name in gateway.readiness()}
    export_process(checks, bus.stats)
    if settings.health_port:
        health = HealthServer(settings, "gateway", checks, gateway.service_client.details)
        await health.start()
        life.on_stop("health", health.close, timeout_s=0.5)

    app = build_app(gateway)
    if traces is not None:
        from gateway.tracing import trace  # needs an optional part

        app = trace(gateway, app, traces)
    server = Server(app, gateway)
    await server.start(listener)
    await life.stopped()
    await server.stop()


def _passes(gateway: Gateway, check: str) -> bool:
    return gateway.readiness()[check]


if __name__ == "__main__":
    lifecycle.run("gateway", main)
