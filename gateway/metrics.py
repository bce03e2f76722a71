"""What this gateway says of itself: to metrics_svc each second, to `/api/gateways` when asked, to Prometheus."""

import asyncio
import math
import os
import time
from bisect import bisect_left
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Sized
from itertools import accumulate
from typing import NamedTuple, Protocol

import msgspec
import psutil
import structlog
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

from gateway.delivery.counters import Counters
from services.bus.client import Bus
from services.bus.errors import BusError
from services.bus.streams import DurableLog
from services.latency_sketch import LatencySketch
from services.settings import Settings
from services.telemetry import MetricName
from services.wire.events import MetricsReport
from services.wire.records import UNSET, GatewayStats

log = structlog.get_logger(__name__)

_INTERVAL_S = 1.0
_PHASE = 0.5
_KEPT_S = 3.0
# Reported even when nothing was counted: that they are nought is worth a chart.
_ALWAYS = frozenset(
    ("requests", "errors", "messages_in", "messages_out", "bytes_out", "slow_clients", "dropped")
)

Totals = Counter[str]


class Measured(NamedTuple):
    """What was counted in one interval that ended at `at`."""

    at: float
    counts: Totals
    latency: LatencySketch


class Reported(Protocol):
    """The gateway, as its reports see it."""

    bus: Bus
    settings: Settings
    instance: str
    boot: str
    started_at: int
    counters: Counters
    draining: bool

    @property
    def durable_logs(self) -> Iterable[DurableLog]:
        """All streams that it reads and writes."""

    @property
    def rooms(self) -> Sized:
        """Those with members here."""

    @property
    def inboxes(self) -> Sized:
        """One for each user with connections here."""


_encode = msgspec.json.Encoder().encode


class Reporter:
    """Turns totals into rates, and reports them, once a second: in the middle of the second of the wall clock.

    metrics_svc files a report in the second in which it arrives, so one sent near a second's end would fall now in
    this one, now in the next. While the bus is away counts are kept for `_KEPT_S`: sent later they would look like a
    burst of now; the next report that leaves says how many did not (`reports_unsent`).
    """

    def __init__(self, gateway: Reported, wall: Callable[[], float] = time.time) -> None:
        self._gateway = gateway
        self._wall = wall
        self._process = psutil.Process(os.getpid())
        self._process.cpu_percent()  # the first call only starts the measurement
        self._seq = 0
        self._before = Totals()
        self._measured_at = wall()
        self._rates = Totals()
        self._cpu = 0.0
        self._memory = self._process.memory_info().rss
        self._unsent: deque[Measured] = deque()
        self._given_up = 0
        self.latency = LatencySketch()  # since the process started

    async def run(self) -> None:
        """Report until cancelled."""
        while True:
            await asyncio.sleep(until_middle(self._wall()))
            self.turn()

    def turn(self) -> None:
        """Measure and report once."""
        self._measure()
        self._report()

    def stats(self) -> GatewayStats:
        """Return how this gateway is doing."""
        gateway, counters = self._gateway, self._gateway.counters
        rates = self._rates
        return GatewayStats(
            gateway=gateway.instance,
            boot=gateway.boot,
            started_at=gateway.started_at,
            connections=counters.connections,
            sse_streams=counters.sse_streams,
            rooms=len(gateway.rooms),
            users=len(gateway.inboxes),
            memory=self._memory,
            cpu=self._cpu,
            messages_in=rates["messages_in"],
            messages_out=rates["messages_out"],
            bytes_out=rates["bytes_out"],
            errors=rates["errors"],
            slow_clients=counters.slow_clients,
            draining=gateway.draining,
        )

    def _measure(self) -> None:
        counters, now = self._gateway.counters, self._wall()
        totals = totals_of(counters)
        counts = Totals({name: total - self._before[name] for name, total in totals.items()})
        passed_s = max(0.001, now - self._measured_at)
        self._rates = Totals({name: count / passed_s for name, count in counts.items()})
        self._before, self._measured_at = totals, now
        self._unsent.append(Measured(now, counts, counters.latency))
        self.latency.merge(counters.latency)
        counters.latency = LatencySketch()
        while self._unsent[0].at < now - _KEPT_S:
            self._unsent.popleft()
            self._given_up += 1
        self._cpu = self._process.cpu_percent()
        self._memory = self._process.memory_info().rss

    def _report(self) -> None:
        gateway, stats = self._gateway, self.stats()
        counts, latency = Totals(), LatencySketch()
        for measured in self._unsent:
            counts.update(measured.counts)
            latency.merge(measured.latency)
        self._seq += 1
        named = {name: float(count) for name, count in counts.items() if count or name in _ALWAYS}
        report = MetricsReport(
            source=gateway.instance,
            kind="gateway",
            boot=gateway.boot,
            seq=self._seq,
            timestamp=int(self._wall() * 1000),
            requests=named.pop("requests"),
            errors=named.pop("errors"),
            latency=latency.to_wire() if latency.count else UNSET,
            counters=named | ({"reports_unsent": float(self._given_up)} if self._given_up else {}),
            gauges={
                "connections": float(stats.connections),
                "sse_streams": float(stats.sse_streams),
                "rooms": float(stats.rooms),
                "memory_bytes": float(stats.memory),
                "process_cpu": stats.cpu,
            },
        )
        try:
            gateway.bus.publish(gateway.settings.subjects.metrics_report, _encode(report))
        except BusError as fault:
            log.debug("metrics report kept for later", reason=str(fault))
            return
        self._unsent.clear()
        self._given_up = 0


