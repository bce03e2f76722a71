"""What this gateway says of itself: to metrics_svc each second, to `/api/gateways` when asked, to Prometheus."""

import asyncio
import os
from collections.abc import Iterator
from typing import TYPE_CHECKING

import msgspec
import psutil
import structlog
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from services.bus.errors import BusError
from services.sketch import LatencySketch
from services.telemetry import MetricName
from services.wire.events import MetricsReport
from services.wire.records import UNSET, GatewayStats

if TYPE_CHECKING:
    from gateway.core import Gateway

log = structlog.get_logger(__name__)

_INTERVAL_S = 1.0
_encode = msgspec.json.Encoder().encode


class Reporter:
    """Turns totals into rates, once a second."""

    def __init__(self, gateway: "Gateway") -> None:
        self._gateway = gateway
        self._process = psutil.Process(os.getpid())
        self._process.cpu_percent()  # the first call only starts the measurement
        self._seq = 0
        self._before = (0, 0, 0, 0, 0)
        self._rates = (0.0, 0.0, 0.0, 0.0, 0.0)
        self._cpu = 0.0
        self._memory = self._process.memory_info().rss
        # Counts since the last report that left: what could not be sent goes into the next one.
        self._unsent_requests = 0
        self._unsent_errors = 0
        self._unsent_latency = LatencySketch()

    async def run(self) -> None:
        """Report until cancelled."""
        loop = asyncio.get_running_loop()
        due = loop.time()
        while True:
            due = max(due + _INTERVAL_S, loop.time())
            await asyncio.sleep(due - loop.time())
            self._measure()
            self._report()

    def stats(self) -> GatewayStats:
        """Return how this gateway is doing."""
        gateway, traffic = self._gateway, self._gateway.traffic
        messages_in, messages_out, bytes_out, _, errors = self._rates
        return GatewayStats(
            gateway=gateway.instance,
            boot=gateway.boot,
            started_at=gateway.started_at,
            connections=traffic.connections,
            sse_streams=traffic.sse_streams,
            rooms=len(gateway.rooms),
            users=len(gateway.inboxes),
            memory=self._memory,
            cpu=self._cpu,
            messages_in=messages_in,
            messages_out=messages_out,
            bytes_out=bytes_out,
            errors=errors,
            slow_clients=traffic.slow_clients,
            draining=gateway.draining,
        )

    def _measure(self) -> None:
        traffic = self._gateway.traffic
        now = (traffic.messages_in, traffic.messages_out, traffic.bytes_out, traffic.requests, traffic.errors)
        deltas = [after - before for after, before in zip(now, self._before, strict=True)]
        self._rates = (
            deltas[0] / _INTERVAL_S,
            deltas[1] / _INTERVAL_S,
            deltas[2] / _INTERVAL_S,
            deltas[3] / _INTERVAL_S,
            deltas[4] / _INTERVAL_S,
        )
        self._unsent_requests += deltas[3]
        self._unsent_errors += deltas[4]
        self._before = now
        self._unsent_latency.merge(traffic.latency)
        traffic.latency = LatencySketch()
        self._cpu = self._process.cpu_percent()
        self._memory = self._process.memory_info().rss

    def _report(self) -> None:
        gateway, stats = self._gateway, self.stats()
        self._seq += 1
        report = MetricsReport(
            source=gateway.instance,
            kind="gateway",
            boot=gateway.boot,
            seq=self._seq,
            timestamp=gateway.now_ms(),
            requests=self._unsent_requests,
            errors=self._unsent_errors,
            latency=self._unsent_latency.to_wire() if self._unsent_latency.count else UNSET,
            gauges={
                "connections": float(stats.connections),
                "sse_streams": float(stats.sse_streams),
                "rooms": float(stats.rooms),
                "memory_bytes": float(stats.memory),
                "process_cpu": stats.cpu,
                "messages_in": stats.messages_in,
                "messages_out": stats.messages_out,
                "bytes_out": stats.bytes_out,
                "slow_clients": float(stats.slow_clients),
            },
        )
        try:
            gateway.bus.publish(gateway.settings.subjects.metrics_report, _encode(report))
        except BusError as fault:
            log.debug("metrics report kept for later", reason=str(fault))
            return
        self._unsent_requests = self._unsent_errors = 0
        self._unsent_latency = LatencySketch()


class GatewayCollector(Collector):
    """Prometheus metrics read from the traffic counters when scraped: nothing is counted twice on the hot path."""

    def __init__(self, gateway: "Gateway") -> None:
        self._gateway = gateway

    def collect(self) -> Iterator[Metric]:
        """Yield all families."""
        traffic, gateway = self._gateway.traffic, self._gateway
        for metric, value in (
            (MetricName.GATEWAY_CONNECTIONS, traffic.connections),
            (MetricName.GATEWAY_SSE_STREAMS, traffic.sse_streams),
            (MetricName.GATEWAY_ROOMS, len(gateway.rooms)),
            (MetricName.GATEWAY_USERS, len(gateway.inboxes)),
            (MetricName.GATEWAY_DRAINING, int(gateway.draining)),
        ):
            yield GaugeMetricFamily(metric.value.name, metric.value.help, value=value)
        for metric, value in (
            (MetricName.GATEWAY_MESSAGES_IN, traffic.messages_in),
            (MetricName.GATEWAY_MESSAGES_OUT, traffic.messages_out),
            (MetricName.GATEWAY_BYTES_OUT, traffic.bytes_out),
            (MetricName.GATEWAY_REQUESTS, traffic.requests),
            (MetricName.GATEWAY_SLOW_CLIENTS, traffic.slow_clients),
        ):
            yield CounterMetricFamily(metric.value.name, metric.value.help, value=value)
        declared = MetricName.GATEWAY_REFUSALS.value
        refusals = CounterMetricFamily(declared.name, declared.help, labels=declared.labels)
        for code, count in sorted(traffic.refusals.items()):
            refusals.add_metric([code], count)
        yield refusals
