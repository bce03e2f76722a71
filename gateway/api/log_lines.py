"""Log lines that applications push: checked one by one, and bounded. Pure."""

from collections.abc import Iterator, Sequence
from typing import Annotated, Any, Literal, get_args

import msgspec

from gateway.api.body import decode
from gateway.api.responses import ApiError
from services.wire.codes import ErrorCode
from services.wire.names import InvalidName, normalize_name
from services.wire.records import UNSET, LogEntry, Record, UnsetType

Level = Literal["debug", "info", "warning", "error", "critical"]
LEVELS: tuple[str, ...] = get_args(Level)

_MAX_EVENT_CHARS = 4096
_MAX_FIELDS_BYTES = 8192
_OLDEST_MS = 3_600_000
_NEWEST_MS = 60_000
# Of one message on the bus: lines of the largest size stay under its limit of 1 MiB.
_LINES_PER_REPORT = 50

_Event = Annotated[str, msgspec.Meta(min_length=1, max_length=_MAX_EVENT_CHARS)]
_Fields = Annotated[dict[str, Any], msgspec.Meta(max_length=64)]


class PushedLine(Record, frozen=True, kw_only=True):
    """One line as an application sends it. `event` says what happened, `fields` the particulars."""

    event: _Event
    level: Level = "info"
    source: str = "app"
    timestamp: int | UnsetType = UNSET
    fields: _Fields = msgspec.field(default_factory=dict)


def entry_of(raw: msgspec.Raw, now_ms: int) -> LogEntry:
    """Return the line of one item that arrived at `now_ms`.

    Raises:
        ApiError: which field of the item is wrong, and why.
    """
    line = decode(raw, PushedLine)
    try:
        source = normalize_name(line.source, "source")
    except InvalidName as fault:
        raise ApiError(ErrorCode.INVALID_NAME, str(fault)) from None
    if len(msgspec.json.encode(line.fields)) > _MAX_FIELDS_BYTES:
        raise ApiError(ErrorCode.TOO_LARGE, f"`fields` has more than {_MAX_FIELDS_BYTES} bytes")
    timestamp = now_ms if line.timestamp is UNSET else line.timestamp
    if not now_ms - _OLDEST_MS <= timestamp <= now_ms + _NEWEST_MS:
        raise ApiError(
            ErrorCode.INVALID_FIELD,
            "`timestamp` must be in milliseconds, at most an hour old and not of the future",
        )
    return LogEntry(
        timestamp=timestamp,
        level=line.level,
        source=source,
        event=line.event,
        fields=line.fields or UNSET,
    )


def batches(lines: Sequence[tuple[int, LogEntry]]) -> Iterator[Sequence[tuple[int, LogEntry]]]:
    """Yield the lines in parts that fit one message of the bus each."""
    for start in range(0, len(lines), _LINES_PER_REPORT):
        yield lines[start : start + _LINES_PER_REPORT]
