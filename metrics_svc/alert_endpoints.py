"""Requests about alerts: active ones, the alert log, rules, silences, windows, receivers. Any replica can answer."""

import secrets

import msgspec

from metrics_svc.alerts.muting import Muter, check_window
from metrics_svc.alerts.rule_store import RuleStore, encode, from_rule, to_rule
from metrics_svc.endpoints import refusing
from metrics_svc.leader_lease import FleetClock
from metrics_svc.store import MAX_EPISODES, MAX_TRANSITIONS, DocumentKind, MetricsStore
from services.bus.rpc import RpcRefusal, Service
from services.wire import alerting, rpc
from services.wire.codes import ErrorCode
from services.wire.records import Alert

MAX_TEXT_CHARS = 1024
MAX_MATCHERS = 16

_window = msgspec.json.Decoder(alerting.Window).decode


class AlertEndpoints:
    """Endpoints for alerts. Answers come from the store, rules also from this replica's copy of the rules file."""

    def __init__(self, store: MetricsStore, clock: FleetClock, rules: RuleStore) -> None:
        self._store = store
        self._clock = clock
        self._rules = rules
        self._muter = Muter()

    def serve(self, service: Service) -> None:
        service.endpoint(rpc.ALERTS_ACTIVE, refusing(self.alerts))
        service.endpoint(rpc.ALERTS_LOG, refusing(self.alert_log))
        service.endpoint(alerting.ALERTS_TRANSITIONS, refusing(self.transitions))
        service.endpoint(rpc.ALERTS_ACK, refusing(self.acknowledge))
        service.endpoint(rpc.SILENCES_LIST, refusing(self.silences))
        service.endpoint(rpc.SILENCES_SET, refusing(self.set_silence))
        service.endpoint(rpc.SILENCES_END, refusing(self.delete_silence))
        service.endpoint(alerting.RULES_LIST, refusing(self.rules))
        service.endpoint(alerting.RULES_SET, refusing(self.set_rule))
        service.endpoint(alerting.RULES_END, refusing(self.delete_rule))
        service.endpoint(alerting.WINDOWS_LIST, refusing(self.windows))
        service.endpoint(alerting.WINDOWS_SET, refusing(self.set_window))
        service.endpoint(alerting.WINDOWS_END, refusing(self.delete_window))
        service.endpoint(alerting.RECEIVERS_LIST, refusing(self.receivers))

    async def alerts(self, _: rpc.Empty) -> rpc.AlertList:
        """Active alerts, each with what mutes it."""
        now = self._now_ms()
        firing = await self._store.active()
        silences = await self._store.silences(now)
        windows = list(map(_window, (await self._store.documents(DocumentKind.WINDOWS)).values()))
        await self._load_api_rules()
        muted = self._muter.muted(firing, silences, windows, self._rules.rules.inhibitions, now)
        return rpc.AlertList(alerts=[muted.annotated(alert) for alert in firing])

    async def alert_log(self, question: rpc.AlertLogQuery) -> rpc.AlertLog:
        return rpc.AlertLog(entries=await self._store.episodes(min(question.limit, MAX_EPISODES)))

    async def acknowledge(self, ack: rpc.AlertAck) -> Alert:
        """Acknowledge a firing alert until it ends."""
        _check_text("by", ack.by)
        _check_text("comment", ack.comment)
        known = await self._store.acknowledge(ack, self._now_ms())
        alert = next((alert for alert in await self._store.active() if alert.id == ack.id), None)
        if not known or alert is None:
            raise RpcRefusal(ErrorCode.NOT_FOUND, f"no active alert {ack.id!r}")
        return alert

    async def silences(self, _: rpc.Empty) -> rpc.SilenceList:
        return rpc.SilenceList(silences=await self._store.silences(self._now_ms()))

    async def set_silence(self, silence: rpc.Silence) -> rpc.Silence:
        """Add a silence or replace the one with its id; the answer is the stored silence."""
        now = self._now_ms()
        silence = msgspec.structs.replace(
            silence, id=silence.id or secrets.token_hex(8), starts_at=silence.starts_at or now
        )
        _check_silence(silence, now)
        await self._store.put_silence(silence, now)
        return silence

    async def delete_silence(self, named: rpc.ById) -> rpc.Empty:
        if not await self._store.delete_document(DocumentKind.SILENCES, named.id):
            raise RpcRefusal(ErrorCode.NOT_FOUND, f"no silence {named.id!r}")
        return rpc.Empty()

    async def transitions(self, question: alerting.TransitionQuery) -> alerting.TransitionList:
        limit = max(0, question.limit)
        read = MAX_TRANSITIONS if question.id else min(limit, MAX_TRANSITIONS)
        found = await self._store.transitions(read)
        if question.id:
            found = [transition for transition in found if transition.id == question.id]
        return alerting.TransitionList(transitions=found[:limit])

    async def rules(self, _: rpc.Empty) -> alerting.RuleList:
        await self._load_api_rules()
        return self._rules.listed()

    async def set_rule(self, given: alerting.AlertRule) -> alerting.AlertRule:
        """Add a rule or replace the one with its id; it is in effect within a second."""
        rule = to_rule(given)
        await self._store.put_document(DocumentKind.RULES, rule.id, encode(rule))
        await self._load_api_rules()
        return from_rule(rule, "api", overridden=self._rules.rules.by_id.get(rule.id) != rule)

    async def delete_rule(self, named: rpc.ById) -> rpc.Empty:
        """Delete a rule of the API; its alerts end."""
        known = await self._store.delete_document(DocumentKind.RULES, named.id)
        await self._load_api_rules()
        if not known:
            raise RpcRefusal(ErrorCode.NOT_FOUND, f"no rule {named.id!r} was given by API")
        return rpc.Empty()

    async def windows(self, _: rpc.Empty) -> alerting.WindowList:
        stored = await self._store.documents(DocumentKind.WINDOWS)
        return alerting.WindowList(windows=[_window(data) for _, data in sorted(stored.items())])

    async def set_window(self, window: alerting.Window) -> alerting.Window:
        """Add a maintenance window or replace the one with its id; the answer is the stored window."""
        window = msgspec.structs.replace(window, id=window.id or secrets.token_hex(8))
        _check_matchers(window.matchers)
        for field in ("id", "comment", "created_by"):
            _check_text(field, getattr(window, field))
        check_window(window)
        await self._store.put_document(DocumentKind.WINDOWS, window.id, msgspec.json.encode(window))
        return window

    async def delete_window(self, named: rpc.ById) -> rpc.Empty:
        if not await self._store.delete_document(DocumentKind.WINDOWS, named.id):
            raise RpcRefusal(ErrorCode.NOT_FOUND, f"no maintenance window {named.id!r}")
        return rpc.Empty()

    async def receivers(self, _: rpc.Empty) -> alerting.ReceiverList:
        """Status of the receivers, as stored by the leader."""
        state = await self._store.notify_state(self._now_ms())
        return alerting.ReceiverList(receivers=[receiver for _, receiver in sorted(state.receivers.items())])

    async def _load_api_rules(self) -> None:
        self._rules.load_api_rules(await self._store.documents(DocumentKind.RULES))

    def _now_ms(self) -> int:
        return int(self._clock.now() * 1000)


def _check_text(field: str, text: str) -> None:
    if len(text) > MAX_TEXT_CHARS:
        raise RpcRefusal(ErrorCode.TOO_LARGE, f"`{field}` has more than {MAX_TEXT_CHARS} characters")


def _check_matchers(matchers: list[rpc.Matcher]) -> None:
    for matcher in matchers:
        _check_text("name", matcher.name)
        _check_text("value", matcher.value)
    if not matchers:
        raise RpcRefusal(ErrorCode.INVALID_FIELD, "without matchers everything would be muted")
    if len(matchers) > MAX_MATCHERS:
        raise RpcRefusal(ErrorCode.INVALID_FIELD, f"more than {MAX_MATCHERS} matchers")


def _check_silence(silence: rpc.Silence, now: int) -> None:
    _check_text("id", silence.id)
    _check_text("comment", silence.comment)
    _check_text("createdBy", silence.created_by)
    _check_matchers(silence.matchers)
    if silence.ends_at <= max(silence.starts_at, now):
        raise RpcRefusal(ErrorCode.INVALID_FIELD, "the silence ends before it begins, or has ended")
