"""All rules over one second: events to announce, states to keep, lines of the alert log."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from math import fsum

import msgspec

from metrics_svc.aggregation.rows import Row
from metrics_svc.aggregation.seconds import FLEET, ClosedSecond
from metrics_svc.alerts.judge import Judgement, Watch, judge, remove
from metrics_svc.alerts.rules import EVERY_SOURCE, Rule, RuleSet
from metrics_svc.alerts.states import Effect, Reason, State
from services.wire.events import AlertEvent
from services.wire.records import UNSET, Alert, AlertLogEntry, AlertTransition
from services.wire.server import AlertRaised, AlertResolved


@dataclass(frozen=True, slots=True)
class Change:
    """One announced transition, for the log."""

    alert: Alert
    effect: Effect
    reason: Reason


@dataclass(slots=True)
class Outcome:
    """What one second changed. A watch of None is to be forgotten.

    `current` are alerts that go on firing with another value than before, which is not announced.
    """

    watches: dict[str, Watch | None] = field(default_factory=dict)
    events: list[AlertEvent] = field(default_factory=list)
    entries: list[AlertLogEntry] = field(default_factory=list)
    changes: list[Change] = field(default_factory=list)
    transitions: list[AlertTransition] = field(default_factory=list)
    current: list[AlertLogEntry] = field(default_factory=list)


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
        for rule, series in self._scopes(closed):
            alert_id = rule.alert_id(series)
            if alert_id in seen:  # two rules match the same label set: the first one in the file holds
                continue
            seen.add(alert_id)
            before = self._watches.get(alert_id)
            value = _value(rule, series, closed)
            watch = _labelled(before or Watch(rule.metric, series), closed)
            self._record(outcome, alert_id, rule, before, judge(rule, watch, value, now), value, now)
        for alert_id in [known for known in self._watches if known not in seen]:
            before = self._watches[alert_id]
            self._record(outcome, alert_id, None, before, remove(before, now), None, now)
        return outcome

    def _scopes(self, closed: ClosedSecond) -> Iterator[tuple[Rule, str]]:
        """Yield each rule with each series it watches now: those that report, and those still remembered."""
        for rule in self.rules.rules:
            if rule.match:
                yield from ((rule, series) for series in self._label_sets(rule, closed))
            elif rule.source != EVERY_SOURCE:
                yield rule, rule.source
            else:
                yield from ((rule, source) for source in self._sources(rule, closed))

    def _sources(self, rule: Rule, closed: ClosedSecond) -> list[str]:
        sources = {
            source
            for source, row in closed.rows.items()
            if source and source not in closed.parts and row.value(rule.metric) is not None
        }
        sources |= {
            watch.source
            for watch in self._watches.values()
            if watch.metric == rule.metric and watch.source and not watch.whole
        }
        return [source for source in sorted(sources) if self.rules.find(rule.metric, source) is rule]

    def _label_sets(self, rule: Rule, closed: ClosedSecond) -> list[str]:
        found = {
            series: (whole, closed.labels.get(series, {}))
            for series, whole in closed.parts.items()
            if closed.rows[series].value(rule.metric) is not None
        }
        found |= {
            watch.source: (watch.whole, watch.labels)
            for watch in self._watches.values()
            if watch.metric == rule.metric and watch.whole
        }
        return [
            series
            for series, (whole, labels) in sorted(found.items())
            if rule.source in (EVERY_SOURCE, whole) and rule.matches(labels)
        ]

    def _record(
        self,
        outcome: Outcome,
        alert_id: str,
        rule: Rule | None,
        before: Watch | None,
        judgement: Judgement,
        value: float | None,
        now: int,
    ) -> None:
        transition = judgement.transition
        was = before.state if before is not None else State.INACTIVE
        after = judgement.watch
        if after.state is not was or transition.effect is not Effect.NONE:
            after = msgspec.structs.replace(after, reason=transition.reason.value)
            if transition.reason is not Reason.SETTLED:
                outcome.transitions.append(_transition(alert_id, was, judgement, value, now))
        forgotten = transition.reason is Reason.SOURCE_FORGOTTEN
        if rule is None or forgotten or after.is_idle(rule):
            if before is not None:
                del self._watches[alert_id]
                outcome.watches[alert_id] = None
        elif after != before:
            self._watches[alert_id] = after
            outcome.watches[alert_id] = after
            refreshed = before is not None and before.alert is after.alert and before.value != after.value
            if refreshed and (shown := after.shown) is not None:
                outcome.current.append(_entry(shown, after.started_at or now, after.reason, ended_at=None))
        self._announce(outcome, before, after, judgement, now)

    @staticmethod
    def _announce(
        outcome: Outcome, before: Watch | None, after: Watch, judgement: Judgement, now: int
    ) -> None:
        alert, transition = judgement.alert, judgement.transition
        if alert is None:
            return
        reason = transition.reason.value
        outcome.changes.append(Change(alert, transition.effect, transition.reason))
        if transition.effect is Effect.RESOLVE:
            outcome.events.append(AlertResolved(data=alert))
            if before is not None and before.alert is not None and before.started_at is not None:
                outcome.entries.append(_entry(before.alert, before.started_at, reason, ended_at=now))
        else:
            outcome.events.append(AlertRaised(data=alert))
            outcome.entries.append(_entry(alert, after.started_at or now, reason, ended_at=None))


def _labelled(watch: Watch, closed: ClosedSecond) -> Watch:
    """Return the watch with the labels its series has now; a series that is silent keeps those it had."""
    labels = closed.labels.get(watch.source)
    whole = closed.parts.get(watch.source, watch.whole)
    if labels is None or (labels == watch.labels and whole == watch.whole):
        return watch
    return msgspec.structs.replace(watch, labels=labels, whole=whole)


def _value(rule: Rule, series: str, closed: ClosedSecond) -> float | None:
    row = closed.rows.get(series)
    if row is None:
        return None
    if rule.min_count and row.measured(rule.metric) < rule.min_count:
        return None
    if series != FLEET:
        return row.value(rule.metric)
    own = row.value(rule.metric)
    if rule.aggregate == "sum" and own is not None:
        return own
    if rule.aggregate in ("sum", "mean") and any(
        of.is_percentile(rule.metric) for of in closed.rows.values()
    ):
        return own  # that of all values together, or none: no sum or mean of percentiles means anything
    return _aggregate(rule, closed)


def _aggregate(rule: Rule, closed: ClosedSecond) -> float | None:
    """Return the fleet's value of a metric from those of its sources."""
    rows: list[Row] = [row for name, row in closed.rows.items() if name and name not in closed.parts]
    values = [value for value in (row.value(rule.metric) for row in rows) if value is not None]
    if not values:
        return None
    match rule.aggregate:
        case "sum":
            return fsum(values)
        case "mean":
            return fsum(values) / len(values)
        case "min":
            return min(values)
        case "max":
            return max(values)


def _transition(
    alert_id: str, was: State, judgement: Judgement, value: float | None, now: int
) -> AlertTransition:
    alert = judgement.alert
    return AlertTransition(
        id=alert_id,
        timestamp=now,
        before=was.value,
        after=judgement.watch.state.value,
        reason=judgement.transition.reason.value,
        type=alert.type if alert is not None else UNSET,
        value=round(value, 3) if value is not None else UNSET,
    )


def _entry(alert: Alert, started_at: int, reason: str, *, ended_at: int | None) -> AlertLogEntry:
    """Return the line of one episode: written when it begins, again with each severity, and when it ends."""
    return AlertLogEntry(
        id=alert.id,
        type=alert.type,
        metric=alert.metric,
        value=alert.value,
        threshold=alert.threshold,
        message=alert.message,
        timestamp=alert.timestamp,
        source=alert.source,
        labels=alert.labels,
        state="firing" if ended_at is None else "resolved",
        started_at=started_at,
        ended_at=UNSET if ended_at is None else ended_at,
        reason=reason,
    )
