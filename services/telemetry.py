"""Every Prometheus metric, declared once: its name, kind, labels and meaning.

`docs/metrics.md` is generated from `MetricName`, and a test compares the two. Ask for a metric where it is
used: `counter(MetricName.LOG_LINES).labels("error").inc()`. Labels have few values by construction (codes,
kinds): never users, rooms or addresses.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum
from functools import cache
from typing import Literal

from prometheus_client import CONTENT_TYPE_LATEST, REGISTRY, Counter, Gauge, Histogram, generate_latest

from services import __version__


@dataclass(frozen=True, slots=True)
class Declaration:
    """One metric as Prometheus sees it. Names follow its conventions: base units, `_total` on counters."""

    name: str
    kind: Literal["counter", "gauge", "histogram"]
    help: str
    labels: tuple[str, ...] = ()
    buckets: tuple[float, ...] = ()


def _counter(name: str, help_: str, *labels: str) -> Declaration:
    return Declaration(name, "counter", help_, labels)


def _gauge(name: str, help_: str, *labels: str) -> Declaration:
    return Declaration(name, "gauge", help_, labels)


def _histogram(name: str, help_: str, *buckets: float) -> Declaration:
    return Declaration(name, "histogram", help_, buckets=buckets)


class MetricName(Enum):
    """All metrics of all processes."""

    BUILD = _gauge("tidings_build_info", "1, labelled with what runs.", "service", "version")
    READY = _gauge("tidings_ready", "1 while a readiness check of the process holds, else 0.", "check")
    BUS_PUBLISHES = _counter(
        "tidings_bus_publishes_total",
        "Publishes to the bus: `stored` by a stream, `not_stored` although asked for, `refused` before they left.",
        "outcome",
    )
    BUS_FAULTS = _counter(
        "tidings_bus_faults_total", "What went wrong between the process and the bus.", "fault"
    )
    LOG_LINES = _counter("tidings_log_lines_total", "Log lines written.", "level")
    LOG_LINES_DROPPED = _counter(
        "tidings_log_lines_dropped_total", "Log lines that did not reach the log stream."
    )
    GATEWAY_CONNECTIONS = _gauge("tidings_gateway_connections", "WebSocket connections open now.")
    GATEWAY_SSE_STREAMS = _gauge("tidings_gateway_sse_streams", "SSE streams open now.")
    GATEWAY_ROOMS = _gauge("tidings_gateway_rooms", "Rooms with members on this gateway.")
    GATEWAY_USERS = _gauge("tidings_gateway_users", "Users with connections on this gateway.")
    GATEWAY_DRAINING = _gauge("tidings_gateway_draining", "1 while the gateway sends its clients away.")
    GATEWAY_MESSAGES_IN = _counter("tidings_gateway_messages_in_total", "Messages received from clients.")
    GATEWAY_MESSAGES_OUT = _counter(
        "tidings_gateway_messages_out_total", "Messages delivered to clients by fan-out."
    )
    GATEWAY_BYTES_OUT = _counter("tidings_gateway_bytes_out_total", "Bytes delivered to clients by fan-out.")
    GATEWAY_REQUESTS = _counter("tidings_gateway_requests_total", "Messages and HTTP requests answered.")
    GATEWAY_SLOW_CLIENTS = _counter(
        "tidings_gateway_slow_clients_total", "Clients sent away for reading too slowly."
    )
    GATEWAY_ERRORS = _counter("tidings_gateway_errors_total", "Requests that failed by our fault.")
    GATEWAY_DROPPED = _counter("tidings_gateway_dropped_total", "Writes that a slow client had no room for.")
    GATEWAY_LATENCY = _histogram(
        "tidings_gateway_request_seconds",
        "From a request to its answer.",
        0.001,
        0.0025,
        0.005,
        0.01,
        0.025,
        0.05,
        0.1,
        0.25,
        0.5,
        1.0,
        2.5,
    )
    GATEWAY_REFUSALS = _counter("tidings_gateway_refusals_total", "Requests refused, by error code.", "code")
    GATEWAY_LIMITED = _counter(
        "tidings_gateway_limited_total", "What met a limit, by the limit's name.", "limit"
    )
    CONNECTION_FAULTS = _counter(
        "tidings_gateway_connection_faults_total",
        "Connections that a loop of the gateway failed with, by the loop; the others had their turn.",
        "loop",
    )
    GATEWAY_RECOVERIES = _counter(
        "tidings_gateway_recoveries_total",
        "Joins and subscriptions with a position, by what came of them; all but `recovered` answer `recovered: false`.",
        "verdict",
    )
    GATEWAY_STREAM_DIFFERS = _gauge(
        "tidings_gateway_stream_differs",
        "1 where a stream in force is another than the settings of this gateway ask for; `tidings streams` says what.",
        "stream",
    )
    GATEWAY_UNEXPECTED = _counter(
        "tidings_gateway_unexpected_messages_total",
        "Messages on the bus that do not belong on their subject, such as one that no stream stored; dropped.",
    )
    METRICS_REPORTS = _counter(
        "tidings_metrics_reports_total", "Metrics reports taken, at least in part.", "kind"
    )
    METRICS_REFUSED = _counter(
        "tidings_metrics_refused_total", "Metrics reports, or parts of one, not taken.", "reason"
    )
    METRICS_REPORTS_LOST = _counter(
        "tidings_metrics_reports_lost_total", "Metrics reports missing between two that came."
    )
    METRICS_SOURCES = _gauge("tidings_metrics_sources", "Sources of metrics remembered.")
    METRICS_LEADER = _gauge("tidings_metrics_leader", "1 in the replica that ticks, else 0.")
    METRICS_TICKS = _counter("tidings_metrics_ticks_total", "Seconds this replica tried to write.", "outcome")
    METRICS_TICK_DELAY = _histogram(
        "tidings_metrics_tick_delay_seconds",
        "From the end of a second to its record on the bus.",
        0.005,
        0.01,
        0.025,
        0.05,
        0.1,
        0.25,
        0.5,
        1.0,
        3.0,
    )
    METRICS_UNPUBLISHED = _counter(
        "tidings_metrics_unpublished_total", "Records stored that the bus did not take."
    )
    METRICS_SECONDS_DROPPED = _counter(
        "tidings_metrics_seconds_dropped_total",
        "Seconds that no replica wrote: the store was away for too long, or this replica was suspended.",
    )
    METRICS_RULES_BAD = _gauge(
        "tidings_metrics_rules_bad", "1 while the rules file is wrong and older rules hold."
    )
    ALERTS_ANNOUNCED = _counter(
        "tidings_alerts_announced_total", "Alerts raised, changed and resolved.", "effect"
    )
    ALERTS_LIMITED = _gauge(
        "tidings_alerts_limited", "Alerts that do not fire because their rule has as many as its limit."
    )
    NOTIFICATIONS = _counter(
        "tidings_notifications_total", "Attempts to notify receivers.", "receiver", "outcome"
    )
    NOTIFY_RECEIVER_UP = _gauge(
        "tidings_notify_receiver_up",
        "1 while a receiver takes notifications, as the replica that ticks knows.",
        "receiver",
    )
    LOG_STREAM_LINES = _counter(
        "tidings_log_stream_lines_total", "Lines of the fleet's log stream.", "outcome"
    )
    AGENT_REPORTS = _counter("tidings_agent_reports_total", "Reports of the system agent.", "outcome")
    PRESENCE_BATCHES = _counter(
        "tidings_presence_batches_total", "Batches of gateways, by what became of them.", "outcome"
    )
    PRESENCE_APPLY_SECONDS = _histogram(
        "tidings_presence_apply_seconds",
        "Time to apply a batch.",
        0.001,
        0.0025,
        0.005,
        0.01,
        0.025,
        0.05,
        0.1,
        0.25,
        1.0,
    )
    PRESENCE_CHANGES = _counter(
        "tidings_presence_changes_total", "Changes of who is online, with which status and data."
    )
    PRESENCE_UNPUBLISHED = _counter(
        "tidings_presence_unpublished_total", "Changes that the bus did not take."
    )
    PRESENCE_REPUBLISHED = _counter(
        "tidings_presence_republished_total",
        "Steps published again because their publication was not confirmed in time.",
    )
    PRESENCE_CORRECTED = _counter(
        "tidings_presence_corrected_total",
        "Counts of presence that an audit found wrong, and corrected. Report it: it is a fault of ours.",
    )
    PRESENCE_HOOKS = _counter(
        "tidings_presence_webhook_events_total",
        "Events for webhooks: delivered, refused by the receiver (4xx), or dropped because too many waited.",
        "outcome",
    )
    PRESENCE_HOOK_FAULTS = _counter(
        "tidings_presence_webhook_faults_total", "Posts to webhooks that failed.", "reason"
    )
    BREAKER_STATE = _gauge(
        "tidings_breaker_state", "Circuit breaker before a service: 0 closed, 1 half open, 2 open.", "service"
    )
    BREAKER_REFUSED = _counter(
        "tidings_breaker_refused_total",
        "Requests answered `unavailable` at once by an open breaker.",
        "service",
    )
    PRESENCE_STORE_FAULTS = _counter(
        "tidings_presence_store_faults_total", "Operations that the store did not answer."
    )
    PRESENCE_USERS = _gauge("tidings_presence_users", "Users online, in the whole deployment.")
    PRESENCE_CONNECTIONS = _gauge(
        "tidings_presence_connections", "Connections of all gateways, in the whole deployment."
    )
    PRESENCE_ROOMS = _gauge("tidings_presence_rooms", "Rooms with members, in the whole deployment.")
    PRESENCE_GATEWAYS = _gauge("tidings_presence_gateways", "Gateways with a lease, in the whole deployment.")


@cache
def counter(metric: MetricName) -> Counter:
    """Return the counter declared by `metric`, the same one each time."""
    declared = _checked(metric, "counter")
    return Counter(declared.name, declared.help, declared.labels)


@cache
def gauge(metric: MetricName) -> Gauge:
    """Return the gauge declared by `metric`, the same one each time."""
    declared = _checked(metric, "gauge")
    return Gauge(declared.name, declared.help, declared.labels)


@cache
def histogram(metric: MetricName) -> Histogram:
    """Return the histogram declared by `metric`, the same one each time."""
    declared = _checked(metric, "histogram")
    buckets: Sequence[float] = declared.buckets or Histogram.DEFAULT_BUCKETS
    return Histogram(declared.name, declared.help, declared.labels, buckets=buckets)


def _checked(metric: MetricName, kind: str) -> Declaration:
    if metric.value.kind != kind:
        raise TypeError(f"{metric.name} is declared as a {metric.value.kind}")
    return metric.value


def announce_build(service: str) -> None:
    """Set the metric that says which version of which service this process is."""
    gauge(MetricName.BUILD).labels(service, __version__).set(1)


def exposition() -> tuple[bytes, str]:
    """Return all metrics of this process in Prometheus' text format, and its content type."""
    return generate_latest(REGISTRY), CONTENT_TYPE_LATEST
