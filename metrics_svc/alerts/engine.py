"""All rules over one second: events to announce, states to keep, lines of the alert log."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from metrics_svc.aggregation.rows import LATENCY_NAMES, Row
from metrics_svc.aggregation.seconds import ClosedSecond
from metrics_svc.alerts.judge import Judgement, Watch, judge, remove
from metrics_svc.alerts.rules import EVERY_SOURCE, Rule, RuleSet
from metrics_svc.alerts.states import Effect, Reason
from services.wire.events import AlertEvent
from services.wire.records import UNSET, Alert, AlertLogEntry
from services.wire.server import AlertRaised, AlertResolved


@dataclass(frozen=True, slots=True)
class Change:
    """One announced transition, for the log."""

    alert: Alert
    effect: Effect
    reason: Reason


@dataclass(slots=True)
class Outcome:
    """What one second changed. A watch of None is to be forgotten."""

    watches: dict[str, Watch | None] = field(default_factory=dict)
    events: list[AlertEvent] = field(default_factory=list)
    entries: list[AlertLogEntry] = field(default_factory=list)
    changes: list[Change] = field(default_factory=list)


class AlertEngine:
    """Holds the watches of all rules. `watches` is what an earlier engine left in the store, by alert id."""

    def __init__(self, rules: RuleSet, watches: Mapping[str, Watch]) -> None:
        self.rules = rules
        self._watches = dict(watches)

    def evaluate(self, closed: ClosedSecond) -> Outcome:
        """Judge every rule by the rows of one second. Called with seconds in rising order."""
        now = (closed.second + 1) * 1000
        outcome = Outcome()
        seen: set[str] = set()
        for rule, source in self._scopes(closed):
            alert_id = rule.alert_id(source)
            seen.add(alert_id)
            before = self._watches.get(alert_id)
            value = _value(rule, closed.rows.get(source))
            judgement = judge(rule, before or Watch(rule.metric, source), value, now)
            self._record(outcome, alert_id, rule, before, judgement, now)
        for alert_id in [known for known in self._watches if known not in seen]:
            before = self._watches[alert_id]
            self._record(outcome, alert_id, None, before, remove(before, now), now)
        return outcome

    def _scopes(self, closed: ClosedSecond) -> Iterator[tuple[Rule, str]]:
        """Yield each rule with each source it watches now: those that report, and those still remembered."""
        for rule in self.rules.rules:
            if rule.source != EVERY_SOURCE:
                yield rule, rule.source
                continue
            sources = {source for source, row in closed.rows.items() if source and rule.metric in row.stats}
            sources |= {
                watch.source
                for watch in self._watches.values()
                if watch.metric == rule.metric and watch.source
            }
            for source in sorted(sources):
                if self.rules.find(rule.metric, source) is rule:
                    yield rule, source

    def _record(
        self,
        outcome: Outcome,
        alert_id: str,
        rule: Rule | None,
        before: Watch | None,
        judgement: Judgement,
        now: int,
    ) -> None:
        after = judgement.watch
        if rule is None or after.is_idle(rule):
            if before is not None:
                del self._watches[alert_id]
                outcome.watches[alert_id] = None
        elif after != before:
            self._watches[alert_id] = after
            outcome.watches[alert_id] = after
        alert, effect = judgement.alert, judgement.transition.effect
        if alert is None:
            return
        outcome.changes.append(Change(alert, effect, judgement.transition.reason))
        if effect is Effect.RESOLVE:
            outcome.events.append(AlertResolved(data=alert))
            if before is not None and before.alert is not None and before.started_at is not None:
                outcome.entries.append(_entry(before.alert, before.started_at, ended_at=now))
        else:
            outcome.events.append(AlertRaised(data=alert))
            outcome.entries.append(_entry(alert, after.started_at or now, ended_at=None))


def _value(rule: Rule, row: Row | None) -> float | None:
    if row is None:
        return None
    if rule.metric in LATENCY_NAMES and rule.min_count:
        measured = row.latency.count if row.latency is not None else 0
        if measured < rule.min_count:
            return None
    return row.value(rule.metric)


def _entry(alert: Alert, started_at: int, *, ended_at: int | None) -> AlertLogEntry:
    """Return the line of one episode: written when it begins, again with each severity, and when it ends."""
    return AlertLogEntry(
        id=alert.id,
        type=alert.type,
        metric=alert.metric,
        value=alert.value,
        threshold=alert.threshold,
        message=alert.message,
        timestamp=alert.timestamp,
        state="firing" if ended_at is None else "resolved",
        started_at=started_at,
        ended_at=UNSET if ended_at is None else ended_at,
    )
