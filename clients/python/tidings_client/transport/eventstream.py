"""Incremental parser of `text/event-stream` (WHATWG HTML, "Server-sent events")."""

import codecs
import re
from dataclasses import dataclass

_LINE_END = re.compile(r"\r\n|\r|\n")


@dataclass(frozen=True, slots=True)
class StreamEvent:
    """One event."""

    type: str
    data: str
    id: str | None = None


class EventStreamParser:
    """Bytes in, events out."""

    def __init__(self) -> None:
        self.retry: float | None = None
        """The server's `retry:`, in seconds."""
        self._text = codecs.getincrementaldecoder("utf-8")("replace")
        self._rest: list[str] = []  # pieces of a line that has not ended
        self._after_cr = False
        self._started = False
        self._type = ""
        self._data: list[str] = []
        self._id: str | None = None

    def push(self, piece: bytes) -> list[StreamEvent]:
        """Parse the next piece and return the events that it completes."""
        text = self._text.decode(piece)
        if text and not self._started:
            self._started = True
            text = text.removeprefix("\ufeff")
        if self._after_cr and text:
            text = text.removeprefix("\n")  # the second half of a CRLF in two pieces
            self._after_cr = False
        if not text:
            return []
        self._after_cr = text.endswith("\r")
        first, *others = _LINE_END.split(text)
        self._rest.append(first)
        if not others:
            return []
        lines = ["".join(self._rest), *others]
        self._rest = [lines.pop()]
        return [event for line in lines if (event := self._line(line)) is not None]

    def _line(self, line: str) -> StreamEvent | None:
        if not line:
            return self._dispatch()
        name, _, value = line.partition(":")
        value = value.removeprefix(" ")
        match name:
            case "data":
                self._data.append(value)
            case "event":
                self._type = value
            case "id" if "\0" not in value:
                self._id = value
            case "retry" if value.isascii() and value.isdecimal():
                self.retry = int(value) / 1000
        return None

    def _dispatch(self) -> StreamEvent | None:
        event = StreamEvent(self._type or "message", "\n".join(self._data), self._id) if self._data else None
        self._type, self._data, self._id = "", [], None
        return event
