"""Reports, rows, seconds and fakes for tests of metrics and alerts."""

import msgspec

from metrics_svc.aggregation.aggregator import SecondSnapshot
from metrics_svc.aggregation.rows import FLEET, LATENCY, Row
from services.bus.errors import Unavailable
from services.latency_sketch import LatencySketch
from services.wire.events import MetricsReport

T0 = 1_700_000_040  # a second that begins a minute
NEXT_SEQ = iter(range(1, 1_000_000_000))


def report(source: str = "gw-1", kind: str = "gateway", **fields: object) -> MetricsReport:
    """Return a valid report; `fields` replace its fields. Each has its own sequence number."""
    defaults: dict[str, object] = {"boot": "b", "seq": next(NEXT_SEQ), "timestamp": T0 * 1000}
    return MetricsReport(source=source, kind=kind, **(defaults | fields))  # type: ignore[arg-type]


def fleet(second: int, latencies: list[float] | None = None, **values: float) -> SecondSnapshot:
    """Return a closed second in which the fleet has these values."""
    histograms = {LATENCY: LatencySketch(latencies)} if latencies else {}
    return SecondSnapshot(second, {FLEET: Row.of_second(second, values, histograms)}, {})


def of_sources(second: int, **sources: dict[str, float]) -> SecondSnapshot:
    """Return a closed second with one row per source; `_` in a keyword stands for `-`."""
    rows = {name.replace("_", "-"): Row.of_second(second, values) for name, values in sources.items()}
    return SecondSnapshot(second, {FLEET: Row.of_second(second, {})} | rows, {})


class ManualTime:
    """A clock that only advances on request: wall time and monotonic time together."""

    def __init__(self, now: float = float(T0)) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now


class RecordingBus:
    """A fake bus: records published messages, or refuses them while `down`."""

    def __init__(self) -> None:
        self.published: list[tuple[str, bytes]] = []
        self.down = False

    def publish(self, subject: str, payload: bytes) -> None:
        if self.down:
            raise Unavailable("the bus is down")
        self.published.append((subject, payload))

    async def flush(self) -> None:
        if self.down:
            raise Unavailable("the bus is down")

    def on(self, subject: str) -> list[bytes]:
        """Return what was published on a subject."""
        return [payload for published_on, payload in self.published if published_on == subject]


class Message:
    """A bus message as far as its receivers look."""

    def __init__(self, event: object, subject: str = "") -> None:
        self.subject = subject
        self.data = event if isinstance(event, bytes) else msgspec.json.encode(event)
