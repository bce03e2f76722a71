"""Counters of this gateway. Plain integers, because the hot path increments them.

`gateway.metrics` exports them to Prometheus and reports them to metrics_svc.
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
        self.requests = 0  # messages and HTTP requests answered
        self.errors = 0  # those that failed by a fault of the server (retryable or internal)
        self.refusals: Counter[str] = Counter()  # errors sent to clients, by code
        self.limited: Counter[str] = Counter()  # limits reached, by the limit's name
        self.recoveries: Counter[str] = Counter()  # joins with a position, by recovery verdict
        self.slow_clients = 0
        self.dropped = 0  # writes of messages that exceeded a slow client's buffer
        self.unexpected = 0  # messages on the bus that do not belong on their subject
        self.latency = LatencySketch()  # ms from a request to its answer

    def request_ok(self, started: float, now: float) -> None:
        """Count an answered request. Both times are seconds of one monotonic clock."""
        self.requests += 1
        self.latency.add((now - started) * 1000)

    def request_untimed(self) -> None:
        """Count an answered request that always takes its full timeout: its latency means nothing."""
        self.requests += 1

    def request_failed(self, code: str, *, our_fault: bool) -> None:
        self.requests += 1
        self.refusals[code] += 1
        if our_fault:
            self.errors += 1

    def limit_hit(self, name: str) -> None:
        self.limited[name] += 1

    def totals(self) -> Counter[str]:
        """Return the totals since the process started, by metric name.

        Refusals are `refused.CODE`, limits reached `limited.NAME`. `dropped` are messages not sent to a slow client:
        it is disconnected, and recovers them when it reconnects.
        """
        totals = Counter(
            requests=self.requests,
            errors=self.errors,
            messages_in=self.messages_in,
            messages_out=self.messages_out,
            bytes_out=self.bytes_out,
            slow_clients=self.slow_clients,
            dropped=self.dropped,
        )
        totals.update({f"refused.{code}": count for code, count in self.refusals.items()})
        totals.update({f"limited.{name}": count for name, count in self.limited.items()})
        return totals
