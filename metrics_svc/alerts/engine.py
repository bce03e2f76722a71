"""Evaluation of all rules for one second: instances to store, announcements, records of the alert log."""

from collections.abc import Callable, Mapping
from math import fsum
from statistics import fmean

import msgspec

from metrics_svc.aggregation.aggregator import SecondSnapshot
from metrics_svc.aggregation.rows import FLEET
from metrics_svc.alerts.instance import AlertInstance, Evaluation, evaluate, remove
from metrics_svc.alerts.rules import EVERY_SOURCE, Rule, RuleSet, alert_id
from metrics_svc.alerts.states import AlertEffect, AlertState, TransitionReason
from metrics_svc.store import SecondCommit
from services.wire.records import UNSET, Alert, AlertLogEntry, AlertTransition
from services.wire.server import AlertRaised, AlertResolved

_ACTIVE = frozenset((AlertState.PENDING, AlertState.FIRING))
_AGGREGATES: dict[str, Callable[[list[float]], float]] = {"sum": fsum, "mean": fmean, "min": min, "max": max}


class AlertEngine:
    """The instances of all rules. `instances` is what an earlier engine left in the store, by alert id."""

    def __init__(self, rules: RuleSet, instances: Mapping[str, AlertInstance]) -> None:
        self.rules = rules
        # Stored by an earlier version under other ids: renamed with the first second.
        self._renamed = {
            id: instance
            for id, instance in instances.items()
            if id != alert_id(instance.metric, instance.source)
        }
        self._instances = {id: instance for id, instance in instances.items() if id not in self._renamed}
        self._with_data: set[str] = set()  # alerts with data since the start, while warming up

    def evaluate(self, snapshot: SecondSnapshot) -> SecondCommit:
        """Evaluate every rule with the rows of one second. Seconds are evaluated in rising order."""
        changes = SecondCommit(snapshot.second)
        now = changes.ended_at
        self._rename(changes, now)
        seen: set[str] = set()
        for rule in self.rules.rules:
            all_series = self._series(rule, snapshot)
            active: int | None = None
            for series in all_series:
                alert = alert_id(rule.metric, series)
                if alert in seen:  # two rules match the same label set: the first one in the file applies
                    continue
                seen.add(alert)
                before = self._instances.get(alert)
                value = _value(rule, series, snapshot)
                if snapshot.warming_up and not self._can_evaluate(rule, series, alert, value):
                    continue
                instance = _labelled(before or AlertInstance(rule.metric, series), snapshot)
                evaluation = evaluate(rule, instance, value, now)
                if evaluation.instance.state in _ACTIVE and (before is None or before.state not in _ACTIVE):
                    active = self._count_active(rule, all_series) if active is None else active
                    if active >= rule.limit:
                        changes.limited[rule.id] += 1
                        continue
                    active += 1
                self._apply(changes, rule, evaluation, value)
        for alert in [known for known in self._instances if known not in seen]:
            self._apply(changes, None, remove(self._instances[alert], now), None)
        return changes

    def _can_evaluate(self, rule: Rule, series: str, alert: str, value: float | None) -> bool:
        """Report whether missing data means silence soon after a start: only after the first data since then."""
        if value is not None:
            self._with_data.add(alert)
        return alert in self._with_data or (series == FLEET and rule.no_data != "alert")

    def _count_active(self, rule: Rule, all_series: list[str]) -> int:
        instances = (self._instances.get(alert_id(rule.metric, series)) for series in all_series)
        return sum(instance is not None and instance.state in _ACTIVE for instance in instances)

    def _rename(self, changes: SecondCommit, now: int) -> None:
        """End alerts under their old ids and continue them under the current ones."""
        for old, instance in self._renamed.items():
            new = alert_id(instance.metric, instance.source)
            changes.instances[old] = None
            alert, started_at = instance.alert, instance.started_at
            if alert is not None and started_at is not None:
                changes.events.append(AlertResolved(data=alert))
                changes.entries.append(_log_entry(alert, started_at, instance.reason, ended_at=now))
            if new in self._instances:
                continue  # both versions ran in turn
            if alert is not None and started_at is not None:
                alert = msgspec.structs.replace(alert, id=new)
                changes.events.append(AlertRaised(data=alert))
                changes.entries.append(_log_entry(alert, started_at, instance.reason))
            self._instances[new] = changes.instances[new] = msgspec.structs.replace(instance, alert=alert)
        self._renamed = {}

    def _series(self, rule: Rule, snapshot: SecondSnapshot) -> list[str]:
        """Series that a rule watches now: those that report, and those with an instance."""
        if rule.match:
            return self._labelled_series(rule, snapshot)
        if rule.source != EVERY_SOURCE:
            return [rule.source]
        sources = {
            source
            for source, row in snapshot.rows.items()
            if source and source not in snapshot.parents and row.value(rule.metric) is not None
        }
        sources |= {
            instance.source
            for instance in self._instances.values()
            if instance.metric == rule.metric and instance.source and not instance.parent
        }
        return [source for source in sorted(sources) if self.rules.find(rule.metric, source) is rule]

    def _labelled_series(self, rule: Rule, snapshot: SecondSnapshot) -> list[str]:
        found = {
            series: (parent, snapshot.labels.get(series, {}))
            for series, parent in snapshot.parents.items()
            if snapshot.rows[series].value(rule.metric) is not None
        }
        found |= {
            instance.source: (instance.parent, instance.labels)
            for instance in self._instances.values()
            if instance.metric == rule.metric and instance.parent
        }
        return [
            series
            for series, (parent, labels) in sorted(found.items())
            if rule.source in (EVERY_SOURCE, parent) and rule.matches(labels)
        ]

    def _apply(
        self, changes: SecondCommit, rule: Rule | None, evaluation: Evaluation, value: float | None
    ) -> None:
        """Apply the result of one evaluation, and derive the records of what changed; `rule` None: it was removed."""
        after, transition, alert = evaluation.instance, evaluation.transition, evaluation.alert
        id, now = alert_id(after.metric, after.source), changes.ended_at
        before = self._instances.get(id)
        state_before = before.state if before is not None else AlertState.INACTIVE
        reason = transition.reason.value
        if after.state is not state_before or transition.effect is not AlertEffect.NONE:
            after = msgspec.structs.replace(after, reason=reason)
            if transition.reason is not TransitionReason.SETTLED:
                changes.transitions.append(
                    AlertTransition(
                        id=id,
                        timestamp=now,
                        before=state_before.value,
                        after=after.state.value,
                        reason=reason,
                        type=alert.type if alert is not None else UNSET,
                        value=round(value, 3) if value is not None else UNSET,
                    )
                )
        forgotten = transition.reason is TransitionReason.SOURCE_FORGOTTEN
        if rule is None or forgotten or after.is_idle(rule):
            if before is not None:
                del self._instances[id]
                changes.instances[id] = None
        elif after != before:
            self._instances[id] = changes.instances[id] = after
            refreshed = before is not None and before.alert is after.alert and before.value != after.value
            if refreshed and (current := after.current) is not None:
                changes.current.append(_log_entry(current, after.started_at or now, after.reason))
        if alert is None:
            return
        changes.announced.append(evaluation)
        if transition.effect is not AlertEffect.RESOLVE:
            changes.events.append(AlertRaised(data=alert))
            changes.entries.append(_log_entry(alert, after.started_at or now, reason))
            return
        changes.events.append(AlertResolved(data=alert))
        if before is not None and before.alert is not None and before.started_at is not None:
            changes.entries.append(_log_entry(before.alert, before.started_at, reason, ended_at=now))


