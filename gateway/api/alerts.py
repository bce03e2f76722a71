"""Alerts: active ones, their history, acknowledgement; silences, rules and maintenance windows set by API."""

from collections.abc import Sequence
from typing import Annotated, Literal

import msgspec

from gateway.api.endpoint import MAX_TIME_MS, Call, IntegerQuery, Query, endpoint, reads, server
from gateway.api.responses import ApiError
from services.clock import now_ms
from services.settings_values import Scope
from services.wire.alerting import (
    ALERTS_TRANSITIONS,
    RECEIVERS_LIST,
    RULES_END,
    RULES_LIST,
    RULES_SET,
    WINDOWS_END,
    WINDOWS_LIST,
    WINDOWS_SET,
    AlertRule,
    Receiver,
    RuleList,
    TransitionQuery,
    Weekday,
    Window,
)
from services.wire.codes import ErrorCode
from services.wire.records import UNSET, Alert, AlertLogEntry, AlertTransition, Record, UnsetType
from services.wire.rpc import (
    ALERTS_ACK,
    ALERTS_ACTIVE,
    ALERTS_LOG,
    SILENCES_END,
    SILENCES_LIST,
    SILENCES_SET,
    AlertAck,
    AlertLogQuery,
    ById,
    Empty,
    Matcher,
    Silence,
)

_YEAR_S = 366 * 24 * 3600

_Word = Annotated[str, msgspec.Meta(max_length=128)]
_Remark = Annotated[str, msgspec.Meta(max_length=1000)]
_TimeMs = Annotated[int, msgspec.Meta(ge=0, le=MAX_TIME_MS)]

_LIMIT = IntegerQuery("limit", 1, 1000, "Most entries answered; 100 when absent.")
_READS = reads("alerts")
_MANAGES = server(Scope.ALERTS)


# --- alerts ---


@endpoint("GET", "/api/alerts", _READS)
async def active_alerts(call: Call) -> list[Alert]:
    """Alerts that are active."""
    return (await call.gateway.service_client.call(ALERTS_ACTIVE, Empty())).alerts


@endpoint("GET", "/api/alerts/history", _READS, query=(_LIMIT,))
async def alert_history(call: Call) -> list[AlertLogEntry]:
    """What began and ended, newest first."""
    query = AlertLogQuery(limit=_LIMIT.read(call) or 100)
    return (await call.gateway.service_client.call(ALERTS_LOG, query)).entries


@endpoint(
    "GET",
    "/api/alerts/transitions",
    _READS,
    query=(_LIMIT, Query("id", str, "Only those of this alert.")),
)
async def alert_transitions(call: Call) -> list[AlertTransition]:
    """What alerts did, announced or not, and why; newest first."""
    query = TransitionQuery(limit=_LIMIT.read(call) or 100, id=call.query.get("id", "")[:4096])
    return (await call.gateway.service_client.call(ALERTS_TRANSITIONS, query)).transitions


@endpoint("GET", "/api/receivers", _READS)
async def receivers(call: Call) -> list[Receiver]:
    """How the receivers of notifications are doing."""
    return (await call.gateway.service_client.call(RECEIVERS_LIST, Empty())).receivers


class AckRequest(Record, frozen=True, kw_only=True):
    """The acknowledgement of an alert: by which user, with a comment."""

    by: _Word = ""
    comment: _Remark = ""


@endpoint("POST", "/api/alerts/{id:path}/ack", _MANAGES, body=AckRequest, body_required=False)
async def acknowledge_alert(call: Call) -> Alert:
    """Acknowledge an active alert."""
    asked = await call.json(AckRequest)
    ack = AlertAck(id=call.path["id"], by=asked.by, comment=asked.comment)
    return await call.gateway.service_client.call(ALERTS_ACK, ack)


# --- silences ---


class MatcherRequest(Record, frozen=True, kw_only=True):
    """A field of alerts (`id`, `metric`, `type`, `source` or a label) and what it must be.

    `op`: `=` or `!=`; `~` or `!~` takes the value for a pattern with `*`, `?` and `[…]`.
    """

    name: Annotated[str, msgspec.Meta(min_length=1, max_length=128)]
    value: Annotated[str, msgspec.Meta(max_length=128)]
    op: Literal["=", "!=", "~", "!~"] = "="


_Matchers = Annotated[list[MatcherRequest], msgspec.Meta(min_length=1, max_length=16)]


def _matchers_of(asked: Sequence[MatcherRequest]) -> list[Matcher]:
    return msgspec.convert(asked, list[Matcher], from_attributes=True)


class SilenceRequest(Record, frozen=True, kw_only=True):
    """Which alerts to keep quiet, from `starts_at` (now) until `ends_at`, or for `duration` seconds."""

    matchers: _Matchers
    starts_at: _TimeMs | UnsetType = UNSET
    ends_at: _TimeMs | UnsetType = UNSET
    duration: Annotated[int, msgspec.Meta(ge=1, le=_YEAR_S)] | UnsetType = UNSET
    comment: _Remark = ""
    created_by: _Word = ""


