"""All rules over one second: events to announce, states to keep, lines of the alert log."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from math import fsum

import msgspec

from metrics_svc.aggregation.aggregator import SecondSnapshot
from metrics_svc.aggregation.rows import FLEET, Row
from metrics_svc.alerts.instance import AlertInstance, Evaluation, evaluate, remove
from metrics_svc.alerts.rules import EVERY_SOURCE, Rule, RuleSet, alert_id
from metrics_svc.alerts.states import AlertEffect, AlertState, TransitionReason
from services.wire.events import AlertEvent
from services.wire.records import UNSET, Alert, AlertLogEntry, AlertTransition
from services.wire.server import AlertRaised, AlertResolved

_ACTIVE = frozenset((AlertState.PENDING, AlertState.FIRING))


@dataclass(frozen=True, slots=True)
class Change:
    """One announced transition, for the log."""

    alert: Alert
    effect: AlertEffect
    reason: TransitionReason


@dataclass(slots=True)
class SecondEvaluation:
    """What one second changed. A watch of None is to be forgotten.

    `current` are alerts that go on firing with another value than before, which is not announced. `limited` counts, by
    rule, the alerts that were over its limit and are not kept.
    """

    watches: dict[str, AlertInstance | None] = field(default_factory=dict)
    events: list[AlertEvent] = field(default_factory=list)
    entries: list[AlertLogEntry] = field(default_factory=list)
    changes: list[Change] = field(default_factory=list)
    transitions: list[AlertTransition] = field(default_factory=list)
    current: list[AlertLogEntry] = field(default_factory=list)
    limited: Counter[str] = field(default_factory=Counter)


class AlertEngine:
    """Holds the watches of all rules. `watches` is what an earlier engine left in the store, by alert id."""

    def __init__(self, rules: RuleSet, watches: Mapping[str, AlertInstance]) -> None:
        self.rules = rules
        # Stored by an earlier version, which gave other ids: renamed with the first second.
        self._renamed = {
            id: watch for id, watch in watches.items() if id != alert_id(watch.metric, watch.source)
        }
        self._watches = {id: watch for id, watch in watches.items() if id not in self._renamed}
        self._heard: set[str] = set()  # alerts about which there were data, while warming up

    def evaluate(self, closed: SecondSnapshot) -> SecondEvaluation:
        """Judge every rule by the rows of one second. Called with seconds in rising order."""
        now = (closed.second + 1) * 1000
        outcome = SecondEvaluation()
        self._rename(outcome, now)
        seen: set[str] = set()
        for rule in self.rules.rules:
            watched = self._series(rule, closed)
            active: int | None = None
            for series in watched:
                id = rule.alert_id(series)
                if id in seen:  # two rules match the same label set: the first one in the file holds
                    continue
                seen.add(id)
                before = self._watches.get(id)
                value = _value(rule, series, closed)
                if closed.warming_up and not self._can_judge(rule, series, id, value):
                    continue
                watch = _labelled(before or AlertInstance(rule.metric, series), closed)
                judgement = evaluate(rule, watch, value, now)
                if judgement.watch.state in _ACTIVE and (before is None or before.state not in _ACTIVE):
                    active = self._active(rule, watched) if active is None else active
                    if active >= rule.limit:
                        outcome.limited[rule.id] += 1
                        continue
                    active += 1
                self._record(outcome, id, rule, before, judgement, value, now)
        for id in [known for known in self._watches if known not in seen]:
            before = self._watches[id]
            self._record(outcome, id, None, before, remove(before, now), None, now)
        return outcome

    def _can_judge(self, rule: Rule, series: str, id: str, value: float | None) -> bool:
        """Say whether silence means anything, soon after a start: of what has been heard of since, it does."""
        if value is not None:
            self._heard.add(id)
        return id in self._heard or (series == FLEET and rule.no_data != "alert")

    def _active(self, rule: Rule, watched: list[str]) -> int:
        """Return how many alerts of a rule are pending or fire."""
        watches = (self._watches.get(rule.alert_id(series)) for series in watched)
        return sum(watch is not None and watch.state in _ACTIVE for watch in watches)

    def _rename(self, outcome: SecondEvaluation, now: int) -> None:
        """Let alerts end under the ids they had, and go on under those they have."""
        for old, watch in self._renamed.items():
            id = alert_id(watch.metric, watch.source)
            outcome.watches[old] = None
            alert, started_at = watch.alert, watch.started_at
            if alert is not None and started_at is not None:
                outcome.events.append(AlertResolved(data=alert))
                outcome.entries.append(_entry(alert, started_at, watch.reason, ended_at=now))
            if id in self._watches:
                continue  # known by both: versions took turns
            if alert is not None and started_at is not None:
                alert = msgspec.structs.replace(alert, id=id)
                outcome.events.append(AlertRaised(data=alert))
                outcome.entries.append(_entry(alert, started_at, watch.reason, ended_at=None))
            self._watches[id] = outcome.watches[id] = msgspec.structs.replace(watch, alert=alert)
        self._renamed = {}

    def _series(self, rule: Rule, closed: SecondSnapshot) -> list[str]:
        """Return the series that a rule watches now: those that report, and those still remembered."""
        if rule.match:
            return self._label_sets(rule, closed)
        return [rule.source] if rule.source != EVERY_SOURCE else self._sources(rule, closed)

    def _sources(self, rule: Rule, closed: SecondSnapshot) -> list[str]:
        sources = {
            source
            for source, row in closed.rows.items()
            if source and source not in closed.parents and row.value(rule.metric) is not None
        }
        sources |= {
            watch.source
            for watch in self._watches.values()
            if watch.metric == rule.metric and watch.source and not watch.whole
        }
        return [source for source in sorted(sources) if self.rules.find(rule.metric, source) is rule]

    def _label_sets(self, rule: Rule, closed: SecondSnapshot) -> list[str]:
        found = {
            series: (whole, closed.labels.get(series, {}))
            for series, whole in closed.parents.items()
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
        outcome: SecondEvaluation,
        alert_id: str,
        rule: Rule | None,
        before: AlertInstance | None,
        judgement: Evaluation,
        value: float | None,
        now: int,
    ) -> None:
        transition = judgement.transition
        was = before.state if before is not None else AlertState.INACTIVE
        after = judgement.watch
        if after.state is not was or transition.effect is not AlertEffect.NONE:
            after = msgspec.structs.replace(after, reason=transition.reason.value)
            if transition.reason is not TransitionReason.SETTLED:
                outcome.transitions.append(_transition(alert_id, was, judgement, value, now))
        forgotten = transition.reason is TransitionReason.SOURCE_FORGOTTEN
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
        outcome: SecondEvaluation,
        before: AlertInstance | None,
        after: AlertInstance,
        judgement: Evaluation,
        now: int,
    ) -> None:
        alert, transition = judgement.alert, judgement.transition
        if alert is None:
            return
        reason = transition.reason.value
        outcome.changes.append(Change(alert, transition.effect, transition.reason))
        if transition.effect is AlertEffect.RESOLVE:
            outcome.events.append(AlertResolved(data=alert))
            if before is not None and before.alert is not None and before.started_at is not None:
                outcome.entries.append(_entry(before.alert, before.started_at, reason, ended_at=now))
        else:
            outcome.events.append(AlertRaised(data=alert))
            outcome.entries.append(_entry(alert, after.started_at or now, reason, ended_at=None))


def _labelled(watch: AlertInstance, closed: SecondSnapshot) -> AlertInstance:
    """Return the watch with the labels its series has now; a series that is silent keeps those it had."""
    labels = closed.labels.get(watch.source)
    whole = closed.parents.get(watch.source, watch.whole)
    if labels is None or (labels == watch.labels and whole == watch.whole):
        return watch
    return msgspec.structs.replace(watch, labels=labels, whole=whole)


def _value(rule: Rule, series: str, closed: SecondSnapshot) -> float | None:
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


def _aggregate(rule: Rule, closed: SecondSnapshot) -> float | None:
    """Return the fleet's value of a metric from those of its sources."""
    rows: list[Row] = [row for name, row in closed.rows.items() if name and name not in closed.parents]
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
    alert_id: str, was: AlertState, judgement: Evaluation, value: float | None, now: int
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
