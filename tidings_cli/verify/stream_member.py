"""A member over Server-Sent Events: follows rooms on `/events`, and resumes them all with `Last-Event-ID`."""

import asyncio
import ssl
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import Any

import httpx
import msgspec

from services.wire.records import Position
from tidings_cli.verify.client import VerifyClient
from tidings_cli.verify.gateways import CannotConnect, Gateways, http_url, retry_after_s
from tidings_cli.verify.history import JoinedRecord, JoiningRecord, ReceivedRecord, Recorder
from tidings_cli.verify.member import id_of, position_of, record_join

_OPEN_S = 15.0
_SILENCE_S = 20.0  # the server's heartbeat comes every 5 s
_TIMEOUT = httpx.Timeout(_OPEN_S, read=_SILENCE_S)
_NO_REUSE = httpx.Limits(max_keepalive_connections=0)


@cache
def _system_authorities() -> ssl.SSLContext:
    return ssl.create_default_context()  # httpx would read its own for each connection, in 14 ms


@dataclass(slots=True)
class SseEvent:
    """One event of a stream (WHATWG HTML, section 9.2)."""

    type: str = "message"
    data: str = ""
    id: str = ""


@dataclass(slots=True)
class SseParser:
    """Parses bytes in any pieces; yields complete events. `retry_ms` is the server's last `retry` field."""

    retry_ms: int = 0
    _rest: bytes = b""
    _lines: list[str] = field(default_factory=list)

    def feed(self, data: bytes) -> Iterator[SseEvent]:
        """Yield the events that are now complete."""
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


class StreamMember(VerifyClient):
    """A member of rooms. All missed messages come before the `joined_room` that names the room's position."""

    def __init__(
        self, who: str, rooms: Sequence[str], gateways: Gateways, recorder: Recorder, index: int
    ) -> None:
        super().__init__(who, gateways, recorder, index)
        self.rooms = tuple(rooms)
        self.positions: dict[str, Position] = {}
        self.present: set[str] = set()
        self._last_id = ""
        self._missed: dict[str, list[dict[str, Any]]] = {}

    async def _serve(self) -> str:
        following = asyncio.ensure_future(self._follow())
        stopping = asyncio.ensure_future(self._stopping.wait())
        await asyncio.wait((following, stopping), return_when=asyncio.FIRST_COMPLETED)
        stopping.cancel()
        following.cancel()
        try:
            return await following
        except asyncio.CancelledError:
            return "stopped"
        finally:
            if not self._stopping.is_set():
                self._keep_interrupted()

    async def _follow(self) -> str:
        """Follow one stream; return the reason of its end.

        Raises:
            CannotConnect: the answer was not 200.
        """
        url = f"{http_url(self._gateways.url(self._index))}/events"
        query = {"username": self.who, "rooms": ",".join(self.rooms)}
        headers = {"accept": "text/event-stream", **self._gateways.headers}
        if self._last_id:
            headers["last-event-id"] = self._last_id
        for room in self.rooms:
            self._record.add(JoiningRecord(who=self.who, room=room, since=self.positions.get(room)))
        parser = SseParser()
        try:
            async with (
                httpx.AsyncClient(
                    timeout=_TIMEOUT, limits=_NO_REUSE, trust_env=False, verify=_system_authorities()
                ) as client,
                client.stream("GET", url, params=query, headers=headers) as response,
            ):
                if response.status_code != httpx.codes.OK:
                    raise CannotConnect(f"HTTP {response.status_code}", retry_after_s(response.headers))
                self._backoff.reset()
                async for data in response.aiter_bytes():
                    for event in parser.feed(data):
                        self._on_event(event)
        except httpx.HTTPError as fault:
            return str(fault) or type(fault).__name__
        finally:
            self._wait_s = parser.retry_ms / 1000
        return "ended"

    def _on_event(self, event: SseEvent) -> None:
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
            ReceivedRecord(who=self.who, room=room, id=id_of(message), epoch=epoch, seq=message["seq"])
        )

    def _on_joined(self, room: str, now: Position, recovered: bool | None) -> None:
        since = self.positions.get(room)
        joined = JoinedRecord(
            who=self.who, room=room, epoch=now.epoch, seq=now.seq, since=since, recovered=recovered
        )
        record_join(self._record, joined, self._missed.pop(room, ()))
        self.positions[room] = now
        self.present.add(room)

    def _keep_interrupted(self) -> None:
        """Keep the messages of an interrupted resume: the last event id says that we have them."""
        for room, missed in list(self._missed.items()):
            since = self.positions.get(room)
            if since is not None:
                self._on_joined(room, Position(since.epoch, missed[-1]["seq"]), recovered=True)

    def on_lost(self) -> None:
        """Keep only positions."""
        self._missed.clear()
        self.present.clear()