def silence_of(asked: SilenceRequest, now_ms: int) -> Silence:
    """Return the silence of a request at `now_ms`.

    Raises:
        ApiError: `invalid_field`: not exactly one end, or one that is over or before the start.
    """
    starts_at = now_ms if asked.starts_at is UNSET else asked.starts_at
    if asked.ends_at is not UNSET and asked.duration is UNSET:
        ends_at = asked.ends_at
    elif asked.duration is not UNSET and asked.ends_at is UNSET:
        ends_at = starts_at + asked.duration * 1000
    else:
        raise ApiError(ErrorCode.INVALID_FIELD, "exactly one of `endsAt` and `duration` is needed")
    if ends_at <= max(starts_at, now_ms):
        raise ApiError(ErrorCode.INVALID_FIELD, "the silence would be over before it begins")
    return Silence(
        matchers=_matchers_of(asked.matchers),
        starts_at=starts_at,
        ends_at=ends_at,
        comment=asked.comment,
        created_by=asked.created_by,
    )


@endpoint("GET", "/api/silences", _READS)
async def silences(call: Call) -> list[Silence]:
    """Silences that have not ended."""
    return (await call.gateway.service_client.call(SILENCES_LIST, Empty())).silences


@endpoint("POST", "/api/silences", _MANAGES, body=SilenceRequest, status=201)
async def silence(call: Call) -> Silence:
    """Silence alerts."""
    wanted = silence_of(await call.json(SilenceRequest), now_ms())
    return await call.gateway.service_client.call(SILENCES_SET, wanted)


@endpoint("DELETE", "/api/silences/{id}", _MANAGES, status=204)
async def unsilence(call: Call) -> None:
    """End a silence now."""
    await call.gateway.service_client.call(SILENCES_END, ById(id=call.path["id"]))


# --- rules, beside those of the rules file ---

_RuleWord = Annotated[str, msgspec.Meta(max_length=256)]
_RuleWords = Annotated[dict[_RuleWord, _RuleWord], msgspec.Meta(max_length=32)]
_Seconds = Annotated[float, msgspec.Meta(ge=0, le=30 * 86_400)]


class RuleRequest(Record, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """When one metric is worth an alert; the keys of a rules file, in camelCase."""

    metric: Annotated[str, msgspec.Meta(min_length=1, max_length=128)]
    source: Annotated[str, msgspec.Meta(max_length=2400)] = ""
    match: _RuleWords = msgspec.field(default_factory=dict)
    aggregate: Literal["sum", "mean", "min", "max"] = "sum"
    warning: float | None = None
    critical: float | None = None
    op: Literal[">=", "<="] = ">="
    for_s: _Seconds = 0.0
    clear_for_s: _Seconds = 3.0
    warning_clear: float | None = None
    critical_clear: float | None = None
    no_data: Literal["keep", "resolve", "alert"] = "keep"
    no_data_for_s: _Seconds = 10.0
    forget_s: _Seconds = 86_400.0
    min_count: Annotated[int, msgspec.Meta(ge=0)] = 0
    limit: Annotated[int, msgspec.Meta(ge=1)] = 1000
    labels: _RuleWords = msgspec.field(default_factory=dict)


@endpoint("GET", "/api/rules", _READS)
async def rules(call: Call) -> RuleList:
    """All alert rules, where each comes from, and what is wrong with the rules file."""
    return await call.gateway.service_client.call(RULES_LIST, Empty())


@endpoint("PUT", "/api/rules", _MANAGES, body=RuleRequest)
async def put_rule(call: Call) -> AlertRule:
    """Add an alert rule, or replace the one that watches the same."""
    rule = AlertRule(**msgspec.structs.asdict(await call.json(RuleRequest)))
    return await call.gateway.service_client.call(RULES_SET, rule)


@endpoint("DELETE", "/api/rules/{id:path}", _MANAGES, status=204)
async def remove_rule(call: Call) -> None:
    """Forget an alert rule that was given by API."""
    await call.gateway.service_client.call(RULES_END, ById(id=call.path["id"]))


# --- maintenance windows: times that come again, in which alerts that match are not notified ---

_TimeOfDay = Annotated[str, msgspec.Meta(pattern=r"^([01][0-9]|2[0-3]):[0-5][0-9]$")]


class WindowRequest(Record, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """When, each day or on some days, which alerts are kept quiet; with the `id` of one there is, it is replaced."""

    matchers: _Matchers
    days: Annotated[list[Weekday], msgspec.Meta(max_length=7)] = msgspec.field(default_factory=list)
    start: _TimeOfDay
    end: _TimeOfDay
    timezone: _Word = "UTC"
    comment: _Remark = ""
    created_by: _Word = ""
    id: _Word = ""


@endpoint("GET", "/api/windows", _READS)
async def windows(call: Call) -> list[Window]:
    """Maintenance windows."""
    return (await call.gateway.service_client.call(WINDOWS_LIST, Empty())).windows


@endpoint("POST", "/api/windows", _MANAGES, body=WindowRequest, status=201)
async def put_window(call: Call) -> Window:
    """Add a maintenance window, or replace the one of that id."""
    asked = await call.json(WindowRequest)
    fields = msgspec.structs.asdict(asked) | {"matchers": _matchers_of(asked.matchers)}
    return await call.gateway.service_client.call(WINDOWS_SET, Window(**fields))


@endpoint("DELETE", "/api/windows/{id}", _MANAGES, status=204)
async def remove_window(call: Call) -> None:
    """Forget a maintenance window."""
    await call.gateway.service_client.call(WINDOWS_END, ById(id=call.path["id"]))
