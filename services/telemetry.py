"""Every Prometheus metric, declared once: its name, kind, labels and meaning.

`docs/metrics.md` is generated from `MetricName`. Use: `counter(MetricName.LOG_LINES).labels("error").inc()`. Labels have
few values by construction (codes, kinds): never users, rooms or addresses.
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


_FAST_S = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25)


class MetricName(Enum):
    """All metrics of all processes."""

    BUILD = _gauge("tidings_build_info", "1, labelled with service and version.", "service", "version")
    READY = _gauge("tidings_ready", "1 while a readiness check of the process succeeds, else 0.", "check")
    BUS_PUBLISHES = _counter(
        "tidings_bus_publishes_total",
        "Publishes to the bus: `stored` by a stream, `not_stored` by one, `refused` before sending.",
        "outcome",
    )
    BUS_FAULTS = _counter("tidings_bus_faults_total", "Faults between the process and the bus.", "fault")
    LOG_LINES = _counter("tidings_log_lines_total", "Log lines written.", "level")
    LOG_LINES_DROPPED = _counter(
        "tidings_log_lines_dropped_total", "Log lines that did not reach the log stream."
    )
    GATEWAY_CONNECTIONS = _gauge("tidings_gateway_connections", "Open WebSocket connections.")
    GATEWAY_SSE_STREAMS = _gauge("tidings_gateway_sse_streams", "Open SSE streams.")
    GATEWAY_ROOMS = _gauge("tidings_gateway_rooms", "Rooms with members on this gateway.")
    GATEWAY_USERS = _gauge("tidings_gateway_users", "Users with connections on this gateway.")
    GATEWAY_DRAINING = _gauge("tidings_gateway_draining", "1 while the gateway drains.")
    GATEWAY_MESSAGES_IN = _counter("tidings_gateway_messages_in_total", "Messages received from clients.")
    GATEWAY_MESSAGES_OUT = _counter(
        "tidings_gateway_messages_out_total", "Messages delivered to clients by fan-out."
    )
    GATEWAY_BYTES_OUT = _counter("tidings_gateway_bytes_out_total", "Bytes delivered to clients by fan-out.")
    GATEWAY_REQUESTS = _counter("tidings_gateway_requests_total", "Messages and HTTP requests answered.")
    GATEWAY_SLOW_CLIENTS = _counter("tidings_gateway_slow_clients_total", "Slow clients disconnected.")
    GATEWAY_ERRORS = _counter("tidings_gateway_errors_total", "Requests that failed with an internal error.")
    GATEWAY_DROPPED = _counter(
        "tidings_gateway_dropped_total", "Writes dropped because a slow client's buffer was full."
    )
    GATEWAY_LATENCY = _histogram(
        "tidings_gateway_request_seconds", "Time from a request to its answer.", *_FAST_S, 0.5, 1.0, 2.5
    )
    GATEWAY_REFUSALS = _counter("tidings_gateway_refusals_total", "Requests refused, by error code.", "code")
    GATEWAY_LIMITED = _counter(
        "tidings_gateway_limited_total", "Requests and connections over a limit, by limit.", "limit"
    )
    CONNECTION_FAULTS = _counter(
        "tidings_gateway_connection_faults_total",
        "Connections that failed in a loop over all connections, by loop. The others were served.",
        "loop",
    )
    GATEWAY_RECOVERIES = _counter(
        "tidings_gateway_recoveries_total",
        "Joins and subscriptions with a position, by verdict. All but `recovered` answer `recovered: false`.",
        "verdict",
    )
    GATEWAY_STREAM_DIFFERS = _gauge(
        "tidings_gateway_stream_differs",
        "1 where a stream differs from this gateway's settings; `tidings streams` shows how.",
        "stream",
    )
    GATEWAY_UNEXPECTED = _counter(
        "tidings_gateway_unexpected_messages_total",
        "Messages dropped because they do not belong on their subject on the bus, such as one that no stream stored.",
    )
    GATEWAY_CONTROL_ORDERS = _counter(
        "tidings_gateway_control_orders_total",
        "Orders of the server API about connections: `join`, `remove`, `disconnect`, `trace`.",
        "order",
    )
    METRICS_REPORTS = _counter(
        "tidings_metrics_reports_total", "Metrics reports accepted, at least in part.", "kind"
    )
    METRICS_REFUSED = _counter(
        "tidings_metrics_refused_total", "Metrics reports refused, or parts of them.", "reason"
    )
    METRICS_REPORTS_LOST = _counter(
        "tidings_metrics_reports_lost_total", "Metrics reports missing between two that arrived."
    )
    METRICS_SOURCES = _gauge("tidings_metrics_sources", "Known sources of metrics.")
    METRICS_LEADER = _gauge("tidings_metrics_leader", "1 in the replica that ticks, else 0.")
    METRICS_TICKS = _counter("tidings_metrics_ticks_total", "Seconds this replica tried to write.", "outcome")
    METRICS_TICK_DELAY = _histogram(
        "tidings_metrics_tick_delay_seconds",
        "Time from the end of a second to its record on the bus.",
        *_FAST_S[2:],
        0.5,
        1.0,
        3.0,
    )
    METRICS_UNPUBLISHED = _counter(
        "tidings_metrics_unpublished_total", "Stored records that could not be published."
    )
    METRICS_SECONDS_DROPPED = _counter(
        "tidings_metrics_seconds_dropped_total",
        "Seconds that no replica wrote: the store was unavailable for too long, or this replica was suspended.",
    )
    METRICS_RULES_BAD = _gauge(
        "tidings_metrics_rules_bad", "1 while the rules file is invalid and older rules are in force."
    )
    ALERTS_ANNOUNCED = _counter(
        "tidings_alerts_announced_total", "Alerts raised, changed and resolved.", "effect"
    )
    ALERTS_LIMITED = _gauge(
        "tidings_alerts_limited", "Alerts that do not fire because their rule has reached its limit."
    )
    NOTIFICATIONS = _counter(
        "tidings_notifications_total", "Attempts to notify receivers.", "receiver", "outcome"
    )
    NOTIFY_RECEIVER_UP = _gauge(
        "tidings_notify_receiver_up",
        "1 while a receiver accepts notifications, as the replica that ticks sees it.",
        "receiver",
    )
    LOG_STREAM_LINES = _counter(
        "tidings_log_stream_lines_total", "Lines of the fleet's log stream.", "outcome"
    )
    AGENT_REPORTS = _counter("tidings_agent_reports_total", "Reports of the system agent.", "outcome")
    PRESENCE_BATCHES = _counter(
        "tidings_presence_batches_total", "Batches of gateways, by outcome.", "outcome"
    )
    PRESENCE_APPLY_SECONDS = _histogram(
        "tidings_presence_apply_seconds", "Time to apply a batch.", *_FAST_S, 1.0
    )
    PRESENCE_CHANGES = _counter(
        "tidings_presence_changes_total", "Presence changes: online, offline, status, custom data."
    )
    PRESENCE_UNPUBLISHED = _counter(
        "tidings_presence_unpublished_total", "Messages with presence changes that could not be published."
    )
    PRESENCE_REPUBLISHED = _counter(
        "tidings_presence_republished_total",
        "Sets of changes published again because their publication was not confirmed in time.",
    )
    PRESENCE_CORRECTED = _counter(
        "tidings_presence_corrected_total",
        "Presence counts that an audit corrected. Please report it: this is a bug.",
    )
    PRESENCE_HOOKS = _counter(
        "tidings_presence_webhook_events_total",
        "Webhook events: delivered, refused by the receiver (4xx), or dropped because too many waited.",
        "outcome",
    )
    PRESENCE_HOOK_FAULTS = _counter(
        "tidings_presence_webhook_faults_total", "Failed posts to webhooks.", "reason"
    )
    BREAKER_STATE = _gauge(
        "tidings_breaker_state", "Circuit breaker of a service: 0 closed, 1 half open, 2 open.", "service"
    )
    BREAKER_REFUSED = _counter(
        "tidings_breaker_refused_total", "Requests that an open breaker answered `unavailable`.", "service"
    )
    HOOK_REQUESTS = _counter(
        "tidings_hook_requests_total",
        "Requests to the application, by hook and what came of them: `answered`, `refused`, `cached`, or why there is no answer.",
        "hook",
        "outcome",
    )
    HOOK_DURATION = Declaration(
        "tidings_hook_duration_seconds",
        "histogram",
        "From a request to the application's answer, with the wait for a free connection.",
        ("hook",),
        (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0),
    )
    HOOK_BREAKER_OPEN = _gauge(
        "tidings_hook_breaker_open",
        "1 while the application is not asked because it has not answered lately.",
    )
    HOOK_WAITING = _gauge(
        "tidings_hook_waiting", "Requests to the application that wait for a free connection."
    )
    RPC_REQUESTS = _counter(
        "tidings_rpc_requests_total",
        "Calls of clients, by outcome: `ok`, `refused` by the application, or why there is no answer.",
        "outcome",
    )
    RPC_DURATION = _histogram(
        "tidings_rpc_duration_seconds",
        "Time from a client's call to the application's answer.",
        *_FAST_S,
        0.5,
        1.0,
        2.5,
        5.0,
    )
    PRESENCE_STORE_FAULTS = _counter(
        "tidings_presence_store_faults_total", "Store operations without an answer."
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
