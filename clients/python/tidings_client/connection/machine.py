"""The state machine of a connection, as one table. Pure: `connection.py` carries out the actions."""

from collections.abc import Mapping
from typing import Literal, NamedTuple

State = Literal["closed", "connecting", "connected", "suspended", "failed"]

Input = Literal[
    "connect",  # the application wants a connection
    "close",  # the application closes it
    "welcomed",  # `welcome` arrived
    "lost",  # the transport ended, and may be opened again
    "refused",  # the transport ended, and must not be opened again
    "due",  # the backoff is over
    "wake",  # the network is back, the machine woke
    "upgrade",  # on the fallback: time to try the preferred transport
    "upgraded",  # it works
    "replaced",  # the transport ended while the preferred one was being tried, perhaps because of it
]

Action = Literal[
    "open",  # open a transport
    "drop",  # close the transport
    "leave",  # the same, and the server counts the user as gone
    "wait",  # schedule `due`
    "cancel",  # unschedule it
    "probe",  # ask the server for an answer
    "try",  # open the preferred transport beside the current one
    "switch",  # continue over it
]


class Step(NamedTuple):
    """The next state, and the actions on the way to it."""

    next: State
    actions: tuple[Action, ...]


def _step(following: State, *actions: Action) -> Step:
    return Step(following, actions)


# The step for each state and input. Inputs that are not listed change nothing.
TABLE: Mapping[State, Mapping[Input, Step]] = {
    "closed": {
        "connect": _step("connecting", "open"),
    },
    "connecting": {
        "welcomed": _step("connected"),
        "lost": _step("suspended", "drop", "wait"),
        "refused": _step("failed", "drop"),
        "close": _step("closed", "leave"),
    },
    "connected": {
        "lost": _step("suspended", "drop", "wait"),
        "refused": _step("failed", "drop"),
        "wake": _step("connected", "probe"),
        "upgrade": _step("connected", "try"),
        "upgraded": _step("connected", "switch"),
        "replaced": _step("connecting"),
        "close": _step("closed", "leave"),
    },
    "suspended": {
        "due": _step("connecting", "open"),
        "wake": _step("connecting", "cancel", "open"),
        "connect": _step("connecting", "cancel", "open"),
        "close": _step("closed", "cancel"),
    },
    "failed": {
        "connect": _step("connecting", "open"),
        "close": _step("closed"),
    },
}


def advance(state: State, given: Input) -> Step | None:
    """Return the step for an input, or None if it changes nothing."""
    return TABLE[state].get(given)
