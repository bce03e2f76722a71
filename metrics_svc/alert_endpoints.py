"""Questions and orders about alerts: what fires and fired, rules, silences, windows, receivers. Any replica answers."""

import secrets

import msgspec

from metrics_svc.alerts.muting import Muter
from metrics_svc.alerts.rule_store import RuleStore, encode, from_rule, to_rule
from metrics_svc.alerts.rules import BadRules
from metrics_svc.alerts.windows import BadWindow, check
from metrics_svc.clock import FleetClock
from metrics_svc.endpoints import answering
from metrics_svc.store import MAX_EPISODES, MAX_TRANSITIONS, DocumentKind, MetricsStore
from services.bus.rpc import RpcRefusal, Service
from services.wire.alerting import (
    ALERTS_TRANSITIONS,
    RECEIVERS_LIST,
    RULES_END,
    RULES_LIST,
    RULES_SET,
    WINDOWS_END,
    WINDOWS_LIST,
    WINDOWS_SET,
    AlertRule,
    ReceiverList,
    RuleId,
    RuleList,
    TransitionList,
    TransitionQuery,
    Window,
    WindowId,
    WindowList,
)
from services.wire.codes import ErrorCode
from services.wire.records import Alert
from services.wire.rpc import (
    ALERTS_ACK,
    ALERTS_ACTIVE,
    ALERTS_LOG,
    SILENCES_END,
    SILENCES_LIST,
    SILENCES_SET,
    AlertAck,
    AlertList,
    AlertLog,
    AlertLogQuery,
    Empty,
    Matcher,
    Silence,
    SilenceId,
    SilenceList,
)

MAX_TEXT_CHARS = 1024
MAX_MATCHERS = 16

_window = msgspec.json.Decoder(Window).decode


