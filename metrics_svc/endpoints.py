"""The questions this service answers. All of them read and write the store alone, so any replica answers."""

import secrets
from collections.abc import Iterator
from contextlib import contextmanager

import msgspec

from metrics_svc.aggregation.rows import to_record
from metrics_svc.aggregation.seconds import FLEET
from metrics_svc.aggregation.tiers import SECONDS
from metrics_svc.clock import FleetClock
from metrics_svc.history import BadQuery, query
from metrics_svc.store import (
    MAX_EPISODES,
    MAX_LOG_LINES,
    MAX_SILENCES,
    MetricsStore,
    StoreUnavailable,
    TooManySilences,
)
from services.bus.rpc import RpcRefusal, Service
from services.wire.codes import ErrorCode
from services.wire.records import Alert
from services.wire.rpc import (
    ALERTS_ACK,
    ALERTS_ACTIVE,
    ALERTS_LOG,
    LOGS_RECENT,
    METRICS_HISTORY,
    METRICS_STATE,
    SILENCES_END,
    SILENCES_LIST,
    SILENCES_SET,
    AlertAck,
    AlertList,
    AlertLog,
    AlertLogQuery,
    Empty,
    History,
    HistoryQuery,
    LogPage,
    LogQuery,
    MetricsState,
    Silence,
    SilenceId,
    SilenceList,
)

STATE_RECORDS = 100
MAX_TEXT_CHARS = 1024
MAX_MATCHERS = 16


@contextmanager
def _answering() -> Iterator[None]:
    """Turn what the store and the query say into refusals with a code."""
    try:
        yield
    except StoreUnavailable as fault:
        raise RpcRefusal(ErrorCode.UNAVAILABLE, "the metrics store is out of reach") from fault
    except BadQuery as fault:
        raise RpcRefusal(ErrorCode.INVALID_FIELD, str(fault)) from fault
    except TooManySilences as fault:
        raise RpcRefusal(ErrorCode.CONFLICT, f"there are {MAX_SILENCES} silences already") from fault


class Endpoints:
    """Answers from the store."""

    def __init__(self, store: MetricsStore, clock: FleetClock) -> None:
        self._store = store
        self._clock = clock

    def serve(self, service: Service) -> None:
        """Declare every endpoint on a service that has not started yet."""
        service.endpoint(METRICS_STATE, self.state)
        service.endpoint(METRICS_HISTORY, self.history)
        service.endpoint(ALERTS_ACTIVE, self.alerts)
        service.endpoint(ALERTS_LOG, self.alert_log)
        service.endpoint(ALERTS_ACK, self.acknowledge)
        service.endpoint(SILENCES_LIST, self.silences)
        service.endpoint(SILENCES_SET, self.silence)
        service.endpoint(SILENCES_END, self.unsilence)
        service.endpoint(LOGS_RECENT, self.logs)

    async def state(self, _: Empty) -> MetricsState:
        """Answer with the last records and the active alerts: the snapshot of `metrics` and `alerts`."""
        with _answering():
            rows = await self._store.newest(FLEET, STATE_RECORDS)
            alerts = await self._store.active()
        return MetricsState(
            history=[to_record(row, SECONDS.step_s, rollup=False) for row in rows], alerts=alerts
        )

    async def history(self, question: HistoryQuery) -> History:
        """Answer with a piece of history."""
        with _answering():
            return History(rows=await query(self._store, question, self._clock.now()))

    async def alerts(self, _: Empty) -> AlertList:
        """Answer with the active alerts."""
        with _answering():
            return AlertList(alerts=await self._store.active())

    async def alert_log(self, question: AlertLogQuery) -> AlertLog:
        """Answer with the newest lines of the alert log."""
        with _answering():
            return AlertLog(entries=await self._store.episodes(min(question.limit, MAX_EPISODES)))

    async def acknowledge(self, ack: AlertAck) -> Alert:
        """Acknowledge a firing alert until it ends."""
        _check_text("by", ack.by)
        _check_text("comment", ack.comment)
        with _answering():
            known = await self._store.acknowledge(ack, self._now_ms())
            alert = next((alert for alert in await self._store.active() if alert.id == ack.id), None)
        if not known or alert is None:
            raise RpcRefusal(ErrorCode.NOT_FOUND, f"no active alert {ack.id!r}")
        return alert

    async def silences(self, _: Empty) -> SilenceList:
        """Answer with the silences that have not ended."""
        with _answering():
            return SilenceList(silences=await self._store.silences(self._now_ms()))

    async def silence(self, silence: Silence) -> Silence:
        """Add a silence, or replace the one of that id; answer with it as it is stored."""
        now = self._now_ms()
        silence = msgspec.structs.replace(
            silence, id=silence.id or secrets.token_hex(8), starts_at=silence.starts_at or now
        )
        _check_silence(silence, now)
        with _answering():
            await self._store.put_silence(silence, now)
        return silence

    async def unsilence(self, named: SilenceId) -> Empty:
        """End a silence."""
        with _answering():
            known = await self._store.end_silence(named.id)
        if not known:
            raise RpcRefusal(ErrorCode.NOT_FOUND, f"no silence {named.id!r}")
        return Empty()

    async def logs(self, question: LogQuery) -> LogPage:
        """Answer with the newest log lines."""
        with _answering():
            return LogPage(entries=await self._store.recent_logs(min(question.limit, MAX_LOG_LINES)))

    def _now_ms(self) -> int:
        return int(self._clock.now() * 1000)


def _check_text(field: str, text: str) -> None:
    if len(text) > MAX_TEXT_CHARS:
        raise RpcRefusal(ErrorCode.TOO_LARGE, f"`{field}` has more than {MAX_TEXT_CHARS} characters")


def _check_silence(silence: Silence, now: int) -> None:
    _check_text("id", silence.id)
    _check_text("comment", silence.comment)
    _check_text("createdBy", silence.created_by)
    for matcher in silence.matchers:
        _check_text("name", matcher.name)
        _check_text("value", matcher.value)
    if not silence.matchers:
        raise RpcRefusal(ErrorCode.INVALID_FIELD, "a silence without matchers would silence everything")
    if len(silence.matchers) > MAX_MATCHERS:
        raise RpcRefusal(ErrorCode.INVALID_FIELD, f"more than {MAX_MATCHERS} matchers")
    if silence.ends_at <= max(silence.starts_at, now):
        raise RpcRefusal(ErrorCode.INVALID_FIELD, "the silence ends before it begins, or has ended")
