"""States of an alert, and every transition between them.

```
             OVER               HELD
 inactive ─────────▶ pending ─────────▶ firing ──┐ severity raised or lowered: announced again
    ▲  ▲               │                 │  ▲────┘
    │  └── not over ───┘                 │ QUIET, or without data, or without its rule
    └────────────── resolved ◀───────────┘
```

An alert is announced on entering `firing` and on each change of severity; its end is announced once, on entering
`resolved`. A value between a threshold and its clear threshold changes nothing, so that alerts do not flap. `instance`
derives signals from numbers.
"""

from enum import Enum, StrEnum
from typing import NamedTuple


class AlertState(StrEnum):
    """State of an alert."""

    INACTIVE = "inactive"
    PENDING = "pending"
    FIRING = "firing"
    RESOLVED = "resolved"


class Signal(Enum):
    """What the value of one second means for an alert."""

    QUIET = "past the clear threshold, for long enough"
    CALMING = "not over a threshold, but not past the clear threshold for long enough either"
    OVER = "over a threshold, not yet for long enough"
    HELD = "over a threshold for long enough"
    RAISED = "over a higher threshold than the one announced, for long enough"
    LOWERED = "past the clear threshold of the severity announced, but not of the one below"
    MISSING = "no data, not yet for long enough to mean something"
    LOST_KEEP = "no data for long enough; the rule says keep"
    LOST_RESOLVE = "no data for long enough; the rule says resolve"
    LOST_ALERT = "no data for long enough; the rule says alert"
    FORGOTTEN = "no data for so long that the source is gone for good"
    REMOVED = "the rule is gone"


class AlertEffect(Enum):
    """What a transition announces."""

    NONE = "nothing"
    RAISE = "the alert"
    CHANGE = "the alert, with another severity"
    RESOLVE = "the end of the alert"


class TransitionReason(StrEnum):
    """Why a transition happened, for logs, metrics and the alert log."""

    NOT_OVER = "not over a threshold"
    BREACH_BEGAN = "over a threshold"
    BREACH_HOLDS = "over a threshold, waiting"
    BREACH_ENDED = "back under the threshold before it counted"
    BREACH_HELD = "over a threshold for long enough"
    STILL_OVER = "still over the threshold"
    SEVERITY_RAISED = "over the next threshold"
    SEVERITY_LOWERED = "back under the higher threshold"
    CALMING = "not yet clear"
    CLEARED = "past the clear threshold for long enough"
    SETTLED = "resolved before"
    NO_DATA = "no data"
    NO_DATA_ALERT = "no data for too long"
    NO_DATA_RESOLVED = "no data for so long that the alert ends"
    SOURCE_FORGOTTEN = "no data for so long that the source is taken for gone"
    RULE_REMOVED = "the rule was removed"


class Transition(NamedTuple):
    """The next state, the announcement, and the reason."""

    next: AlertState
    effect: AlertEffect
    reason: TransitionReason


def _silent(state: AlertState, reason: TransitionReason) -> Transition:
    return Transition(state, AlertEffect.NONE, reason)


_FIRE = Transition(AlertState.FIRING, AlertEffect.RAISE, TransitionReason.BREACH_HELD)


def _not_firing(quiet: TransitionReason, over: TransitionReason) -> dict[Signal, Transition]:
    """Transitions of the states that do not fire: they differ only in the reasons for not firing."""
    return {
        Signal.QUIET: _silent(AlertState.INACTIVE, quiet),
        Signal.CALMING: _silent(AlertState.INACTIVE, quiet),
        Signal.OVER: _silent(AlertState.PENDING, over),
        Signal.HELD: _FIRE,
        Signal.RAISED: _FIRE,
        Signal.LOWERED: _FIRE,
        Signal.MISSING: _silent(AlertState.INACTIVE, TransitionReason.NO_DATA),
        Signal.LOST_KEEP: _silent(AlertState.INACTIVE, TransitionReason.NO_DATA),
        Signal.LOST_RESOLVE: _silent(AlertState.INACTIVE, TransitionReason.NO_DATA),
        Signal.LOST_ALERT: Transition(AlertState.FIRING, AlertEffect.RAISE, TransitionReason.NO_DATA_ALERT),
        Signal.FORGOTTEN: _silent(AlertState.INACTIVE, TransitionReason.SOURCE_FORGOTTEN),
        Signal.REMOVED: _silent(AlertState.INACTIVE, TransitionReason.RULE_REMOVED),
    }


def _resolve(reason: TransitionReason) -> Transition:
    return Transition(AlertState.RESOLVED, AlertEffect.RESOLVE, reason)


TABLE: dict[AlertState, dict[Signal, Transition]] = {
    AlertState.INACTIVE: _not_firing(TransitionReason.NOT_OVER, TransitionReason.BREACH_BEGAN),
    AlertState.PENDING: _not_firing(TransitionReason.BREACH_ENDED, TransitionReason.BREACH_HOLDS)
    | {Signal.MISSING: _silent(AlertState.PENDING, TransitionReason.NO_DATA)},
    AlertState.FIRING: {
        Signal.QUIET: _resolve(TransitionReason.CLEARED),
        Signal.CALMING: _silent(AlertState.FIRING, TransitionReason.CALMING),
        Signal.OVER: _silent(AlertState.FIRING, TransitionReason.STILL_OVER),
        Signal.HELD: _silent(AlertState.FIRING, TransitionReason.STILL_OVER),
        Signal.RAISED: Transition(AlertState.FIRING, AlertEffect.CHANGE, TransitionReason.SEVERITY_RAISED),
        Signal.LOWERED: Transition(AlertState.FIRING, AlertEffect.CHANGE, TransitionReason.SEVERITY_LOWERED),
        Signal.MISSING: _silent(AlertState.FIRING, TransitionReason.NO_DATA),
        Signal.LOST_KEEP: _silent(AlertState.FIRING, TransitionReason.NO_DATA),
        Signal.LOST_RESOLVE: _resolve(TransitionReason.NO_DATA_RESOLVED),
        Signal.LOST_ALERT: _silent(AlertState.FIRING, TransitionReason.NO_DATA_ALERT),
        Signal.FORGOTTEN: _resolve(TransitionReason.SOURCE_FORGOTTEN),
        Signal.REMOVED: _resolve(TransitionReason.RULE_REMOVED),
    },
    AlertState.RESOLVED: _not_firing(TransitionReason.SETTLED, TransitionReason.BREACH_BEGAN),
}
