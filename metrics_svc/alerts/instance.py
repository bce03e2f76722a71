"""One rule and one value: which input of the state table is it, and what does the alert become."""

from typing import Literal
from zlib import crc32

import msgspec

from metrics_svc.alerts.rules import EVERY_SOURCE, Rule
from metrics_svc.alerts.states import TABLE, AlertEffect, AlertState, Signal, Transition
from services.wire.records import UNSET, Alert, Severity, UnsetType

_SEVERITIES: tuple[Severity, Severity] = ("warning", "critical")
_LOST: dict[Literal["keep", "resolve", "alert"], Signal] = {
    "keep": Signal.LOST_KEEP,
    "resolve": Signal.LOST_RESOLVE,
    "alert": Signal.LOST_ALERT,
}

# How often a firing alert takes over its value of now. Not each second: it is written to the store, and thousands may
# fire. Each has its own second of these, so that they do not come all at once.
REFRESH_S = 5


class ThresholdTimes(msgspec.Struct, frozen=True, omit_defaults=True):
    """Since when, without interruption, a value is over a threshold, or past its clear threshold (ms)."""

    over_since: int | None = None
    clear_since: int | None = None


class AlertInstance(msgspec.Struct, frozen=True, omit_defaults=True):
    """All that is remembered of one alert; what survives a restart.

    `alert` is what was last announced while firing, `value` and `message` what it would say now (None: the same),
    `started_at` when it began to fire, `missing_since` when data stopped coming, `reason` why the state is what it is. `source` is the series watched; `whole` the source
    it is a label set of, if it is one; `labels` are the series' own.
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
    whole: str = ""
    labels: dict[str, str] = {}
    value: float | None = None
    message: str = ""

    @property
    def shown(self) -> Alert | None:
        """The alert that fires, with the value and the words of now; None when none does."""
        if self.alert is None or self.value is None:
            return self.alert
        return msgspec.structs.replace(self.alert, value=self.value, message=self.message)

    def is_idle(self, rule: Rule) -> bool:
        """Whether there is nothing to remember: a new watch would go the same way."""
        # Of each source: that it exists must be known when it falls silent.
        if rule.no_data == "alert" and (self.missing_since is not None or rule.source == EVERY_SOURCE):
            return False
        return (
            self.state is AlertState.INACTIVE
            and self.warning.over_since is None
            and self.critical.over_since is None
        )

    def timing(self, severity: Severity) -> ThresholdTimes:
        """Return the timing of one severity."""
        return self.warning if severity == "warning" else self.critical


class Evaluation(msgspec.Struct, frozen=True):
    """What became of a watch: its next form, by which transition, and the alert that the effect is about."""

    watch: AlertInstance
    transition: Transition
    alert: Alert | None = None


def evaluate(rule: Rule, watch: AlertInstance, value: float | None, now: int) -> Evaluation:
    """Return what a rule's alert becomes with the value at `now` (ms); None is no data."""
    watch = _observe(rule, watch, value, now)
    input = _classify(rule, watch, value, now)
    return _apply(rule, watch, input, value, now)


def remove(watch: AlertInstance, now: int) -> Evaluation:
    """Return what becomes of an alert whose rule is gone."""
    transition = TABLE[watch.state][Signal.REMOVED]
    ended = _without_alert(watch, transition.next)
    if transition.effect is not AlertEffect.RESOLVE or watch.alert is None:
        return Evaluation(ended, transition)
    message = f"{watch.alert.metric} is no longer watched"
    return Evaluation(ended, transition, msgspec.structs.replace(watch.alert, message=message, timestamp=now))


def _observe(rule: Rule, watch: AlertInstance, value: float | None, now: int) -> AlertInstance:
    """Keep time: a stretch begins with the first value over (or clear) and ends with the first not."""
    if value is None:
        if watch.missing_since is None:
            return msgspec.structs.replace(watch, missing_since=now)
        if _missing_for_s(watch, now) >= rule.no_data_for_s:
            return msgspec.structs.replace(watch, warning=ThresholdTimes(), critical=ThresholdTimes())
        return watch
    warning, critical = (
        _timed(rule, watch.timing(severity), severity, value, now) for severity in _SEVERITIES
    )
    return msgspec.structs.replace(watch, warning=warning, critical=critical, missing_since=None)


def _timed(rule: Rule, timing: ThresholdTimes, severity: Severity, value: float, now: int) -> ThresholdTimes:
    over, clear = rule.is_over(value, severity), rule.is_clear(value, severity)
    return ThresholdTimes(
        (timing.over_since if timing.over_since is not None else now) if over else None,
        (timing.clear_since if timing.clear_since is not None else now) if clear else None,
    )


def _missing_for_s(watch: AlertInstance, now: int) -> float:
    return (now - (watch.missing_since if watch.missing_since is not None else now)) / 1000


