"""One rule and one value: which input of the state table is it, and what does the alert become."""

from typing import Literal
from zlib import crc32

import msgspec

from metrics_svc.alerts.rules import EVERY_SOURCE, Rule
from metrics_svc.alerts.states import TABLE, Effect, Input, State, Transition
from services.wire.records import UNSET, Alert, Severity, UnsetType

_SEVERITIES: tuple[Severity, Severity] = ("warning", "critical")
_LOST: dict[Literal["keep", "resolve", "alert"], Input] = {
    "keep": Input.LOST_KEEP,
    "resolve": Input.LOST_RESOLVE,
    "alert": Input.LOST_ALERT,
}

# How often a firing alert takes over its value of now. Not each second: it is written to the store, and thousands may
# fire. Each has its own second of these, so that they do not come all at once.
REFRESH_S = 5


class Timing(msgspec.Struct, frozen=True, omit_defaults=True):
    """Since when, without interruption, a value is over a threshold, or past its clear threshold (ms)."""

    over_since: int | None = None
    clear_since: int | None = None


class Watch(msgspec.Struct, frozen=True, omit_defaults=True):
    """All that is remembered of one alert; what survives a restart.

    `alert` is what was last announced while firing, `value` and `message` what it would say now (None: the same),
    `started_at` when it began to fire, `missing_since` when data stopped coming, `reason` why the state is what it is. `source` is the series watched; `whole` the source
    it is a label set of, if it is one; `labels` are the series' own.
    """

    metric: str
    source: str = ""
    state: State = State.INACTIVE
    warning: Timing = Timing()
    critical: Timing = Timing()
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
            self.state is State.INACTIVE
            and self.warning.over_since is None
            and self.critical.over_since is None
        )

    def timing(self, severity: Severity) -> Timing:
        """Return the timing of one severity."""
        return self.warning if severity == "warning" else self.critical


class Judgement(msgspec.Struct, frozen=True):
    """What became of a watch: its next form, by which transition, and the alert that the effect is about."""

    watch: Watch
    transition: Transition
    alert: Alert | None = None


def judge(rule: Rule, watch: Watch, value: float | None, now: int) -> Judgement:
    """Return what a rule's alert becomes with the value at `now` (ms); None is no data."""
    watch = _observe(rule, watch, value, now)
    input = _classify(rule, watch, value, now)
    return _apply(rule, watch, input, value, now)


def remove(watch: Watch, now: int) -> Judgement:
    """Return what becomes of an alert whose rule is gone."""
    transition = TABLE[watch.state][Input.REMOVED]
    ended = _without_alert(watch, transition.next)
    if transition.effect is not Effect.RESOLVE or watch.alert is None:
        return Judgement(ended, transition)
    message = f"{watch.alert.metric} is no longer watched"
    return Judgement(ended, transition, msgspec.structs.replace(watch.alert, message=message, timestamp=now))


def _observe(rule: Rule, watch: Watch, value: float | None, now: int) -> Watch:
    """Keep time: a stretch begins with the first value over (or clear) and ends with the first not."""
    if value is None:
        if watch.missing_since is None:
            return msgspec.structs.replace(watch, missing_since=now)
        if _missing_for_s(watch, now) >= rule.no_data_for_s:
            return msgspec.structs.replace(watch, warning=Timing(), critical=Timing())
        return watch
    warning, critical = (
        _timed(rule, watch.timing(severity), severity, value, now) for severity in _SEVERITIES
    )
    return msgspec.structs.replace(watch, warning=warning, critical=critical, missing_since=None)


def _timed(rule: Rule, timing: Timing, severity: Severity, value: float, now: int) -> Timing:
    over, clear = rule.is_over(value, severity), rule.is_clear(value, severity)
    return Timing(
        (timing.over_since if timing.over_since is not None else now) if over else None,
        (timing.clear_since if timing.clear_since is not None else now) if clear else None,
    )


def _missing_for_s(watch: Watch, now: int) -> float:
    return (now - (watch.missing_since if watch.missing_since is not None else now)) / 1000


def _classify(rule: Rule, watch: Watch, value: float | None, now: int) -> Input:
    if value is None:
        missing_s = _missing_for_s(watch, now)
        if rule.source == EVERY_SOURCE and missing_s >= rule.forget_s:
            return Input.FORGOTTEN
        return _LOST[rule.no_data] if missing_s >= rule.no_data_for_s else Input.MISSING
    held = _held(rule, watch, now)
    announced = watch.alert.type if watch.state is State.FIRING and watch.alert is not None else None
    if announced is None:
        if held is not None:
            return Input.HELD
        if any(watch.timing(severity).over_since is not None for severity in _SEVERITIES):
            return Input.OVER
        return Input.QUIET
    if announced == "warning" and held == "critical":
        return Input.RAISED
    cleared = {severity: _is_cleared(rule, watch, severity, now) for severity in _SEVERITIES}
    if all(cleared.values()):
        return Input.QUIET
    if announced == "critical" and cleared["critical"] and not rule.is_clear(value, "warning"):
        return Input.LOWERED
    if held is not None:
        return Input.HELD
    return Input.OVER if rule.is_over(value, rule.least_severity) else Input.CALMING


def _held(rule: Rule, watch: Watch, now: int) -> Severity | None:
    """Return the highest severity whose threshold was exceeded for long enough."""
    for severity in reversed(_SEVERITIES):
        since = watch.timing(severity).over_since
        if since is not None and now - since >= rule.for_s * 1000:
            return severity
    return None


def _is_cleared(rule: Rule, watch: Watch, severity: Severity, now: int) -> bool:
    since = watch.timing(severity).clear_since
    return since is not None and now - since >= rule.clear_for_s * 1000


def _apply(rule: Rule, watch: Watch, input: Input, value: float | None, now: int) -> Judgement:
    transition = TABLE[watch.state][input]
    if transition.effect is Effect.NONE:
        if transition.next is State.FIRING:
            return Judgement(_refreshed(rule, watch, value, now), transition)
        return Judgement(_without_alert(watch, transition.next), transition)
    if transition.effect is Effect.RESOLVE:
        ended = _resolved_alert(rule, watch, value, now)
        return Judgement(_without_alert(watch, transition.next), transition, ended)
    alert = _alert(rule, watch, input, value, now)
    started_at = now if transition.effect is Effect.RAISE else watch.started_at
    return Judgement(
        msgspec.structs.replace(
            watch, state=transition.next, started_at=started_at, alert=alert, value=None, message=""
        ),
        transition,
        alert,
    )


def _refreshed(rule: Rule, watch: Watch, value: float | None, now: int) -> Watch:
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


def _labels(rule: Rule, watch: Watch) -> dict[str, str] | UnsetType:
    return (watch.labels | rule.labels) or UNSET


def _without_alert(watch: Watch, state: State) -> Watch:
    return msgspec.structs.replace(watch, state=state, started_at=None, alert=None, value=None, message="")


def _alert(rule: Rule, watch: Watch, input: Input, value: float | None, now: int) -> Alert:
    if value is None:
        severity = rule.least_severity
        message = f"no data for {rule.metric}{f' of {watch.source}' if watch.source else ''}"
    else:
        # LOWERED means warning by definition, even where the warning threshold itself is not exceeded any
        # more.
        severity = "warning" if input is Input.LOWERED else _held(rule, watch, now) or rule.least_severity
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


def _resolved_alert(rule: Rule, watch: Watch, value: float | None, now: int) -> Alert | None:
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
