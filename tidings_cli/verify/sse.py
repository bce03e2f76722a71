"""Server-Sent Events over HTTP/1.1, as far as a client of `/events` needs them. Bytes in, events out; no I/O."""

from collections.abc import Iterator
from dataclasses import dataclass, field


@dataclass(slots=True)
class SseEvent:
    """One event of a stream (WHATWG HTML, section 9.2)."""

    type: str = "message"
    data: str = ""
    id: str = ""


@dataclass(slots=True)
class SseParser:
    """Takes bytes as they come, in any pieces; yields whole events. `retry_ms` is what the server last asked for."""

    retry_ms: int = 0
    _rest: bytes = b""
    _lines: list[str] = field(default_factory=list)

    def feed(self, data: bytes) -> Iterator[SseEvent]:
        """Yield the events that are complete now."""
        *lines, self._rest = (self._rest + data).split(b"\n")
        for raw in lines:
            line = raw.decode().removesuffix("\r")
            if line:
                self._lines.append(line)
            elif self._lines:
                event = self._event()
                if event.data:
                    yield event

    def _event(self) -> SseEvent:
        event, data = SseEvent(), []
        for line in self._lines:
            name, _, value = line.partition(":")
            value = value.removeprefix(" ")
            match name:
                case "event":
                    event.type = value
                case "data":
                    data.append(value)
                case "id":
                    event.id = value
                case "retry" if value.isdigit():
                    self.retry_ms = int(value)
                case _:
                    continue  # a comment, or a field of the future
        self._lines.clear()
        event.data = "\n".join(data)
        return event


class BadChunk(ValueError):
    """Bytes that are no chunked body."""


@dataclass(slots=True)
class ChunkedBody:
    """Takes a chunked body apart (RFC 9112, section 7.1). `ended` says that its last chunk came: it was not cut."""

    ended: bool = False
    _rest: bytes = b""

    def feed(self, data: bytes) -> bytes:
        """Return the payload that is whole now.

        Raises:
            BadChunk: a chunk without a size.
        """
        self._rest += data
        whole = b""
        while not self.ended:
            head, newline, rest = self._rest.partition(b"\r\n")
            if not newline:
                break
            try:
                size = int(head.partition(b";")[0], 16)
            except ValueError:
                raise BadChunk(repr(head[:20])) from None
            if len(rest) < size + 2:
                break
            whole += rest[:size]
            self._rest = rest[size + 2 :]
            self.ended = size == 0
        return whole
