"""A member over Server-Sent Events: follows rooms on `/events`, and resumes them all with `Last-Event-ID`."""

import ssl
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import Any

import httpx
import msgspec

from tidings_cli.gateways import CannotConnect, Gateways, http_url
from tidings_cli.verify.history import JoiningRecord, Recorder
from tidings_cli.verify.member import SocketMember

_TIMEOUT = httpx.Timeout(15.0, read=20.0)  # the server's heartbeat comes every 5 s
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
    _event: SseEvent = field(default_factory=SseEvent)

    def feed(self, data: bytes) -> Iterator[SseEvent]:
        """Yield the events that are now complete."""
        *lines, self._rest = (self._rest + data).split(b"\n")
        for raw in lines:
            line = raw.decode().removesuffix("\r")
            name, _, value = line.partition(":")
            value = value.removeprefix(" ")
            if name == "event":
                self._event.type = value
            elif name == "data":
                self._event.data += f"{value}\n"
            elif name == "id":
                self._event.id = value
            elif name == "retry" and value.isdigit():
                self.retry_ms = int(value)
            elif not line:
                event, self._event = self._event, SseEvent()
                event.data = event.data.removesuffix("\n")
                if event.data:
                    yield event


class StreamMember(SocketMember):
    """A member of rooms. All missed messages come before the `joined_room` that names the room's position."""

    def __init__(
        self, who: str, rooms: Sequence[str], gateways: Gateways, recorder: Recorder, index: int
    ) -> None:
        super().__init__(who, rooms, gateways, recorder, index)
        self._last_id = ""
        self._missed: dict[str, list[dict[str, Any]]] = {}

    async def _serve(self) -> str:
        url = http_url(self._gateways.url(self._index))
        query = {"username": self.who, "rooms": ",".join(self.rooms)}
        headers = {"accept": "text/event-stream", **self._gateways.headers}
        if self._last_id:
            headers["last-event-id"] = self._last_id
        for room in self.rooms:
            self._record.add(JoiningRecord(who=self.who, room=room, since=self.positions.get(room)))
        parser, reason = SseParser(), "ended"
        try:
            async with (
                httpx.AsyncClient(
                    timeout=_TIMEOUT, limits=_NO_REUSE, trust_env=False, verify=_system_authorities()
                ) as client,
                client.stream("GET", f"{url}/events", params=query, headers=headers) as response,
            ):
                if response.status_code != httpx.codes.OK:
                    raise CannotConnect(f"{url} answered {response.status_code}", response.headers)
                self._backoff.reset()
                async for data in response.aiter_bytes():
                    for event in parser.feed(data):
                        self._on_event(event)
        except httpx.HTTPError as fault:
            reason = str(fault) or type(fault).__name__
        self._wait_s = parser.retry_ms / 1000
        self._keep_interrupted()
        return reason

    def _on_event(self, event: SseEvent) -> None:
        if event.id:
            self._last_id = event.id
        if event.type in ("room_message", "joined_room"):  # a reset's notice, which follows it, says it too
            self.on_message(msgspec.json.decode(event.data))

    def on_message(self, message: dict[str, Any]) -> None:
        room = message["room"]
        if message["type"] == "joined_room":
            self._on_joined(message, self._missed.pop(room, ()))
        elif room in self.present:
            self._on_received(message, "live")
        else:
            self._missed.setdefault(room, []).append(message)

    def _keep_interrupted(self) -> None:
        """Keep the messages of an interrupted resume: the last event id says that we have them."""
        for room, missed in list(self._missed.items()):
            since = self.positions.get(room)
            if since is not None:
                joined = {"room": room, "epoch": since.epoch, "seq": missed[-1]["seq"], "recovered": True}
                self._on_joined(joined, self._missed.pop(room))

    def on_lost(self) -> None:
        super().on_lost()
        self._missed.clear()
