"""One alert of one rule: its state in the store, and its evaluation with one value."""

from zlib import crc32

import msgspec

from metrics_svc.alerts.rules import EVERY_SOURCE, SEVERITIES, Rule, alert_id
from metrics_svc.alerts.states import TABLE, AlertEffect, AlertState, Signal, Transition
from services.wire.records import UNSET, Alert, Severity

# How often the value of a firing alert is updated. Not each second: the update is written to the store, and thousands
# of alerts may fire. Each alert has its own second of the five, so that the updates do not come all at once.
REFRESH_S = 5


class ThresholdTimes(msgspec.Struct, frozen=True, omit_defaults=True):
    """Since when, without interruption, the value is over the threshold or past the clear threshold (ms)."""

    over_since: int | None = None
    clear_since: int | None = None


class AlertInstance(msgspec.Struct, frozen=True, omit_defaults=True):
    """State of one alert; all that survives a restart. Stored as JSON, so fields keep their stored names.

    Attributes:
        source: the series; `parent` its parent source if it is a labelled one; `labels` are the series' own.
        missing_since: when data stopped (ms).
        started_at: when the alert began to fire (ms).
        alert: the last announcement while firing; `value` and `message` update it (None: no update).
        reason: why the state is what it is.
    """

    metric: str
    source: str = ""
    state: AlertState = AlertState.INACTIVE
    warning: ThresholdTimes = ThresholdTimes()
    critical: ThresholdTimes = ThresholdTimes()
    missing_since: int | None = None
    started_at: int | None = None
    alert: Alert | None = None
    reason: str = ""
    parent: str = msgspec.field(default="", name="whole")
    labels: dict[str, str] = {}
    value: float | None = None
    message: str = ""

    @property
    def current(self) -> Alert | None:
        """The firing alert with its current value and message."""
        if self.alert is None or self.value is None:
            return self.alert
        return msgspec.structs.replace(self.alert, value=self.value, message=self.message)

    def is_idle(self, rule: Rule) -> bool:
        """Whether a new instance would behave the same, so that nothing need be stored."""
        # With `*`, the store is how a silent source is known to have existed.
        if rule.no_data == "alert" and (self.missing_since is not None or rule.source == EVERY_SOURCE):
            return False
        return (
            self.state is AlertState.INACTIVE
            and self.warning.over_since is None
            and self.critical.over_since is None
        )

    def times(self, severity: Severity) -> ThresholdTimes:
        return self.warning if severity == "warning" else self.critical


class Evaluation(msgspec.Struct, frozen=True):
    """Result of one evaluation: the next state, the transition to it, and the alert that it announces."""

    instance: AlertInstance
    transition: Transition
    alert: Alert | None = None


def evaluate(rule: Rule, instance: AlertInstance, value: float | None, now: int) -> Evaluation:
    """Evaluate an alert with the value at `now` (ms); None is no data."""
    instance = _with_times(rule, instance, value, now)
    signal = _signal(rule, instance, value, now)
    transition = TABLE[instance.state][signal]
    if transition.effect is AlertEffect.NONE:
        if transition.next is AlertState.FIRING:
            return Evaluation(_refreshed(rule, instance, value, now), transition)
        return Evaluation(_without_alert(instance, transition.next), transition)
    if transition.effect is AlertEffect.RESOLVE:
        resolved = _resolved_alert(rule, instance, value, now)
        return Evaluation(_without_alert(instance, transition.next), transition, resolved)
    alert = _alert(rule, instance, signal, value, now)
    started_at = now if transition.effect is AlertEffect.RAISE else instance.started_at
    firing = msgspec.structs.replace(
        instance, state=transition.next, started_at=started_at, alert=alert, value=None, message=""
    )
    return Evaluation(firing, transition, alert)


def remove(instance: AlertInstance, now: int) -> Evaluation:
    """End an alert whose rule was removed."""
    transition = TABLE[instance.state][Signal.REMOVED]
    ended = _without_alert(instance, transition.next)
    if transition.effect is not AlertEffect.RESOLVE or instance.alert is None:
        return Evaluation(ended, transition)
    message = f"{instance.alert.metric} is no longer watched"
    alert = msgspec.structs.replace(instance.alert, message=message, timestamp=now)
    return Evaluation(ended, transition, alert)


def _with_times(rule: Rule, instance: AlertInstance, value: float | None, now: int) -> AlertInstance:
    """Update the times: a span begins with the first value over (or clear) and ends with the first that is not."""
    if value is None:
        if instance.missing_since is None:
            return msgspec.structs.replace(instance, missing_since=now)
        if _missing_for_s(instance, now) >= rule.no_data_for_s:
            return msgspec.structs.replace(instance, warning=ThresholdTimes(), critical=ThresholdTimes())
        return instance
    warning, critical = (
        _times(rule, instance.times(severity), severity, value, now) for severity in SEVERITIES
    )
    return msgspec.structs.replace(instance, warning=warning, critical=critical, missing_since=None)


