"""The states of an alert and every transition between them.

```
             OVER               HELD
 inactive ─────────▶ pending ─────────▶ firing ──┐ severity raised or lowered: announced again
    ▲  ▲               │                 │  ▲────┘
    │  └── not over ───┘                 │ QUIET, or without data, or without its rule
    └────────────── resolved ◀───────────┘
```

An alert is announced on entering `firing` and on each change of severity, and its end once, on entering
`resolved`. A value between a threshold and its clear threshold changes nothing: that is what keeps an alert
from flapping. What the inputs mean in numbers is the business of `judge`.
"""

from enum import Enum, StrEnum
from typing import NamedTuple


class AlertState(StrEnum):
    """Where an alert stands."""

    INACTIVE = "inactive"
    PENDING = "pending"
    FIRING = "firing"
    RESOLVED = "resolved"


class Signal(Enum):
    """What one second says about an alert."""

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
    """Why a transition happened, for logs and metrics."""

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
    """Where an input leads, what is announced, and why."""

    next: AlertState
    effect: AlertEffect
    reason: TransitionReason


def _stay(state: AlertState, reason: TransitionReason) -> Transition:
    return Transition(state, AlertEffect.NONE, reason)


_FIRE = Transition(AlertState.FIRING, AlertEffect.RAISE, TransitionReason.BREACH_HELD)
_FIRE_WITHOUT_DATA = Transition(AlertState.FIRING, AlertEffect.RAISE, TransitionReason.NO_DATA_ALERT)


def _at_rest(quiet: TransitionReason) -> dict[Signal, Transition]:
    """Return what `inactive` and `resolved` have in common: all but why nothing happened."""
    return {
        Signal.QUIET: _stay(AlertState.INACTIVE, quiet),
        Signal.CALMING: _stay(AlertState.INACTIVE, quiet),
        Signal.OVER: _stay(AlertState.PENDING, TransitionReason.BREACH_BEGAN),
        Signal.HELD: _FIRE,
        Signal.RAISED: _FIRE,
        Signal.LOWERED: _FIRE,
        Signal.MISSING: _stay(AlertState.INACTIVE, TransitionReason.NO_DATA),
        Signal.LOST_KEEP: _stay(AlertState.INACTIVE, TransitionReason.NO_DATA),
        Signal.LOST_RESOLVE: _stay(AlertState.INACTIVE, TransitionReason.NO_DATA),
        Signal.LOST_ALERT: _FIRE_WITHOUT_DATA,
        Signal.FORGOTTEN: _stay(AlertState.INACTIVE, TransitionReason.SOURCE_FORGOTTEN),
        Signal.REMOVED: _stay(AlertState.INACTIVE, TransitionReason.RULE_REMOVED),
    }


TABLE: dict[AlertState, dict[Signal, Transition]] = {
    AlertState.INACTIVE: _at_rest(TransitionReason.NOT_OVER),
    AlertState.PENDING: {
        Signal.QUIET: _stay(AlertState.INACTIVE, TransitionReason.BREACH_ENDED),
        Signal.CALMING: _stay(AlertState.INACTIVE, TransitionReason.BREACH_ENDED),
        Signal.OVER: _stay(AlertState.PENDING, TransitionReason.BREACH_HOLDS),
        Signal.HELD: _FIRE,
        Signal.RAISED: _FIRE,
        Signal.LOWERED: _FIRE,
        Signal.MISSING: _stay(AlertState.PENDING, TransitionReason.NO_DATA),
        Signal.LOST_KEEP: _stay(AlertState.INACTIVE, TransitionReason.NO_DATA),
        Signal.LOST_RESOLVE: _stay(AlertState.INACTIVE, TransitionReason.NO_DATA),
        Signal.LOST_ALERT: _FIRE_WITHOUT_DATA,
        Signal.FORGOTTEN: _stay(AlertState.INACTIVE, TransitionReason.SOURCE_FORGOTTEN),
        Signal.REMOVED: _stay(AlertState.INACTIVE, TransitionReason.RULE_REMOVED),
    },
    AlertState.FIRING: {
        Signal.QUIET: Transition(AlertState.RESOLVED, AlertEffect.RESOLVE, TransitionReason.CLEARED),
        Signal.CALMING: _stay(AlertState.FIRING, TransitionReason.CALMING),
        Signal.OVER: _stay(AlertState.FIRING, TransitionReason.STILL_OVER),
        Signal.HELD: _stay(AlertState.FIRING, TransitionReason.STILL_OVER),
        Signal.RAISED: Transition(AlertState.FIRING, AlertEffect.CHANGE, TransitionReason.SEVERITY_RAISED),
        Signal.LOWERED: Transition(AlertState.FIRING, AlertEffect.CHANGE, TransitionReason.SEVERITY_LOWERED),
        Signal.MISSING: _stay(AlertState.FIRING, TransitionReason.NO_DATA),
        Signal.LOST_KEEP: _stay(AlertState.FIRING, TransitionReason.NO_DATA),
        Signal.LOST_RESOLVE: Transition(
            AlertState.RESOLVED, AlertEffect.RESOLVE, TransitionReason.NO_DATA_RESOLVED
        ),
        Signal.LOST_ALERT: _stay(AlertState.FIRING, TransitionReason.NO_DATA_ALERT),
        Signal.FORGOTTEN: Transition(
            AlertState.RESOLVED, AlertEffect.RESOLVE, TransitionReason.SOURCE_FORGOTTEN
        ),
        Signal.REMOVED: Transition(AlertState.RESOLVED, AlertEffect.RESOLVE, TransitionReason.RULE_REMOVED),
    },
    AlertState.RESOLVED: _at_rest(TransitionReason.SETTLED),
}
