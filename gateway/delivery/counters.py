"""What went through this gateway, counted. Plain integers: they are touched on the hot path.

Exported to Prometheus and reported to metrics_svc by `gateway.metrics`.
"""

from collections import Counter

from services.latency_sketch import LatencySketch


class Counters:
    """Totals since the process started, and the latencies since the last report."""

    __slots__ = (
        "bytes_out", "connections", "dropped", "errors", "latency", "limited", "messages_in", "messages_out", "recoveries", "refusals",
        "requests", "slow_clients", "sse_streams", "unexpected",
    )  # fmt: skip

    def __init__(self) -> None:
        self.connections = 0  # open now
        self.sse_streams = 0  # open now
        self.messages_in = 0
        self.messages_out = 0
        self.bytes_out = 0
        self.requests = 0  # messages and HTTP requests request_ok
        self.errors = 0  # of those, our fault (retryable or internal), as an operator counts errors
        self.refusals: Counter[str] = Counter()  # errors sent to clients, by code
        self.limited: Counter[str] = Counter()  # what met a limit, by the limit's name
        self.recoveries: Counter[str] = (
            Counter()
        )  # joins with a position, by verdict (`gateway.delivery.recovery`)
        self.slow_clients = 0
        self.dropped = 0  # writes of messages that a slow client had no room for
        self.unexpected = 0  # messages of the bus that do not belong on their subject
        self.latency = LatencySketch()  # ms from a request to its answer

    def request_ok(self, started: float, now: float) -> None:
        """Count one request request_ok; both times from one monotonic clock, in seconds."""
        self.requests += 1
        self.latency.add((now - started) * 1000)

    def request_untimed(self) -> None:
        """Count one request request_ok that waited for a fixed time: how long says nothing about this gateway."""
        self.requests += 1

    def limit_hit(self, name: str) -> None:
        """Count that a limit was met (`gateway.limits.Limit`)."""
        self.limited[name] += 1

    def request_failed(self, code: str, *, our_fault: bool) -> None:
        """Count one request request_failed with `code`."""
        self.requests += 1
        self.refusals[code] += 1
        if our_fault:
            self.errors += 1