def _times(rule: Rule, before: ThresholdTimes, severity: Severity, value: float, now: int) -> ThresholdTimes:
    over, clear = rule.is_over(value, severity), rule.is_clear(value, severity)
    return ThresholdTimes(
        (before.over_since if before.over_since is not None else now) if over else None,
        (before.clear_since if before.clear_since is not None else now) if clear else None,
    )


def _missing_for_s(instance: AlertInstance, now: int) -> float:
    return (now - (instance.missing_since if instance.missing_since is not None else now)) / 1000


def _signal(rule: Rule, instance: AlertInstance, value: float | None, now: int) -> Signal:
    if value is None:
        missing_s = _missing_for_s(instance, now)
        if rule.source == EVERY_SOURCE and missing_s >= rule.forget_s:
            return Signal.FORGOTTEN
        return Signal[f"LOST_{rule.no_data.upper()}"] if missing_s >= rule.no_data_for_s else Signal.MISSING
    held = _held(rule, instance, now)
    firing = instance.state is AlertState.FIRING
    announced = instance.alert.type if firing and instance.alert is not None else None
    if announced is None:
        if held is not None:
            return Signal.HELD
        if any(instance.times(severity).over_since is not None for severity in SEVERITIES):
            return Signal.OVER
        return Signal.QUIET
    if announced == "warning" and held == "critical":
        return Signal.RAISED
    cleared = {severity: _is_cleared(rule, instance, severity, now) for severity in SEVERITIES}
    if all(cleared.values()):
        return Signal.QUIET
    if announced == "critical" and cleared["critical"] and not rule.is_clear(value, "warning"):
        return Signal.LOWERED
    if held is not None:
        return Signal.HELD
    return Signal.OVER if rule.is_over(value, rule.least_severity) else Signal.CALMING


def _held(rule: Rule, instance: AlertInstance, now: int) -> Severity | None:
    """Highest severity whose threshold was exceeded for `for_s`."""
    for severity in reversed(SEVERITIES):
        since = instance.times(severity).over_since
        if since is not None and now - since >= rule.for_s * 1000:
            return severity
    return None


def _is_cleared(rule: Rule, instance: AlertInstance, severity: Severity, now: int) -> bool:
    since = instance.times(severity).clear_since
    return since is not None and now - since >= rule.clear_for_s * 1000


def _refreshed(rule: Rule, instance: AlertInstance, value: float | None, now: int) -> AlertInstance:
    """Update the value of an alert that continues to fire, in its second of `REFRESH_S`."""
    current = instance.current
    if value is None or current is None or (now // 1000 + crc32(current.id.encode())) % REFRESH_S:
        return instance
    # Past the clear threshold the alert is about to end: "cpu is 3 %, critical at 90" would confuse.
    if current.value == round(value, 3) or rule.is_clear(value, current.type):
        return instance
    message = _message(rule, instance.source, current.type, value)
    return msgspec.structs.replace(instance, value=round(value, 3), message=message)


def _message(rule: Rule, source: str, severity: Severity, value: float) -> str:
    side = "at" if rule.op == ">=" else "at or below"
    return f"{rule.describe(value, source)}, {severity} {side} {rule.threshold(severity):g}"


def _without_alert(instance: AlertInstance, state: AlertState) -> AlertInstance:
    return msgspec.structs.replace(instance, state=state, started_at=None, alert=None, value=None, message="")


def _alert(rule: Rule, instance: AlertInstance, signal: Signal, value: float | None, now: int) -> Alert:
    if value is None:
        severity = rule.least_severity
        message = f"no data for {rule.metric}{f' of {instance.source}' if instance.source else ''}"
    else:
        # LOWERED means warning by definition, even if the warning threshold itself is not exceeded any more.
        severity = (
            "warning" if signal is Signal.LOWERED else _held(rule, instance, now) or rule.least_severity
        )
        message = _message(rule, instance.source, severity, value)
    return Alert(
        id=alert_id(rule.metric, instance.source),
        type=severity,
        metric=rule.metric,
        value=round(value or 0.0, 3),
        threshold=float(rule.threshold(severity) or 0.0),
        message=message,
        timestamp=now,
        source=instance.parent or instance.source or UNSET,
        labels=(instance.labels | rule.labels) or UNSET,
    )


def _resolved_alert(rule: Rule, instance: AlertInstance, value: float | None, now: int) -> Alert | None:
    if instance.alert is None:
        return None
    if value is None:
        message = f"no data for {rule.metric}: no longer alerting"
        return msgspec.structs.replace(instance.alert, message=message, timestamp=now)
    message = f"{rule.describe(value, instance.source)}, back to normal"
    return msgspec.structs.replace(instance.alert, value=round(value, 3), message=message, timestamp=now)
