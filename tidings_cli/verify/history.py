"""The record format: one event a line of JSON, in the order in which each client saw it.

A history may mix the lines of many clients; the lines of one client keep its order. Times serve readers and the time-outs
of answers, nothing else: clocks of several machines differ.
"""

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Literal

import msgspec

from services.clock import now_ms
from services.wire.records import Position


class BadHistory(ValueError):
    """A line is not a record; the message names it."""


class HistoryRecord(
    msgspec.Struct,
    tag_field="event",
    tag=lambda name: name.removesuffix("Record").lower(),
    frozen=True,
    kw_only=True,
    omit_defaults=True,
):
    """Base of all records. `who` is one client over all its connections.

    `at` is ms since 1970; `clock` is seconds of this machine's monotonic clock.
    """

    who: str
    at: int = 0
    clock: float = 0.0


class PublishedRecord(HistoryRecord, frozen=True, kw_only=True):
    """A message is about to be sent. Each retry is a record of its own."""

    room: str
    id: str
    attempt: int = 1


class AcknowledgedRecord(HistoryRecord, frozen=True, kw_only=True):
    """The gateway acknowledged the message at this position."""

    room: str
    id: str
    epoch: str
    seq: int


class RefusedRecord(HistoryRecord, frozen=True, kw_only=True):
    """The gateway answered a message with an error, or a join where `id` is empty."""

    room: str
    code: str
    retryable: bool
    id: str = ""


class JoiningRecord(HistoryRecord, frozen=True, kw_only=True):
    """A client sends a join request; with `since`, to recover what it missed."""

    room: str
    since: Position | None = None


class JoinedRecord(HistoryRecord, frozen=True, kw_only=True):
    """A client is a member from this position on; recovered messages follow as `received`.

    Also recorded without a request, when the gateway restarted the room in a new epoch.
    """

    room: str
    epoch: str
    seq: int
    since: Position | None = None
    recovered: bool | None = None


class ReceivedRecord(HistoryRecord, frozen=True, kw_only=True):
    """A message arrived. `epoch` is the membership's: messages carry none."""

    room: str
    id: str
    epoch: str
    seq: int
    via: Literal["live", "missed"] = "live"


class LeftRecord(HistoryRecord, frozen=True, kw_only=True):
    """A client left a room on purpose."""

    room: str


class LostRecord(HistoryRecord, frozen=True, kw_only=True):
    """A connection ended or failed. `sent_away` is the code of the gateway's `disconnect` message, if there was one."""

    why: str = ""
    sent_away: int = 0


class FinishedRecord(HistoryRecord, frozen=True, kw_only=True):
    """A client stops, after everything stored had time to arrive."""


AnyRecord = (
    PublishedRecord
    | AcknowledgedRecord
    | RefusedRecord
    | JoiningRecord
    | JoinedRecord
    | ReceivedRecord
    | LeftRecord
    | LostRecord
    | FinishedRecord
)

_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder(AnyRecord).decode


class Recorder:
    """Keeps records with their time in memory and, if there is a path, on disk."""

    def __init__(
        self,
        path: Path | None = None,
        *,
        now_ms: Callable[[], int] = now_ms,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.events: list[AnyRecord] = []
        self._now_ms = now_ms
        self._clock = clock
        self._file = path.open("wb") if path is not None else None

    def add(self, event: AnyRecord) -> None:
        stamped = msgspec.structs.replace(event, at=self._now_ms(), clock=round(self._clock(), 4))
        self.events.append(stamped)
        if self._file is not None:
            self._file.write(_encode(stamped) + b"\n")

    def close(self) -> None:
        if self._file is not None:
            self._file.close()


def read_history(path: Path) -> Iterator[AnyRecord]:
    """Yield the records of a history.

    Raises:
        OSError: the file cannot be read.
        BadHistory: a line is not a record.
    """
    with path.open("rb") as file:
        for number, line in enumerate(file, start=1):
            if line.strip():
                try:
                    yield _decode(line)
                except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as fault:
                    raise BadHistory(f"{path}:{number}: {fault}") from None
