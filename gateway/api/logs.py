"""The deployment's recent log lines, and those that applications push, checked one by one."""

from collections.abc import Generator
from typing import Annotated, Any, Literal, get_args

import msgspec
from starlette.responses import Response

from gateway.api.body import decode
from gateway.api.endpoint import Call, IntegerQuery, Query, endpoint, server
from gateway.api.pushes import MAX_ITEMS, PushResult, Tally, check_item, items_of
from gateway.api.responses import ApiError
from services.bus.errors import BusError
from services.clock import now_ms
from services.settings_values import Scope
from services.wire.codes import ErrorCode
from services.wire.events import LogReport, is_timely
from services.wire.names import InvalidName, normalize_name
from services.wire.records import UNSET, LogEntry, Record, UnsetType
from services.wire.rpc import LOGS_RECENT, LogQuery
from services.wire.subjects import LOGS_OF_APPLICATIONS

Level = Literal["debug", "info", "warning", "error", "critical"]
LEVELS: tuple[str, ...] = get_args(Level)

_MAX_LINE_BYTES = 64 * 1024  # as JSON, in which a character may take twelve bytes
_MAX_FIELDS_BYTES = 8192
# Of one message on the bus: lines of the largest size stay under its limit of 1 MiB.
_LINES_PER_REPORT = 50

_Event = Annotated[str, msgspec.Meta(min_length=1, max_length=4096)]
_Fields = Annotated[dict[str, Any], msgspec.Meta(max_length=64)]

_LIMIT = IntegerQuery("limit", 1, 1000, "Most lines answered; 100 when absent.")


class PushedLine(Record, frozen=True, kw_only=True):
    """One line as an application sends it. `event` says what happened, `fields` the particulars."""

    event: _Event
    level: Level = "info"
    source: str = "app"
    timestamp: int | UnsetType = UNSET
    fields: _Fields = msgspec.field(default_factory=dict)


def entry_of(raw: msgspec.Raw, received_at: int) -> LogEntry:
    """Return the line of one item that arrived at `received_at`. Pure.

    Raises:
        ApiError, InvalidName: a field of the item is wrong; the message names it.
    """
    check_item(raw, _MAX_LINE_BYTES)
    line = decode(raw, PushedLine)
    source = normalize_name(line.source, "source")
    if len(msgspec.json.encode(line.fields)) > _MAX_FIELDS_BYTES:
        raise ApiError(ErrorCode.TOO_LARGE, f"`fields` has more than {_MAX_FIELDS_BYTES} bytes")
    timestamp = received_at if line.timestamp is UNSET else line.timestamp
    if not is_timely(timestamp, received_at):
        text = "`timestamp` must be in milliseconds, at most an hour old and not of the future"
        raise ApiError(ErrorCode.INVALID_FIELD, text)
    fields = line.fields or UNSET
    return LogEntry(timestamp=timestamp, level=line.level, source=source, event=line.event, fields=fields)


@endpoint(
    "GET",
    "/api/logs",
    server(Scope.LOGS),
    query=(
        _LIMIT,
        Query("source", str, "Only lines of this source."),
        Query("level", Level, "Only lines of this level and those above."),
    ),
)
async def logs(call: Call) -> list[LogEntry]:
    """The newest log lines of the deployment, oldest first."""
    level = call.query.get("level", "")
    if level and level not in LEVELS:
        raise ApiError(ErrorCode.INVALID_FIELD, f"`level` must be one of {', '.join(LEVELS)}")
    query = LogQuery(limit=_LIMIT.read(call) or 100, source=call.query.get("source", "")[:128], level=level)
    return (await call.gateway.service_client.call(LOGS_RECENT, query)).entries


@endpoint(
    "POST",
    "/api/logs",
    server(Scope.LOGS),
    body=PushedLine | Annotated[list[PushedLine], msgspec.Meta(max_length=MAX_ITEMS)],
    answer=PushResult,
    status=202,
)
async def push_logs(call: Call) -> Response:
    """Add lines to the log stream."""
    items = items_of(await call.text())
    return await call.pushes.logs.run(_publish(call, items))


def _publish(call: Call, items: list[msgspec.Raw]) -> Generator[None, None, Response]:
    """Publish the good lines, those of one source together, a step at a time.

    Raises:
        Unavailable: before any was accepted.
    """
    gateway = call.gateway
    received_at = now_ms()
    by_source: dict[str, list[tuple[int, LogEntry]]] = {}
    tally = Tally()
    for index, raw in enumerate(items):
        yield
        try:
            entry = entry_of(raw, received_at)
        except (ApiError, InvalidName) as fault:
            tally.reject(index, fault)
        else:
            by_source.setdefault(entry.source, []).append((index, entry))
    subject = gateway.settings.subjects.logs_report(LOGS_OF_APPLICATIONS)
    for source, lines in by_source.items():
        for start in range(0, len(lines), _LINES_PER_REPORT):
            yield
            batch = lines[start : start + _LINES_PER_REPORT]
            report = LogReport(source=source, entries=[entry for _, entry in batch])
            try:
                gateway.bus.publish(subject, msgspec.json.encode(report))
            except BusError as fault:
                for index, _ in batch:
                    tally.reject(index, fault)
            else:
                tally.accepted += len(batch)
    return tally.response()
