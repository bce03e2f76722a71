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


class MetricName(Enum):
    """All metrics of all processes."""

    BUILD = Declaration("tidings_build_info", "gauge", "1, labelled with what runs.", ("service", "version"))
    READY = Declaration(
        "tidings_ready", "gauge", "1 while a readiness check of the process holds, else 0.", ("check",)
    )
    BUS_PUBLISHES = Declaration(
        "tidings_bus_publishes_total",
        "counter",
        "Publishes to the bus: `stored` by a stream, `not_stored` although asked for, `refused` before they left.",
        ("outcome",),
    )
    BUS_FAULTS = Declaration(
        "tidings_bus_faults_total",
        "counter",
        "What went wrong between the process and the bus.",
        ("fault",),
    )
    LOG_LINES = Declaration("tidings_log_lines_total", "counter", "Log lines written.", ("level",))
    LOG_LINES_DROPPED = Declaration(
        "tidings_log_lines_dropped_total", "counter", "Log lines that did not reach the log stream."
    )
    GATEWAY_CONNECTIONS = Declaration(
        "tidings_gateway_connections", "gauge", "WebSocket connections open now."
    )
    GATEWAY_SSE_STREAMS = Declaration("tidings_gateway_sse_streams", "gauge", "SSE streams open now.")
    GATEWAY_ROOMS = Declaration("tidings_gateway_rooms", "gauge", "Rooms with members on this gateway.")
    GATEWAY_USERS = Declaration("tidings_gateway_users", "gauge", "Users with connections on this gateway.")
    GATEWAY_DRAINING = Declaration(
        "tidings_gateway_draining", "gauge", "1 while the gateway sends its clients away."
    )
    GATEWAY_MESSAGES_IN = Declaration(
        "tidings_gateway_messages_in_total", "counter", "Messages received from clients."
    )
    GATEWAY_MESSAGES_OUT = Declaration(
        "tidings_gateway_messages_out_total", "counter", "Messages delivered to clients by fan-out."
    )
    GATEWAY_BYTES_OUT = Declaration(
        "tidings_gateway_bytes_out_total", "counter", "Bytes delivered to clients by fan-out."
    )
    GATEWAY_REQUESTS = Declaration(
        "tidings_gateway_requests_total", "counter", "Messages and HTTP requests answered."
    )
    GATEWAY_SLOW_CLIENTS = Declaration(
        "tidings_gateway_slow_clients_total", "counter", "Clients sent away for reading too slowly."
    )
    GATEWAY_ERRORS = Declaration(
        "tidings_gateway_errors_total", "counter", "Requests that failed by our fault."
    )
    GATEWAY_DROPPED = Declaration(
        "tidings_gateway_dropped_total", "counter", "Writes that a slow client had no room for."
    )
    GATEWAY_LATENCY = Declaration(
        "tidings_gateway_request_seconds",
        "histogram",
        "From a request to its answer.",
        buckets=(0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5),
    )
    GATEWAY_REFUSALS = Declaration(
        "tidings_gateway_refusals_total", "counter", "Requests refused, by error code.", ("code",)
    )
    GATEWAY_LIMITED = Declaration(
        "tidings_gateway_limited_total", "counter", "What met a limit, by the limit's name.", ("limit",)
    )
    CONNECTION_FAULTS = Declaration(
        "tidings_gateway_connection_faults_total",
        "counter",
        "Connections that a loop of the gateway failed with, by the loop; the others had their turn.",
        ("loop",),
    )
    GATEWAY_RECOVERIES = Declaration(
        "tidings_gateway_recoveries_total",
        "counter",
        "Joins and subscriptions with a position, by what came of them; all but `recovered` answer `recovered: false`.",
        ("verdict",),
    )
    GATEWAY_STREAM_DIFFERS = Declaration(
        "tidings_gateway_stream_differs",
        "gauge",
        "1 where a stream in force is another than the settings of this gateway ask for; `tidings streams` says what.",
        ("stream",),
    )
    GATEWAY_UNEXPECTED = Declaration(
        "tidings_gateway_unexpected_messages_total",
        "counter",
        "Messages on the bus that do not belong on their subject, such as one that no stream stored; dropped.",
    )
    METRICS_REPORTS = Declaration(
        "tidings_metrics_reports_total", "counter", "Metrics reports taken, at least in part.", ("kind",)
    )
    METRICS_REFUSED = Declaration(
        "tidings_metrics_refused_total",
        "counter",
        "Metrics reports, or parts of one, not taken.",
        ("reason",),
    )
    METRICS_REPORTS_LOST = Declaration(
        "tidings_metrics_reports_lost_total", "counter", "Metrics reports missing between two that came."
    )
    METRICS_SOURCES = Declaration("tidings_metrics_sources", "gauge", "Sources of metrics remembered.")
    METRICS_LEADER = Declaration("tidings_metrics_leader", "gauge", "1 in the replica that ticks, else 0.")
    METRICS_TICKS = Declaration(
        "tidings_metrics_ticks_total", "counter", "Seconds this replica tried to write.", ("outcome",)
    )
    METRICS_TICK_DELAY = Declaration(
        "tidings_metrics_tick_delay_seconds",
        "histogram",
        "From the end of a second to its record on the bus.",
        buckets=(0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 3.0),
    )
    METRICS_UNPUBLISHED = Declaration(
        "tidings_metrics_unpublished_total", "counter", "Records stored that the bus did not take."
    )
    METRICS_SECONDS_DROPPED = Declaration(
        "tidings_metrics_seconds_dropped_total",
        "counter",
        "Seconds that no replica wrote: the store was away for too long, or this replica was suspended.",
    )
    METRICS_RULES_BAD = Declaration(
        "tidings_metrics_rules_bad", "gauge", "1 while the rules file is wrong and older rules hold."
    )
    ALERTS_ANNOUNCED = Declaration(
        "tidings_alerts_announced_total", "counter", "Alerts raised, changed and resolved.", ("effect",)
    )
    ALERTS_LIMITED = Declaration(
        "tidings_alerts_limited",
        "gauge",
        "Alerts that do not fire because their rule has as many as its limit.",
    )
    NOTIFICATIONS = Declaration(
        "tidings_notifications_total", "counter", "Attempts to notify receivers.", ("receiver", "outcome")
    )
    NOTIFY_RECEIVER_UP = Declaration(
        "tidings_notify_receiver_up",
        "gauge",
        "1 while a receiver takes notifications, as the replica that ticks knows.",
        ("receiver",),
    )
    LOG_STREAM_LINES = Declaration(
        "tidings_log_stream_lines_total", "counter", "Lines of the fleet's log stream.", ("outcome",)
    )
    AGENT_REPORTS = Declaration(
        "tidings_agent_reports_total", "counter", "Reports of the system agent.", ("outcome",)
    )
    PRESENCE_BATCHES = Declaration(
        "tidings_presence_batches_total",
        "counter",
        "Batches of gateways, by what became of them.",
        ("outcome",),
    )
    PRESENCE_APPLY_SECONDS = Declaration(
        "tidings_presence_apply_seconds",
        "histogram",
        "Time to apply a batch.",
        buckets=(0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0),
    )
    PRESENCE_CHANGES = Declaration(
        "tidings_presence_changes_total", "counter", "Changes of who is online, with which status and data."
    )
    PRESENCE_UNPUBLISHED = Declaration(
        "tidings_presence_unpublished_total", "counter", "Changes that the bus did not take."
    )
    PRESENCE_REPUBLISHED = Declaration(
        "tidings_presence_republished_total",
        "counter",
        "Steps published again because their publication was not confirmed in time.",
    )
    PRESENCE_CORRECTED = Declaration(
        "tidings_presence_corrected_total",
        "counter",
        "Counts of presence that an audit found wrong, and corrected. Report it: it is a fault of ours.",
    )
    PRESENCE_HOOKS = Declaration(
        "tidings_presence_webhook_events_total",
        "counter",
        "Events for webhooks: delivered, refused by the receiver (4xx), or dropped because too many waited.",
        ("outcome",),
    )
    PRESENCE_HOOK_FAULTS = Declaration(
        "tidings_presence_webhook_faults_total",
        "counter",
        "Posts to webhooks that failed.",
        ("reason",),
    )
    BREAKER_STATE = Declaration(
        "tidings_breaker_state",
        "gauge",
        "Circuit breaker before a service: 0 closed, 1 half open, 2 open.",
        ("service",),
    )
    BREAKER_REFUSED = Declaration(
        "tidings_breaker_refused_total",
        "counter",
        "Requests answered `unavailable` at once by an open breaker.",
        ("service",),
    )
    PRESENCE_STORE_FAULTS = Declaration(
        "tidings_presence_store_faults_total", "counter", "Operations that the store did not answer."
    )
    PRESENCE_USERS = Declaration("tidings_presence_users", "gauge", "Users online, in the whole deployment.")
    PRESENCE_CONNECTIONS = Declaration(
        "tidings_presence_connections", "gauge", "Connections of all gateways, in the whole deployment."
    )
    PRESENCE_ROOMS = Declaration(
        "tidings_presence_rooms", "gauge", "Rooms with members, in the whole deployment."
    )
    PRESENCE_GATEWAYS = Declaration(
        "tidings_presence_gateways", "gauge", "Gateways with a lease, in the whole deployment."
    )


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