def _labelled(instance: AlertInstance, snapshot: SecondSnapshot) -> AlertInstance:
    """Update an instance with the labels of its series; a silent series keeps those it had."""
    labels = snapshot.labels.get(instance.source)
    parent = snapshot.parents.get(instance.source, instance.parent)
    if labels is None or (labels == instance.labels and parent == instance.parent):
        return instance
    return msgspec.structs.replace(instance, labels=labels, parent=parent)


def _value(rule: Rule, series: str, snapshot: SecondSnapshot) -> float | None:
    row = snapshot.rows.get(series)
    if row is None or (rule.min_count and row.measured(rule.metric) < rule.min_count):
        return None
    own = row.value(rule.metric)
    if series != FLEET or (rule.aggregate == "sum" and own is not None):
        return own
    if rule.aggregate in ("sum", "mean") and any(
        of_series.is_percentile(rule.metric) for of_series in snapshot.rows.values()
    ):
        return own  # a sum or mean of percentiles means nothing
    rows = [row for name, row in snapshot.rows.items() if name and name not in snapshot.parents]
    values = [value for value in (row.value(rule.metric) for row in rows) if value is not None]
    return _AGGREGATES[rule.aggregate](values) if values else None


def _log_entry(alert: Alert, started_at: int, reason: str, *, ended_at: int | None = None) -> AlertLogEntry:
    """Log entry of one episode: written when it begins, again with each severity, and when it ends."""
    return AlertLogEntry(
        **msgspec.structs.asdict(alert),
        state="firing" if ended_at is None else "resolved",
        started_at=started_at,
        ended_at=UNSET if ended_at is None else ended_at,
        reason=reason,
    )
