"""A member over Server-Sent Events: follows rooms on `/events`, and resumes them all with `Last-Event-ID`."""

import asyncio
import ssl
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing, suppress
from typing import Any
from urllib.parse import urlencode, urlsplit

import msgspec

from services.backoff import Backoff
from services.wire.records import Position
from tidings_cli.verify.client import Receiver
from tidings_cli.verify.gateways import CannotConnect, Gateways
from tidings_cli.verify.history import Finished, Joined, Joining, Lost, Received, Recorder
from tidings_cli.verify.member import id_of, note_join, position_of
from tidings_cli.verify.sse import BadChunk, ChunkedBody, SseEvent, SseParser

_OPEN_S = 15.0
_SILENCE_S = 20.0  # the server's heartbeat comes every 5 s
_READ_BYTES = 65_536
_MAX_HEAD_BYTES = 65_536


class StreamMember(Receiver):
    """Follows rooms and stays. Everything missed comes before the notice that says where the room stands."""

    def __init__(
        self, who: str, rooms: Sequence[str], gateways: Gateways, recorder: Recorder, place: int
    ) -> None:
        self.who = who
        self.rooms = tuple(rooms)
        self.positions: dict[str, Position] = {}
        self.present: set[str] = set()
        self._gateways = gateways
        self._record = recorder
        self._place = place
        self._last_id = ""
        self._missed: dict[str, list[dict[str, Any]]] = {}
        self._stopping = asyncio.Event()
        self._backoff = Backoff(0.2, 5.0, jitter=1.0)
        self._wait_s = 0.0

    async def run(self) -> None:
        """Stay connected until stopped."""
        while not self._stopping.is_set():
            staying = asyncio.ensure_future(self._stay())
            stopping = asyncio.ensure_future(self._stopping.wait())
            await asyncio.wait((staying, stopping), return_when=asyncio.FIRST_COMPLETED)
            stopping.cancel()
            staying.cancel()
            with suppress(asyncio.CancelledError):
                why = await staying
            if self._stopping.is_set():
                break
            self._note_cut()
            self._record.add(Lost(who=self.who, why=why))
            self._place += 1
            await self._pause()
        self._record.add(Finished(who=self.who))

    async def stop(self) -> None:
        """Take down nothing more and disconnect."""
        self._stopping.set()

    async def _pause(self) -> None:
        delay_s, self._wait_s = self._backoff.next_s() + self._wait_s, 0.0
        with suppress(TimeoutError):
            async with asyncio.timeout(delay_s):
                await self._stopping.wait()

    async def _stay(self) -> str:
        """Follow one stream; return why it ended."""
        parser = SseParser()
        try:
            async with aclosing(self._body()) as body:
                async for data in body:
                    for event in parser.feed(data):
                        self._take(event)
        except CannotConnect as fault:
            self._wait_s = fault.retry_after_s
            return str(fault)
        except (OSError, EOFError, BadChunk) as fault:  # TimeoutError is an OSError
            return str(fault) or type(fault).__name__
        finally:
            self._wait_s = max(self._wait_s, parser.retry_ms / 1000)
        return "ended"

    async def _body(self) -> AsyncGenerator[bytes, None]:
        """Open a stream and yield its bytes until it ends.

        Raises:
            CannotConnect: answered with anything but 200.
            OSError, EOFError: no connection, silence, or cut off.
        """
        url = self._gateways.urls[self._place % len(self._gateways.urls)]
        parts = urlsplit(url if "://" in url else f"http://{url}")
        secure = ssl.create_default_context() if parts.scheme == "https" else None
        port = parts.port or (443 if secure else 80)
        async with asyncio.timeout(_OPEN_S):
            reader, writer = await asyncio.open_connection(
                parts.hostname, port, ssl=secure, limit=_MAX_HEAD_BYTES
            )
        try:
            for room in self.rooms:
                self._record.add(Joining(who=self.who, room=room, since=self.positions.get(room)))
            writer.write(self._request(parts.netloc, parts.path))
            async with asyncio.timeout(_OPEN_S):
                _check_head(await reader.readuntil(b"\r\n\r\n"))
            self._backoff.reset()
            body = ChunkedBody()
            while not body.ended:
                async with asyncio.timeout(_SILENCE_S):
                    data = await reader.read(_READ_BYTES)
                if not data:
                    raise EOFError("the stream was cut")
                yield body.feed(data)
        finally:
            writer.transport.abort()

    def _request(self, host: str, path: str) -> bytes:
        query = urlencode({"username": self.who, "rooms": ",".join(self.rooms)})
        headers = {"host": host, "accept": "text/event-stream", **self._gateways.headers}
        if self._last_id:
            headers["last-event-id"] = self._last_id
        head = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
        return f"GET {path.rstrip('/')}/events?{query} HTTP/1.1\r\n{head}\r\n".encode()

    def _take(self, event: SseEvent) -> None:
        if self._stopping.is_set():
            return
        if event.id:
            self._last_id = event.id
        match event.type:
            case "room_message":
                self._on_message(msgspec.json.decode(event.data))
            case "joined_room":
                message = msgspec.json.decode(event.data)
                self._on_joined(message["room"], position_of(message), message.get("recovered"))
            case _:
                return  # heartbeats, resets (the notice that follows says it too), presence

    def _on_message(self, message: dict[str, Any]) -> None:
        room = message["room"]
        if room not in self.present:
            self._missed.setdefault(room, []).append(message)
            return
        epoch = self.positions[room].epoch
        self.positions[room] = Position(epoch, message["seq"])
        self._record.add(
            Received(who=self.who, room=room, id=id_of(message), epoch=epoch, seq=message["seq"])
        )

    def _on_joined(self, room: str, now: Position, recovered: bool | None) -> None:
        since = self.positions.get(room)
        joined = Joined(
            who=self.who, room=room, epoch=now.epoch, seq=now.seq, since=since, recovered=recovered
        )
        note_join(self._record, joined, self._missed.pop(room, ()))
        self.positions[room] = now
        self.present.add(room)

    def _note_cut(self) -> None:
        """Keep what had come of a resume that was cut: the last id says that we have it."""
        for room, missed in list(self._missed.items()):
            since = self.positions.get(room)
            if since is not None:
                self._on_joined(room, Position(since.epoch, missed[-1]["seq"]), recovered=True)
        self._missed.clear()
        self.present.clear()


def _check_head(head: bytes) -> None:
    lines = head.decode("latin-1").split("\r\n")
    status = lines[0].split(" ")[1]
    if status != "200":
        fields = dict(line.lower().split(": ", 1) for line in lines[1:] if ": " in line)
        said = fields.get("retry-after", "")
        raise CannotConnect(f"HTTP {status}", float(said) if said.isdigit() else 0.0)
