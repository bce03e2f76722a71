"""Input of stores of metrics in tests: seconds, alerts and their episodes."""

from metrics_svc.aggregation.packed import unpack_between
from metrics_svc.aggregation.rollups import SECONDS, SeriesRow, Tier
from metrics_svc.aggregation.rows import LATENCY, Row
from metrics_svc.alerts.instance import AlertInstance, ThresholdTimes
from metrics_svc.alerts.states import AlertState
from metrics_svc.store import MetricsStore
from services.latency_sketch import LatencySketch
from services.wire.records import UNSET, Alert, AlertLogEntry
from tests.support.metrics import T0

LONG_MS = 60_000


async def lead(store: MetricsStore, holder: str = "a") -> int:
    grant = await store.acquire(holder, LONG_MS)
    assert grant.term
    return grant.term


async def stored_rows(store: MetricsStore, series: str, tier: Tier, start: int, end: int) -> list[Row]:
    return unpack_between(await store.packed(series, tier, start, end), start, end)


def second(at: int, latencies: list[float] | None = None, series: str = "", **values: float) -> SeriesRow:
    histograms = {LATENCY: LatencySketch(latencies)} if latencies else {}
    return SeriesRow(series, SECONDS, Row.of_second(at, values, histograms))


def alert(severity: str = "critical", metric: str = "cpu", at: int = T0) -> Alert:
    return Alert(
        id=f"{metric}-alert",
        type=severity,  # type: ignore[arg-type]
        metric=metric,
        value=95.0,
        threshold=90.0,
        message="cpu is 95 %",
        timestamp=at * 1000,
    )


def firing(metric: str = "cpu", at: int = T0) -> AlertInstance:
    return AlertInstance(
        metric,
        state=AlertState.FIRING,
        critical=ThresholdTimes(over_since=at * 1000),
        started_at=at * 1000,
        alert=alert(metric=metric, at=at),
    )


def entry(at: int, ended: int | None = None, metric: str = "cpu") -> AlertLogEntry:
    raised = alert(metric=metric, at=at)
    return AlertLogEntry(
        id=raised.id,
        type=raised.type,
        metric=metric,
        value=raised.value,
        threshold=raised.threshold,
        message=raised.message,
        timestamp=raised.timestamp,
        state="firing" if ended is None else "resolved",
        started_at=at * 1000,
        ended_at=UNSET if ended is None else ended * 1000,
    )
