"""The life of a connection as one table. Pure: no socket, no timer; `connection.py` carries out the actions."""

from collections.abc import Mapping
from typing import Literal, NamedTuple

State = Literal["closed", "connecting", "connected", "suspended", "failed"]

Input = Literal[
    "connect",  # the application wants a connection
    "close",  # it wants none
    "welcomed",  # the server greeted
    "lost",  # the transport ended, and may be opened again
    "refused",  # the transport ended, and must not be opened again
    "due",  # the wait is over
    "wake",  # the network is back, the machine woke
    "upgrade",  # on the fallback: the better transport deserves another try
    "upgraded",  # it works
    "replaced",  # the transport ended while the better one was being tried, which may be why
]

Action = Literal[
    "open",  # open a transport
    "drop",  # let go of the transport
    "leave",  # the same, telling the server that the user is gone
    "wait",  # schedule `due`
    "cancel",  # unschedule it
    "probe",  # ask for a sign of life, soon
    "try",  # open the better transport beside the one that works
    "switch",  # go on over it
]


class Step(NamedTuple):
    """Where an input leads, and what is done on the way."""

    next: State
    actions: tuple[Action, ...]


def _step(following: State, *actions: Action) -> Step:
    return Step(following, actions)


# What each input does in each state. What is not listed changes nothing.
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
    """Return the step that an input takes, or None where it changes nothing."""
    return TABLE[state].get(given)
