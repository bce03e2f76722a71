"""What operators say about alerts, and what they may ask: rules, maintenance windows, receivers, transitions."""

from typing import Literal

import msgspec

from services.wire.records import UNSET, AlertTransition, UnsetType
from services.wire.rpc import ById, Empty, Matcher, Message, RpcEndpoint

Weekday = Literal["mon", "tue", "wed", "thu", "fri", "sat", "sun"]


class AlertRule(Message, frozen=True, kw_only=True):
    """One rule, as the API shows and takes it. Absent fields have the defaults of a rules file.

    `id` and `origin` are set by the server: `file`, `api` or `builtin`; `overridden` where a rule of the file watches
    the same, which then holds instead.
    """

    metric: str
    source: str = ""
    match: dict[str, str] = msgspec.field(default_factory=dict)
    aggregate: Literal["sum", "mean", "min", "max"] = "sum"
    warning: float | None = None
    critical: float | None = None
    op: Literal[">=", "<="] = ">="
    for_s: float = 0.0
    clear_for_s: float = 3.0
    warning_clear: float | None = None
    critical_clear: float | None = None
    no_data: Literal["keep", "resolve", "alert"] = "keep"
    no_data_for_s: float = 10.0
    forget_s: float = 86_400.0
    min_count: int = 0
    limit: int = 1000
    labels: dict[str, str] = msgspec.field(default_factory=dict)
    id: str = ""
    origin: str | UnsetType = UNSET
    overridden: bool | UnsetType = UNSET


class RuleList(Message, frozen=True, kw_only=True):
    """All rules; `error` says why the newest version of the rules file does not hold, empty when it does."""

    rules: list[AlertRule]
    error: str
    file: str | UnsetType = UNSET


class Window(Message, frozen=True, kw_only=True):
    """A maintenance window: alerts that match all matchers are not notified on these days between these times.

    `start` and `end` are `HH:MM` in `timezone` (IANA); an end at or before the start lies on the next day. No days
    mean every day.
    """

    id: str = ""
    matchers: list[Matcher]
    days: list[Weekday] = msgspec.field(default_factory=list)
    start: str
    end: str
    timezone: str = "UTC"
    comment: str = ""
    created_by: str = ""


class WindowList(Message, frozen=True, kw_only=True):
    """All maintenance windows, by id."""

    windows: list[Window]


class Receiver(Message, frozen=True, kw_only=True):
    """State of one receiver of notifications. Its address usually is a secret and left out.

    `up` is false while the last attempt failed; `waiting` counts groups whose notification it has not taken.
    """

    name: str
    kind: Literal["webhook", "alertmanager", "apprise"]
    up: bool
    waiting: int = 0
    failures: int = 0
    error: str = ""
    last_success: int = 0
    last_failure: int = 0


class ReceiverList(Message, frozen=True, kw_only=True):
    """All receivers, by name."""

    receivers: list[Receiver]


class TransitionQuery(Message, frozen=True, kw_only=True):
    """The newest `limit` transitions, of one alert where `id` is given."""

    limit: int = 100
    id: str = ""


class TransitionList(Message, frozen=True, kw_only=True):
    """Transitions, newest first."""

    transitions: list[AlertTransition]


RULES_LIST = RpcEndpoint("metrics", "rules", Empty, RuleList)
RULES_SET = RpcEndpoint("metrics", "rule", AlertRule, AlertRule)
RULES_END = RpcEndpoint("metrics", "unrule", ById, Empty)
WINDOWS_LIST = RpcEndpoint("metrics", "windows", Empty, WindowList)
WINDOWS_SET = RpcEndpoint("metrics", "window", Window, Window)
WINDOWS_END = RpcEndpoint("metrics", "unwindow", ById, Empty)
RECEIVERS_LIST = RpcEndpoint("metrics", "receivers", Empty, ReceiverList)
ALERTS_TRANSITIONS = RpcEndpoint("metrics", "transitions", TransitionQuery, TransitionList)