def until_middle(now: float) -> float:
    """Return the seconds from `now` to the next middle of a second."""
    due = math.floor(now) + _PHASE
    return (due if due > now else due + _INTERVAL_S) - now


def totals_of(counters: Counters) -> Totals:
    """Return what was counted since the process started, by the names of metrics.

    Refusals are `refused.CODE`, what met a limit `limited.NAME`, and messages that a slow client was not sent any
    more `dropped`: the client is sent away, and recovers them when it is back.
    """
    totals = Totals(
        requests=counters.requests,
        errors=counters.errors,
        messages_in=counters.messages_in,
        messages_out=counters.messages_out,
        bytes_out=counters.bytes_out,
        slow_clients=counters.slow_clients,
        dropped=counters.dropped,
    )
    totals.update({f"refused.{code}": count for code, count in counters.refusals.items()})
    totals.update({f"limited.{name}": count for name, count in counters.limited.items()})
    return totals


class GatewayCollector(Collector):
    """Prometheus metrics read from the counters when scraped: nothing is counted twice on the hot path."""

    def __init__(self, gateway: Reported, reporter: Reporter) -> None:
        self._gateway = gateway
        self._reporter = reporter

    def collect(self) -> Iterator[Metric]:
        """Yield all families."""
        counters, gateway = self._gateway.counters, self._gateway
        for metric, value in (
            (MetricName.GATEWAY_CONNECTIONS, counters.connections),
            (MetricName.GATEWAY_SSE_STREAMS, counters.sse_streams),
            (MetricName.GATEWAY_ROOMS, len(gateway.rooms)),
            (MetricName.GATEWAY_USERS, len(gateway.inboxes)),
            (MetricName.GATEWAY_DRAINING, int(gateway.draining)),
        ):
            yield GaugeMetricFamily(metric.value.name, metric.value.help, value=value)
        for metric, value in (
            (MetricName.GATEWAY_MESSAGES_IN, counters.messages_in),
            (MetricName.GATEWAY_MESSAGES_OUT, counters.messages_out),
            (MetricName.GATEWAY_BYTES_OUT, counters.bytes_out),
            (MetricName.GATEWAY_REQUESTS, counters.requests),
            (MetricName.GATEWAY_SLOW_CLIENTS, counters.slow_clients),
            (MetricName.GATEWAY_ERRORS, counters.errors),
            (MetricName.GATEWAY_DROPPED, counters.dropped),
            (MetricName.GATEWAY_UNEXPECTED, counters.unexpected),
        ):
            yield CounterMetricFamily(metric.value.name, metric.value.help, value=value)
        yield _latency_family(self._reporter.latency)
        declared = MetricName.GATEWAY_REFUSALS.value
        refusals = CounterMetricFamily(declared.name, declared.help, labels=declared.labels)
        for code, count in sorted(counters.refusals.items()):
            refusals.add_metric([code], count)
        yield refusals
        declared = MetricName.GATEWAY_LIMITED.value
        limited = CounterMetricFamily(declared.name, declared.help, labels=declared.labels)
        for name, count in sorted(counters.limited.items()):
            limited.add_metric([name], count)
        yield limited
        declared = MetricName.GATEWAY_RECOVERIES.value
        recoveries = CounterMetricFamily(declared.name, declared.help, labels=declared.labels)
        for verdict, count in sorted(counters.recoveries.items()):
            recoveries.add_metric([verdict], count)
        yield recoveries
        declared = MetricName.GATEWAY_STREAM_DIFFERS.value
        differs = GaugeMetricFamily(declared.name, declared.help, labels=declared.labels)
        for durable_log in gateway.durable_logs:
            differs.add_metric([durable_log.spec.name], int(bool(durable_log.lowered)))
        yield differs


def _latency_family(latency: LatencySketch) -> HistogramMetricFamily:
    """Return the sketch as the histogram that Prometheus can add up over gateways."""
    declared = MetricName.GATEWAY_LATENCY.value
    below = [0.0] * (len(declared.buckets) + 1)
    for ms, count in latency.weighted():
        below[bisect_left(declared.buckets, ms / 1000)] += count
    bounds = [str(bound) for bound in declared.buckets] + ["+Inf"]
    buckets = list(zip(bounds, accumulate(below), strict=True))
    return HistogramMetricFamily(declared.name, declared.help, buckets=buckets, sum_value=latency.sum / 1000)