def _classify(rule: Rule, watch: AlertInstance, value: float | None, now: int) -> Signal:
    if value is None:
        missing_s = _missing_for_s(watch, now)
        if rule.source == EVERY_SOURCE and missing_s >= rule.forget_s:
            return Signal.FORGOTTEN
        return _LOST[rule.no_data] if missing_s >= rule.no_data_for_s else Signal.MISSING
    held = _held(rule, watch, now)
    announced = watch.alert.type if watch.state is AlertState.FIRING and watch.alert is not None else None
    if announced is None:
        if held is not None:
            return Signal.HELD
        if any(watch.timing(severity).over_since is not None for severity in _SEVERITIES):
            return Signal.OVER
        return Signal.QUIET
    if announced == "warning" and held == "critical":
        return Signal.RAISED
    cleared = {severity: _is_cleared(rule, watch, severity, now) for severity in _SEVERITIES}
    if all(cleared.values()):
        return Signal.QUIET
    if announced == "critical" and cleared["critical"] and not rule.is_clear(value, "warning"):
        return Signal.LOWERED
    if held is not None:
        return Signal.HELD
    return Signal.OVER if rule.is_over(value, rule.least_severity) else Signal.CALMING


def _held(rule: Rule, watch: AlertInstance, now: int) -> Severity | None:
    """Return the highest severity whose threshold was exceeded for long enough."""
    for severity in reversed(_SEVERITIES):
        since = watch.timing(severity).over_since
        if since is not None and now - since >= rule.for_s * 1000:
            return severity
    return None


def _is_cleared(rule: Rule, watch: AlertInstance, severity: Severity, now: int) -> bool:
    since = watch.timing(severity).clear_since
    return since is not None and now - since >= rule.clear_for_s * 1000


def _apply(rule: Rule, watch: AlertInstance, input: Signal, value: float | None, now: int) -> Evaluation:
    transition = TABLE[watch.state][input]
    if transition.effect is AlertEffect.NONE:
        if transition.next is AlertState.FIRING:
            return Evaluation(_refreshed(rule, watch, value, now), transition)
        return Evaluation(_without_alert(watch, transition.next), transition)
    if transition.effect is AlertEffect.RESOLVE:
        ended = _resolved_alert(rule, watch, value, now)
        return Evaluation(_without_alert(watch, transition.next), transition, ended)
    alert = _alert(rule, watch, input, value, now)
    started_at = now if transition.effect is AlertEffect.RAISE else watch.started_at
    return Evaluation(
        msgspec.structs.replace(
            watch, state=transition.next, started_at=started_at, alert=alert, value=None, message=""
        ),
        transition,
        alert,
    )


def _refreshed(rule: Rule, watch: AlertInstance, value: float | None, now: int) -> AlertInstance:
    """Return the watch of an alert that goes on firing with its value of now, when it is its turn."""
    shown = watch.shown
    if value is None or shown is None or (now // 1000 + crc32(shown.id.encode())) % REFRESH_S:
        return watch
    # Past the clear threshold it is about to end: "cpu is 3 %, critical at 90" would help nobody.
    if shown.value == round(value, 3) or rule.is_clear(value, shown.type):
        return watch
    message = _message(rule, watch.source, shown.type, value)
    return msgspec.structs.replace(watch, value=round(value, 3), message=message)


def _message(rule: Rule, source: str, severity: Severity, value: float) -> str:
    side = "at" if rule.op == ">=" else "at or below"
    return f"{rule.describe(value, source)}, {severity} {side} {rule.threshold(severity):g}"


def _labels(rule: Rule, watch: AlertInstance) -> dict[str, str] | UnsetType:
    return (watch.labels | rule.labels) or UNSET


def _without_alert(watch: AlertInstance, state: AlertState) -> AlertInstance:
    return msgspec.structs.replace(watch, state=state, started_at=None, alert=None, value=None, message="")


def _alert(rule: Rule, watch: AlertInstance, input: Signal, value: float | None, now: int) -> Alert:
    if value is None:
        severity = rule.least_severity
        message = f"no data for {rule.metric}{f' of {watch.source}' if watch.source else ''}"
    else:
        # LOWERED means warning by definition, even where the warning threshold itself is not exceeded any
        # more.
        severity = "warning" if input is Signal.LOWERED else _held(rule, watch, now) or rule.least_severity
        message = _message(rule, watch.source, severity, value)
    return Alert(
        id=rule.alert_id(watch.source),
        type=severity,
        metric=rule.metric,
        value=round(value or 0.0, 3),
        threshold=float(rule.threshold(severity) or 0.0),
        message=message,
        timestamp=now,
        source=watch.whole or watch.source or UNSET,
        labels=_labels(rule, watch),
    )


def _resolved_alert(rule: Rule, watch: AlertInstance, value: float | None, now: int) -> Alert | None:
    if watch.alert is None:
        return None
    if value is None:
        return msgspec.structs.replace(
            watch.alert, message=f"no data for {rule.metric}: no longer alerting", timestamp=now
        )
    return msgspec.structs.replace(
        watch.alert,
        value=round(value, 3),
        message=f"{rule.describe(value, watch.source)}, back to normal",
        timestamp=now,
    )
