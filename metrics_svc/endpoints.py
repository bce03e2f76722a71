"""Requests about metrics and logs. Answers come from the store alone, so any replica can give them."""

from collections.abc import Awaitable, Callable
from typing import TypeVar

from metrics_svc.aggregation.rollups import SECONDS
from metrics_svc.aggregation.rows import FLEET, to_record
from metrics_svc.alerts.muting import BadWindow
from metrics_svc.alerts.rules import BadRules
from metrics_svc.history import BadQuery, query
from metrics_svc.leader_lease import FleetClock
from metrics_svc.log_stream import LEVELS
from metrics_svc.store import MAX_LOG_LINES, MetricsStore, MetricsStoreUnavailable, StoreLimitReached
from services.bus.rpc import RpcRefusal, Service
from services.wire.codes import ErrorCode
from services.wire.rpc import (
    LOGS_RECENT,
    METRICS_HISTORY,
    METRICS_SOURCES,
    METRICS_STATE,
    Empty,
    HistoryQuery,
    LogPage,
    LogQuery,
    MetricsHistory,
    MetricsState,
    SourceInfo,
    SourceList,
)

STATE_RECORDS = 100


RequestT = TypeVar("RequestT")
ReplyT = TypeVar("ReplyT")


def refusing(handler: Callable[[RequestT], Awaitable[ReplyT]]) -> Callable[[RequestT], Awaitable[ReplyT]]:
    """Wrap a handler so that invalid input and faults of the store become refusals with a code."""

    async def answer(request: RequestT) -> ReplyT:
        try:
            return await handler(request)
        except MetricsStoreUnavailable as fault:
            raise RpcRefusal(ErrorCode.UNAVAILABLE, "the metrics store is out of reach") from fault
        except (BadQuery, BadRules, BadWindow) as fault:
            raise RpcRefusal(ErrorCode.INVALID_FIELD, str(fault)) from fault
        except StoreLimitReached as fault:
            raise RpcRefusal(ErrorCode.CONFLICT, str(fault)) from fault

    return answer


class MetricsEndpoints:
    """Endpoints for metrics and logs."""

    def __init__(self, store: MetricsStore, clock: FleetClock) -> None:
        self._store = store
        self._clock = clock

    def serve(self, service: Service) -> None:
        """Register the endpoints with a service that has not started yet."""
        service.endpoint(METRICS_STATE, refusing(self.state))
        service.endpoint(METRICS_HISTORY, refusing(self.history))
        service.endpoint(METRICS_SOURCES, refusing(self.sources))
        service.endpoint(LOGS_RECENT, refusing(self.logs))

    async def state(self, _: Empty) -> MetricsState:
        """The last records and the active alerts: the snapshot of `metrics` and `alerts`."""
        rows = await self._store.newest(FLEET, STATE_RECORDS)
        alerts = await self._store.active()
        return MetricsState(
            history=[to_record(row, SECONDS.step_s, rollup=False) for row in rows], alerts=alerts
        )

    async def history(self, question: HistoryQuery) -> MetricsHistory:
        return await query(self._store, question, self._clock.now())

    async def sources(self, _: Empty) -> SourceList:
        """Series with reports within the last hour."""
        series = await self._store.series(int(self._clock.now()) - SECONDS.keep_s)
        return SourceList(
            sources=[
                SourceInfo(source=name, last_seen=(last + 1) * 1000) for name, last in series.items() if name
            ]
        )

    async def logs(self, question: LogQuery) -> LogPage:
        if question.level and question.level not in LEVELS:
            raise RpcRefusal(ErrorCode.INVALID_FIELD, f"`level` must be one of {', '.join(LEVELS)}")
        wanted = frozenset(LEVELS[LEVELS.index(question.level) :]) if question.level else None
        filtered = bool(question.source or wanted)
        read = MAX_LOG_LINES if filtered else min(question.limit, MAX_LOG_LINES)
        entries = await self._store.recent_logs(read)
        if filtered:
            entries = [
                entry
                for entry in entries
                if (not question.source or entry.source == question.source)
                and (wanted is None or entry.level in wanted)
            ]
        return LogPage(entries=entries[max(0, len(entries) - question.limit) :])
