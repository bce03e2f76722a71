"""Clients of a gateway with messages as plain objects: WebSocket in JSON or MessagePack, and SSE."""

import asyncio
import itertools
import json
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from typing import Any

import httpx
import msgspec
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed
from websockets.frames import Close
from websockets.typing import Subprotocol

from tests.support.cluster import ServiceProcess
from tests.support.deadline import PATIENCE_S
from tests.support.deployment import websocket_url

Message = dict[str, Any]
_ids = itertools.count(1)


class Client:
    """One connection. Messages that were not asked for wait in `inbox` in the order they came."""

    def __init__(self, socket: ClientConnection) -> None:
        self.socket = socket
        self.inbox: list[Message] = []
        self.welcome: Message = {}

    @property
    def user(self) -> str:
        return str(self.welcome["userId"])

    async def send(self, type: str, **fields: Any) -> None:
        await self.send_raw({"type": type, **fields})

    async def send_raw(self, message: object) -> None:
        """Send any object, a text or bytes as they are."""
        if isinstance(message, str | bytes):
            await self.socket.send(message)
        elif self.socket.subprotocol == "tidings.v1.msgpack":
            await self.socket.send(msgspec.msgpack.encode(message))
        else:
            await self.socket.send(json.dumps(message))

    async def receive(self, timeout_s: float = PATIENCE_S) -> Message:
        """Return the next message, whatever it is."""
        if self.inbox:
            return self.inbox.pop(0)
        return await self._next(timeout_s)

    async def _next(self, timeout_s: float = PATIENCE_S) -> Message:
        async with asyncio.timeout(timeout_s):
            data = await self.socket.recv()
        message: Message = msgspec.msgpack.decode(data) if isinstance(data, bytes) else json.loads(data)
        return message

    async def expect(
        self, type: str, where: Callable[[Message], bool] | None = None, **fields: Any
    ) -> Message:
        """Return the first message of that type with these fields; what else comes waits in `inbox`."""

        def fits(message: Message) -> bool:
            return (
                message["type"] == type
                and all(message.get(name) == value for name, value in fields.items())
                and (where is None or where(message))
            )

        for index, message in enumerate(self.inbox):
            if fits(message):
                return self.inbox.pop(index)
        try:
            while not fits(message := await self._next()):
                self.inbox.append(message)
        except TimeoutError:
            raise AssertionError(f"no {type} {fields}; there was {self.inbox}") from None
        return message

    async def ask(self, type: str, **fields: Any) -> Message:
        """Send with an `id` and return the reply that echoes it."""
        fields.setdefault("id", f"q{next(_ids)}")
        await self.send(type, **fields)
        for index, message in enumerate(self.inbox):
            if message.get("id") == fields["id"]:
                return self.inbox.pop(index)
        while (message := await self._next()).get("id") != fields["id"]:
            self.inbox.append(message)
        return message

    async def join(self, room: str, **fields: Any) -> Message:
        reply = await self.ask("join_room", room=room, **fields)
        assert reply["type"] == "joined_room", reply
        return reply

    async def nothing_of(self, *types: str, **fields: Any) -> None:
        """Fail if a message of these types, with these fields, came before the answer to a heartbeat sent now."""
        assert (await self.ask("heartbeat"))["type"] == "heartbeat_ack"
        unwanted = [
            message
            for message in self.inbox
            if message["type"] in types and fields.items() <= message.items()
        ]
        assert unwanted == []

    async def closed(self, timeout_s: float = PATIENCE_S) -> Close | None:
        """Wait for the end; return the server's close frame, None where there was none."""
        async with asyncio.timeout(timeout_s):
            while True:
                try:
                    data = await self.socket.recv()
                except ConnectionClosed as end:
                    return end.rcvd
                self.inbox.append(
                    msgspec.msgpack.decode(data) if isinstance(data, bytes) else json.loads(data)
                )


@asynccontextmanager
async def client(
    gateway: ServiceProcess, query: str = "", *, subprotocol: str = "tidings.v1.json", **options: Any
) -> AsyncIterator[Client]:
    """Connect and take the welcome. Nothing is limited on this side unless `options` say so."""
    unlimited: dict[str, Any] = {"max_size": None, "max_queue": None, "open_timeout": PATIENCE_S}
    async with connect(
        websocket_url(gateway, query), subprotocols=[Subprotocol(subprotocol)], **(unlimited | options)
    ) as socket:
        one = Client(socket)
        one.welcome = await one.receive()
        assert one.welcome["type"] == "welcome"
        yield one


class EventSource:
    """One SSE stream, parsed as the HTML standard says."""

    def __init__(self, response: httpx.Response) -> None:
        self.response = response
        self.last_id = ""
        self._events = self._parse(response.aiter_lines())

    async def _parse(self, lines: AsyncIterator[str]) -> AsyncIterator[tuple[str, str]]:
        event, data = "message", list[str]()
        async for line in lines:
            if not line:
                if data:
                    yield event, "\n".join(data)
                event, data = "message", []
                continue
            name, _, value = line.partition(":")
            value = value.removeprefix(" ")
            match name:
                case "event":
                    event = value
                case "data":
                    data.append(value)
                case "id":
                    self.last_id = value

    async def next(self) -> tuple[str, Any]:
        """Return the next event's type and data."""
        async with asyncio.timeout(PATIENCE_S):
            event, data = await anext(self._events)
        return event, json.loads(data)

    async def expect(self, wanted: str) -> Any:
        """Return the data of the next event of that type, passing over others."""
        while True:
            event, data = await self.next()
            if event == wanted:
                return data

    async def ended(self) -> list[str]:
        """Wait for the end; return the types of the events before it."""
        types = []
        async with asyncio.timeout(PATIENCE_S):
            async for event, _ in self._events:
                types.append(event)
        return types


@asynccontextmanager
async def event_source(
    gateway: ServiceProcess,
    path: str = "/events",
    *,
    last_id: str = "",
    headers: Mapping[str, str] | None = None,
    **query: Any,
) -> AsyncIterator[EventSource]:
    """Open a stream."""
    headers = {**(headers or {}), **({"last-event-id": last_id} if last_id else {})}
    async with (
        httpx.AsyncClient(base_url=gateway.url, timeout=PATIENCE_S) as http,
        http.stream("GET", path, params=query, headers=headers) as response,
    ):
        assert response.status_code == 200, await response.aread()
        assert response.headers["content-type"].startswith("text/event-stream")
        yield EventSource(response)
