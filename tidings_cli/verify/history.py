"""What clients write down: one event a line of JSON, in the order in which each client saw it.

A history may hold the lines of many clients in any mixture, but the lines of one client stand in its own order.
Times are for reading and for waiting times; nothing else is concluded from them: clocks of several machines differ.
"""

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Literal

import msgspec

from services.clock import now_ms
from services.wire.records import Position


class BadHistory(ValueError):
    """A line that is no event; the message says which."""


class Event(msgspec.Struct, tag_field="event", tag=str.lower, frozen=True, kw_only=True, omit_defaults=True):
    """Base of all events. `who` is one client over all its connections.

    `at` is ms since 1970; `clock` is seconds of this machine's monotonic clock.
    """

    who: str
    at: int = 0
    clock: float = 0.0


class Published(Event, frozen=True, kw_only=True):
    """A message is about to be sent; once more for each retry."""

    room: str
    id: str
    attempt: int = 1


class Acknowledged(Event, frozen=True, kw_only=True):
    """The gateway said that the message is stored there."""

    room: str
    id: str
    epoch: str
    seq: int


class Refused(Event, frozen=True, kw_only=True):
    """The gateway answered a message, or a join where `id` is empty, with an error."""

    room: str
    code: str
    retryable: bool
    id: str = ""


class Joining(Event, frozen=True, kw_only=True):
    """A client asks to be a member; with `since`, to get what it missed."""

    room: str
    since: Position | None = None


class Joined(Event, frozen=True, kw_only=True):
    """A client is a member from this position on; what it had missed follows as `received`.

    Also where the gateway says so unasked: it had to begin the room anew.
    """

    room: str
    epoch: str
    seq: int
    since: Position | None = None
    recovered: bool | None = None


class Received(Event, frozen=True, kw_only=True):
    """A message arrived. `epoch` is that of the membership: messages carry none."""

    room: str
    id: str
    epoch: str
    seq: int
    via: Literal["live", "missed"] = "live"


class Left(Event, frozen=True, kw_only=True):
    """A client stopped being a member because it wanted to."""

    room: str


class Lost(Event, frozen=True, kw_only=True):
    """A client's connection ended, or could not be made. `sent_away` is the gateway's `disconnect` code, if it said one."""

    why: str = ""
    sent_away: int = 0


class Finished(Event, frozen=True, kw_only=True):
    """A client stops, after everything stored had time to reach it."""


AnyEvent = Published | Acknowledged | Refused | Joining | Joined | Received | Left | Lost | Finished

_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder(AnyEvent).decode


class Recorder:
    """Takes events down, stamped, in memory and, where a path is given, on disk."""

    def __init__(
        self,
        path: Path | None = None,
        *,
        now_ms: Callable[[], int] = now_ms,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.events: list[AnyEvent] = []
        self._now_ms = now_ms
        self._clock = clock
        self._file = path.open("wb") if path is not None else None

    def add(self, event: AnyEvent) -> None:
        """Take one event down."""
        stamped = msgspec.structs.replace(event, at=self._now_ms(), clock=round(self._clock(), 4))
        self.events.append(stamped)
        if self._file is not None:
            self._file.write(_encode(stamped) + b"\n")

    def close(self) -> None:
        """Finish the file."""
        if self._file is not None:
            self._file.close()
            self._file = None


def read_history(path: Path) -> Iterator[AnyEvent]:
    """Yield the events of a history.

    Raises:
        OSError: the file cannot be read.
        BadHistory: a line is no event.
    """
    with path.open("rb") as file:
        for number, line in enumerate(file, start=1):
            if line.strip():
                try:
                    yield _decode(line)
                except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as fault:
                    raise BadHistory(f"{path}:{number}: {fault}") from None
