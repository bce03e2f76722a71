"""Metrics of this gateway: pushed to metrics_svc each second, read by `/api/gateways` and by Prometheus."""

import asyncio
import math
import os
import time
from bisect import bisect_left
from collections import Counter, defaultdict, deque
from collections.abc import Callable, Iterator, Sequence, Sized
from itertools import accumulate
from typing import NamedTuple

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
# Reported even when zero: a flat line is worth a chart.
_ALWAYS = frozenset(
    ("requests", "errors", "messages_in", "messages_out", "bytes_out", "slow_clients", "dropped")
)

_encode = msgspec.json.Encoder().encode


class Interval(NamedTuple):
    """Counts of one interval that ended at `at`."""

    at: float
    counts: Counter[str]
    latency: LatencySketch


class MetricsReporter(Collector):
    """Reports counts once a second, in the middle of the second of the wall clock.

    metrics_svc counts a report in the second in which it arrives: sent at a second's end it would arrive in either one.
    During an outage of the bus counts are kept for `_KEPT_S`; older ones would look like a burst of now. The next
    report has the number of dropped intervals (`reports_unsent`). Prometheus reads the same counters.
    """

    def __init__(
        self,
        bus: Bus,
        settings: Settings,
        instance: str,
        boot: str,
        counters: Counters,
        rooms: Sized,
        users: Sized,
        streams: Callable[[], Sequence[DurableLog]],
        draining: Callable[[], bool],
        wall: Callable[[], float] = time.time,
    ) -> None:
        self._bus = bus
        self._subject = settings.subjects.metrics_report
        self._instance = instance
        self._boot = boot
        self._counters = counters
        self._rooms = rooms
        self._users = users
        self._streams = streams
        self._draining = draining
        self._wall = wall
        self._started_at = int(wall() * 1000)
        self._process = psutil.Process(os.getpid())
        self._process.cpu_percent()  # the first call only starts the measurement
        self._seq = 0
        self._before: Counter[str] = Counter()
        self._measured_at = wall()
        self._rates: defaultdict[str, float] = defaultdict(float)
        self._cpu = 0.0
        self._memory = self._process.memory_info().rss
        self._unsent: deque[Interval] = deque()
        self._dropped = 0
        self._latency = LatencySketch()  # since the process started

    async def run(self) -> None:
        """Report until cancelled."""
        while True:
            await asyncio.sleep(seconds_to_mid_second(self._wall()))
            self.tick()

    def tick(self) -> None:
        """Measure and report once."""
        self._measure()
        self._report()

    def stats(self) -> GatewayStats:
        """Return the gateway's current figures."""
        counters, rates = self._counters, self._rates
        return GatewayStats(
            gateway=self._instance,
            boot=self._boot,
            started_at=self._started_at,
            connections=counters.connections,
            sse_streams=counters.sse_streams,
            rooms=len(self._rooms),
            users=len(self._users),
            memory=self._memory,
            cpu=self._cpu,
            slow_clients=counters.slow_clients,
            draining=self._draining(),
            **{name: rates[name] for name in ("messages_in", "messages_out", "bytes_out", "errors")},
        )

    def collect(self) -> Iterator[Metric]:
        """Yield all metric families."""
        counters = self._counters
        for metric, value in (
            (MetricName.GATEWAY_CONNECTIONS, counters.connections),
            (MetricName.GATEWAY_SSE_STREAMS, counters.sse_streams),
            (MetricName.GATEWAY_ROOMS, len(self._rooms)),
            (MetricName.GATEWAY_USERS, len(self._users)),
            (MetricName.GATEWAY_DRAINING, int(self._draining())),
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
        yield _latency_family(self._latency)
        for metric, by_label in (
            (MetricName.GATEWAY_REFUSALS, counters.refusals),
            (MetricName.GATEWAY_LIMITED, counters.limited),
            (MetricName.GATEWAY_RECOVERIES, counters.recoveries),
        ):
            family = CounterMetricFamily(metric.value.name, metric.value.help, labels=metric.value.labels)
            for label, count in sorted(by_label.items()):
                family.add_metric([label], count)
            yield family
        declared = MetricName.GATEWAY_STREAM_DIFFERS.value
        differs = GaugeMetricFamily(declared.name, declared.help, labels=declared.labels)
        for stream in self._streams():
            differs.add_metric([stream.spec.name], int(bool(stream.lowered)))
        yield differs

    def _measure(self) -> None:
        counters, now = self._counters, self._wall()
        totals = counters.totals()
        counts = Counter({name: total - self._before[name] for name, total in totals.items()})
        passed_s = max(0.001, now - self._measured_at)
        self._rates.update({name: count / passed_s for name, count in counts.items()})
        self._before, self._measured_at = totals, now
        self._unsent.append(Interval(now, counts, counters.latency))
        self._latency.merge(counters.latency)
        counters.latency = LatencySketch()
        while self._unsent[0].at < now - _KEPT_S:
            self._unsent.popleft()
            self._dropped += 1
        self._cpu = self._process.cpu_percent()
        self._memory = self._process.memory_info().rss

    def _report(self) -> None:
        stats = self.stats()
        counts, latency = Counter[str](), LatencySketch()
        for interval in self._unsent:
            counts.update(interval.counts)
            latency.merge(interval.latency)
        self._seq += 1
        named = {name: float(count) for name, count in counts.items() if count or name in _ALWAYS}
        report = MetricsReport(
            source=self._instance,
            kind="gateway",
            boot=self._boot,
            seq=self._seq,
            timestamp=int(self._wall() * 1000),
            requests=named.pop("requests"),
            errors=named.pop("errors"),
            latency=latency.to_wire() if latency.count else UNSET,
            counters=named | ({"reports_unsent": float(self._dropped)} if self._dropped else {}),
            gauges={
                "connections": float(stats.connections),
                "sse_streams": float(stats.sse_streams),
                "rooms": float(stats.rooms),
                "memory_bytes": float(stats.memory),
                "process_cpu": stats.cpu,
            },
        )
        try:
            self._bus.publish(self._subject, _encode(report))
        except BusError as fault:
            log.debug("metrics report kept for later", reason=str(fault))
            return
        self._unsent.clear()
        self._dropped = 0


def seconds_to_mid_second(now: float) -> float:
    """Return the seconds from `now` to the next middle of a second."""
    due = math.floor(now) + _PHASE
    return (due if due > now else due + _INTERVAL_S) - now


def _latency_family(latency: LatencySketch) -> HistogramMetricFamily:
    """Return the sketch as a histogram, which Prometheus can add up over gateways."""
    declared = MetricName.GATEWAY_LATENCY.value
    below = [0.0] * (len(declared.buckets) + 1)
    for ms, count in latency.weighted():
        below[bisect_left(declared.buckets, ms / 1000)] += count
    bounds = [str(bound) for bound in declared.buckets] + ["+Inf"]
    buckets = list(zip(bounds, accumulate(below), strict=True))
    return HistogramMetricFamily(declared.name, declared.help, buckets=buckets, sum_value=latency.sum / 1000)
