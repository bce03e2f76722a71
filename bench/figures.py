"""Every figure of the cases: its label, its format, and whether less is better."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Figure:
    """`lower`: whether less is better; None for figures that only explain others. A `code` is a number without a size."""

    label: str
    lower: bool | None = None
    percent: bool = False
    code: bool = False

    def text(self, value: float) -> str:
        """Return a value for tables."""
        if self.code:
            return f"{value:.0f}"
        if self.percent:
            return f"{value:.0%}"
        if abs(value) >= 100:
            return f"{value:,.0f}"
        return f"{value:.3g}" if value % 1 else f"{value:.0f}"


FIGURES = {
    "deliveries_per_s": Figure("deliveries/s", lower=False),
    "cpu_us_per_delivery": Figure("CPU µs per delivery", lower=True),
    "broker_us_per_delivery": Figure("brokers' µs per delivery"),
    "messages_per_s": Figure("messages/s", lower=False),
    "cpu_us_per_message": Figure("CPU µs per message", lower=True),
    "broker_us_per_message": Figure("brokers' µs per message"),
    "acks_per_s": Figure("acknowledged/s", lower=False),
    "cpu_us_per_ack": Figure("CPU µs per acknowledgement", lower=True),
    "broker_us_per_ack": Figure("brokers' µs per acknowledgement"),
    "connects_per_s": Figure("connects/s", lower=False),
    "cpu_us_per_connect": Figure("CPU µs per connect", lower=True),
    "broker_us_per_connect": Figure("brokers' µs per connect"),
    "kib_per_connection": Figure("KiB per connection", lower=True),
    "reconnects_per_s": Figure("reconnects/s", lower=False),
    "seconds_until_all_back": Figure("seconds until all are back", lower=True),
    "cpu_us_per_reconnect": Figure("CPU µs per reconnect", lower=True),
    "kib_per_connection_after": Figure("KiB per connection afterwards", lower=True),
    "not_recovered": Figure("not recovered", lower=True),
    "p50_ms": Figure("p50 ms", lower=True),
    "p99_ms": Figure("p99 ms", lower=True),
    "p999_ms": Figure("p99.9 ms", lower=True),
    "p99_before_ms": Figure("p99 ms while it reads"),
    "p99_ratio": Figure("others' p99, times that before", lower=True),
    "memory_growth_mb": Figure("memory grown, MB", lower=True),
    "memory_growth_before_mb": Figure("memory grown while it reads, MB"),
    "close_code": Figure("close code", code=True),
    "bus_messages": Figure("bus messages to gateways, per message"),
    "server_utilisation": Figure("server's core", percent=True),
    "load_utilisation": Figure("load's core", percent=True),
    "lost": Figure("lost", lower=True),
}
