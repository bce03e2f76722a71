"""A WebSocket as a transport."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any

from tidings_client.codec import Codec, Unreadable
from tidings_client.connection.codes import may_reconnect
from tidings_client.connection.fallback import TransportKind
from tidings_client.endpoint import Endpoint
from tidings_client.errors import ServerError
from tidings_client.generated.wire import ClientMessage, Disconnect, ServerMessage, Welcome
from tidings_client.transport.base import End, TransportEvents, end_of
from tidings_client.transport.socket import NO_CLOSE_FRAME, Connect, Socket, SocketClosed

_LEFT = 1000
_GOING_AWAY = 1001


@dataclass(frozen=True, slots=True)
class WebSocketSetup:
    """Arguments of a WebSocket."""

    endpoint: Endpoint
    connect: Connect
    options: Mapping[str, Any]
    codec: Codec
    open: Callable[[Callable[[Mapping[str, str], Mapping[str, str]], Awaitable[Socket]]], Awaitable[Socket]]
    """Calls the given function with the query and headers of the user's credentials; again if those are refused."""


class WebSocketTransport:
    """One WebSocket: a task that opens and reads it, and one that writes."""

    kind: TransportKind = "websocket"
    probes = True

    def __init__(self, setup: WebSocketSetup, events: TransportEvents) -> None:
        self._setup = setup
        self._events = events
        self._outgoing: asyncio.Queue[str | bytes] = asyncio.Queue()
        self._farewell: Disconnect | None = None
        self._max_message_bytes = float("inf")
        self._close_code: int | None = None
        self._task = asyncio.create_task(self._run(), name="tidings websocket")

    def send(self, message: ClientMessage) -> None:
        """Send, or raise a ServerError for what the server would not accept."""
        frame = self._setup.codec.encode(message)
        size = len(frame.encode() if isinstance(frame, str) else frame)
        if size > self._max_message_bytes:
            # The server would close the connection, and the message would be sent again on the next one.
            limit = int(self._max_message_bytes)
            raise ServerError(f"the message is larger than {limit} bytes", code="too_large")
        self._outgoing.put_nowait(frame)

    def settled(self) -> None:
        """Return None: no other transport is preferred to it."""

    def close(self, *, left: bool) -> None:
        """Close it. If the user left, messages sent before are written first."""
        if self._close_code is None:
            self._close_code = _LEFT if left else _GOING_AWAY
            self._task.cancel()

    async def closed(self) -> None:
        """Wait until its tasks have ended."""
        await asyncio.wait([self._task])

    @property
    def _is_over(self) -> bool:
        return self._close_code is not None

    async def _run(self) -> None:
        socket: Socket | None = None
        try:
            socket = await self._setup.open(self._connect)
            end = await self._carry(socket)
        except asyncio.CancelledError:
            if not self._is_over:
                raise
            if socket is not None:
                await self._say_goodbye(socket)
            return
        except Exception as fault:  # noqa: BLE001 - any failure to open: the next attempt may succeed
            end = end_of(fault)
        if not self._is_over:
            self._close_code = NO_CLOSE_FRAME
            self._events.ended(end)
        if socket is not None:
            await socket.close(_GOING_AWAY)

    async def _connect(self, query: Mapping[str, str], headers: Mapping[str, str]) -> Socket:
        setup = self._setup
        return await setup.connect(
            setup.endpoint.ws(query),
            subprotocol=setup.codec.subprotocol,
            headers=headers,
            options=setup.options,
        )

    async def _carry(self, socket: Socket) -> End:
        writer = asyncio.create_task(self._write(socket), name="tidings websocket writer")
        try:
            while True:
                frame = await socket.recv()
                self._events.heard()
                message = self._setup.codec.decode(frame)
                if message is not None:
                    self._take(message)
                if self._is_over:  # closed by a listener of the message: cancellation follows
                    await asyncio.sleep(0)
        except SocketClosed as closed:
            return self._end(closed.code, closed.reason)
        except Unreadable as fault:
            return End(str(fault))
        finally:
            writer.cancel()

    def _take(self, message: ServerMessage) -> None:
        if isinstance(message, Disconnect):
            self._farewell = message
        if isinstance(message, Welcome):
            self._max_message_bytes = message.max_message_bytes
        self._events.message(message)

    async def _write(self, socket: Socket) -> None:
        while True:
            frame = await self._outgoing.get()
            try:
                await socket.send(frame)
            except SocketClosed:
                return  # the reader gets it too, and reports the code

    async def _say_goodbye(self, socket: Socket) -> None:
        try:
            while self._close_code == _LEFT and not self._outgoing.empty():
                await socket.send(self._outgoing.get_nowait())
        except SocketClosed:
            return
        await socket.close(self._close_code or _GOING_AWAY)

    def _end(self, code: int, reason: str) -> End:
        if said := self._farewell:
            after = None if said.retry_after_ms is None else said.retry_after_ms / 1000
            return End(said.reason, said.reconnect, said.code, after)
        lost = "connection lost" if code == NO_CLOSE_FRAME else f"closed with {code}"
        return End(reason or lost, may_reconnect(code), code)
