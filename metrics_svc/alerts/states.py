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


class State(StrEnum):
    """Where an alert stands."""

    INACTIVE = "inactive"
    PENDING = "pending"
    FIRING = "firing"
    RESOLVED = "resolved"


class Input(Enum):
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


class Effect(Enum):
    """What a transition announces."""

    NONE = "nothing"
    RAISE = "the alert"
    CHANGE = "the alert, with another severity"
    RESOLVE = "the end of the alert"


class Reason(StrEnum):
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

    next: State
    effect: Effect
    reason: Reason


def _stay(state: State, reason: Reason) -> Transition:
    return Transition(state, Effect.NONE, reason)


_FIRE = Transition(State.FIRING, Effect.RAISE, Reason.BREACH_HELD)
_FIRE_WITHOUT_DATA = Transition(State.FIRING, Effect.RAISE, Reason.NO_DATA_ALERT)


def _at_rest(quiet: Reason) -> dict[Input, Transition]:
    """Return what `inactive` and `resolved` have in common: all but why nothing happened."""
    return {
        Input.QUIET: _stay(State.INACTIVE, quiet),
        Input.CALMING: _stay(State.INACTIVE, quiet),
        Input.OVER: _stay(State.PENDING, Reason.BREACH_BEGAN),
        Input.HELD: _FIRE,
        Input.RAISED: _FIRE,
        Input.LOWERED: _FIRE,
        Input.MISSING: _stay(State.INACTIVE, Reason.NO_DATA),
        Input.LOST_KEEP: _stay(State.INACTIVE, Reason.NO_DATA),
        Input.LOST_RESOLVE: _stay(State.INACTIVE, Reason.NO_DATA),
        Input.LOST_ALERT: _FIRE_WITHOUT_DATA,
        Input.FORGOTTEN: _stay(State.INACTIVE, Reason.SOURCE_FORGOTTEN),
        Input.REMOVED: _stay(State.INACTIVE, Reason.RULE_REMOVED),
    }


TABLE: dict[State, dict[Input, Transition]] = {
    State.INACTIVE: _at_rest(Reason.NOT_OVER),
    State.PENDING: {
        Input.QUIET: _stay(State.INACTIVE, Reason.BREACH_ENDED),
        Input.CALMING: _stay(State.INACTIVE, Reason.BREACH_ENDED),
        Input.OVER: _stay(State.PENDING, Reason.BREACH_HOLDS),
        Input.HELD: _FIRE,
        Input.RAISED: _FIRE,
        Input.LOWERED: _FIRE,
        Input.MISSING: _stay(State.PENDING, Reason.NO_DATA),
        Input.LOST_KEEP: _stay(State.INACTIVE, Reason.NO_DATA),
        Input.LOST_RESOLVE: _stay(State.INACTIVE, Reason.NO_DATA),
        Input.LOST_ALERT: _FIRE_WITHOUT_DATA,
        Input.FORGOTTEN: _stay(State.INACTIVE, Reason.SOURCE_FORGOTTEN),
        Input.REMOVED: _stay(State.INACTIVE, Reason.RULE_REMOVED),
    },
    State.FIRING: {
        Input.QUIET: Transition(State.RESOLVED, Effect.RESOLVE, Reason.CLEARED),
        Input.CALMING: _stay(State.FIRING, Reason.CALMING),
        Input.OVER: _stay(State.FIRING, Reason.STILL_OVER),
        Input.HELD: _stay(State.FIRING, Reason.STILL_OVER),
        Input.RAISED: Transition(State.FIRING, Effect.CHANGE, Reason.SEVERITY_RAISED),
        Input.LOWERED: Transition(State.FIRING, Effect.CHANGE, Reason.SEVERITY_LOWERED),
        Input.MISSING: _stay(State.FIRING, Reason.NO_DATA),
        Input.LOST_KEEP: _stay(State.FIRING, Reason.NO_DATA),
        Input.LOST_RESOLVE: Transition(State.RESOLVED, Effect.RESOLVE, Reason.NO_DATA_RESOLVED),
        Input.LOST_ALERT: _stay(State.FIRING, Reason.NO_DATA_ALERT),
        Input.FORGOTTEN: Transition(State.RESOLVED, Effect.RESOLVE, Reason.SOURCE_FORGOTTEN),
        Input.REMOVED: Transition(State.RESOLVED, Effect.RESOLVE, Reason.RULE_REMOVED),
    },
    State.RESOLVED: _at_rest(Reason.SETTLED),
}