class AlertEndpoints:
    """Answers from the store; the rules file is this replica's own look at it."""

    def __init__(self, store: MetricsStore, clock: FleetClock, rules: RuleStore) -> None:
        self._store = store
        self._clock = clock
        self._rules = rules
        self._muting = Muter()

    def serve(self, service: Service) -> None:
        """Declare every endpoint on a service that has not started yet."""
        service.endpoint(ALERTS_ACTIVE, self.alerts)
        service.endpoint(ALERTS_LOG, self.alert_log)
        service.endpoint(ALERTS_TRANSITIONS, self.transitions)
        service.endpoint(ALERTS_ACK, self.acknowledge)
        service.endpoint(SILENCES_LIST, self.silences)
        service.endpoint(SILENCES_SET, self.silence)
        service.endpoint(SILENCES_END, self.unsilence)
        service.endpoint(RULES_LIST, self.rules)
        service.endpoint(RULES_SET, self.rule)
        service.endpoint(RULES_END, self.unrule)
        service.endpoint(WINDOWS_LIST, self.windows)
        service.endpoint(WINDOWS_SET, self.window)
        service.endpoint(WINDOWS_END, self.unwindow)
        service.endpoint(RECEIVERS_LIST, self.receivers)

    async def alerts(self, _: Empty) -> AlertList:
        """Answer with the active alerts."""
        now = self._now_ms()
        with answering():
            firing = await self._store.active()
            silences = await self._store.silences(now)
            windows = list(map(_window, (await self._store.documents(DocumentKind.WINDOWS)).values()))
            await self._take_rules()
        muted = self._muting.look(firing, silences, windows, self._rules.rules.inhibitions, now)
        return AlertList(alerts=[muted.shown(alert) for alert in firing])

    async def alert_log(self, question: AlertLogQuery) -> AlertLog:
        """Answer with the newest lines of the alert log."""
        with answering():
            return AlertLog(entries=await self._store.episodes(min(question.limit, MAX_EPISODES)))

    async def acknowledge(self, ack: AlertAck) -> Alert:
        """Acknowledge a firing alert until it ends."""
        _check_text("by", ack.by)
        _check_text("comment", ack.comment)
        with answering():
            known = await self._store.acknowledge(ack, self._now_ms())
            alert = next((alert for alert in await self._store.active() if alert.id == ack.id), None)
        if not known or alert is None:
            raise RpcRefusal(ErrorCode.NOT_FOUND, f"no active alert {ack.id!r}")
        return alert

    async def silences(self, _: Empty) -> SilenceList:
        """Answer with the silences that have not ended."""
        with answering():
            return SilenceList(silences=await self._store.silences(self._now_ms()))

    async def silence(self, silence: Silence) -> Silence:
        """Add a silence, or replace the one of that id; answer with it as it is stored."""
        now = self._now_ms()
        silence = msgspec.structs.replace(
            silence, id=silence.id or secrets.token_hex(8), starts_at=silence.starts_at or now
        )
        _check_silence(silence, now)
        with answering():
            await self._store.put_silence(silence, now)
        return silence

    async def unsilence(self, named: SilenceId) -> Empty:
        """End a silence."""
        with answering():
            known = await self._store.end_silence(named.id)
        if not known:
            raise RpcRefusal(ErrorCode.NOT_FOUND, f"no silence {named.id!r}")
        return Empty()

    async def transitions(self, question: TransitionQuery) -> TransitionList:
        """Answer with the newest transitions of all alerts or of one."""
        limit = max(0, question.limit)
        with answering():
            read = MAX_TRANSITIONS if question.id else min(limit, MAX_TRANSITIONS)
            found = await self._store.transitions(read)
        if question.id:
            found = [transition for transition in found if transition.id == question.id]
        return TransitionList(transitions=found[:limit])

    async def rules(self, _: Empty) -> RuleList:
        """Answer with all rules and where each comes from."""
        with answering():
            await self._take_rules()
        return self._rules.listed()

    async def rule(self, asked: AlertRule) -> AlertRule:
        """Add a rule, or replace the one that watches the same; the replica that ticks takes it up within a second."""
        try:
            rule = to_rule(asked)
        except BadRules as fault:
            raise RpcRefusal(ErrorCode.INVALID_FIELD, str(fault)) from fault
        with answering():
            await self._store.put_document(DocumentKind.RULES, rule.id, encode(rule))
            await self._take_rules()
        return from_rule(rule, "api", overridden=self._rules.rules.by_id.get(rule.id) != rule)

    async def unrule(self, named: RuleId) -> Empty:
        """Forget a rule that was given by API; its alert ends."""
        with answering():
            known = await self._store.end_document(DocumentKind.RULES, named.id)
            await self._take_rules()
        if not known:
            raise RpcRefusal(ErrorCode.NOT_FOUND, f"no rule {named.id!r} was given by API")
        return Empty()

    async def windows(self, _: Empty) -> WindowList:
        """Answer with the maintenance windows."""
        with answering():
            stored = await self._store.documents(DocumentKind.WINDOWS)
        return WindowList(windows=[_window(data) for _, data in sorted(stored.items())])

    async def window(self, window: Window) -> Window:
        """Add a maintenance window, or replace the one of that id; answer with it as it is stored."""
        window = msgspec.structs.replace(window, id=window.id or secrets.token_hex(8))
        _check_matchers(window.matchers)
        for field in ("id", "comment", "created_by"):
            _check_text(field, getattr(window, field))
        try:
            check(window)
        except BadWindow as fault:
            raise RpcRefusal(ErrorCode.INVALID_FIELD, str(fault)) from fault
        with answering():
            await self._store.put_document(DocumentKind.WINDOWS, window.id, msgspec.json.encode(window))
        return window

    async def unwindow(self, named: WindowId) -> Empty:
        """Forget a maintenance window."""
        with answering():
            known = await self._store.end_document(DocumentKind.WINDOWS, named.id)
        if not known:
            raise RpcRefusal(ErrorCode.NOT_FOUND, f"no maintenance window {named.id!r}")
        return Empty()

    async def receivers(self, _: Empty) -> ReceiverList:
        """Answer with how the receivers are doing, as the replica that ticks noted."""
        with answering():
            state = await self._store.notify_state(self._now_ms())
        return ReceiverList(receivers=[receiver for _, receiver in sorted(state.receivers.items())])

    async def _take_rules(self) -> None:
        self._rules.take(await self._store.documents(DocumentKind.RULES))

    def _now_ms(self) -> int:
        return int(self._clock.now() * 1000)


def _check_text(field: str, text: str) -> None:
    if len(text) > MAX_TEXT_CHARS:
        raise RpcRefusal(ErrorCode.TOO_LARGE, f"`{field}` has more than {MAX_TEXT_CHARS} characters")


def _check_matchers(matchers: list[Matcher]) -> None:
    for matcher in matchers:
        _check_text("name", matcher.name)
        _check_text("value", matcher.value)
    if not matchers:
        raise RpcRefusal(ErrorCode.INVALID_FIELD, "without matchers everything would be muted")
    if len(matchers) > MAX_MATCHERS:
        raise RpcRefusal(ErrorCode.INVALID_FIELD, f"more than {MAX_MATCHERS} matchers")


def _check_silence(silence: Silence, now: int) -> None:
    _check_text("id", silence.id)
    _check_text("comment", silence.comment)
    _check_text("createdBy", silence.created_by)
    _check_matchers(silence.matchers)
    if silence.ends_at <= max(silence.starts_at, now):
        raise RpcRefusal(ErrorCode.INVALID_FIELD, "the silence ends before it begins, or has ended")
