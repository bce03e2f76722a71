"""Base of all verification clients: connects, reconnects after every loss, joins, and hands over what arrives."""

import asyncio
import random
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any

import msgspec
from websockets.asyncio.client import ClientConnection
from websockets.exceptions import ConnectionClosed
from websockets.protocol import State

from services.backoff import Backoff
from services.wire.records import Position
from tidings_cli.gateways import CannotConnect, Gateways
from tidings_cli.verify.history import FinishedRecord, LostRecord, Recorder

_OPTIONS: dict[str, Any] = {
    "max_size": 64 * 1024 * 1024,  # a resume may carry hundreds of messages
    "open_timeout": 15.0,  # the server's own limit for a handshake is 10 s, and it answers
    "ping_interval": 10.0,
    "ping_timeout": 15.0,
    "compression": None,
    "proxy": None,
}
_JOIN = "join:"  # ids of joins begin with this

_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder().decode


class VerifyClient(ABC):
    """One client over all its connections: WebSockets, unless a subclass serves others.

    `index` is its gateway in the list; each failure moves on to the next. A session keeps an anonymous user's identity
    over its connections. `present` are the rooms that this connection has joined.
    """

    def __init__(
        self, who: str, rooms: Sequence[str], gateways: Gateways, recorder: Recorder, index: int
    ) -> None:
        self.who = who
        self.rooms = rooms
        self.user_id = ""
        self.positions: dict[str, Position] = {}
        self.present: set[str] = set()
        self._gateways = gateways
        self._record = recorder
        self._index = index
        self._backoff = Backoff(0.2, 5.0, jitter=1.0)
        self._disconnect_code = 0
        self._wait_s = 0.0  # the gateway's Retry-After
        self._session = ""
        self._connection: ClientConnection | None = None

    async def run(self) -> None:
        """Stay connected until cancelled, which is recorded as the end."""
        try:
            while True:
                try:
                    reason = await self._serve()
                except CannotConnect as fault:
                    reason, self._wait_s = str(fault), fault.retry_after_s
                self._index += 1
                self._record.add(LostRecord(who=self.who, why=reason, sent_away=self._disconnect_code))
                self.on_lost()
                delay_s = self._backoff.next_s() + self._wait_s
                self._disconnect_code, self._wait_s = 0, 0.0
                await asyncio.sleep(delay_s)
        except asyncio.CancelledError:
            self._record.add(FinishedRecord(who=self.who))
            raise

    async def _serve(self) -> str:
        """Open one connection and serve it; return the reason of its end.

        Raises:
            CannotConnect: it was not opened.
        """
        query = {"username": self.who} | ({"session": self._session} if self._session else {})
        connection = self._connection = await self._gateways.open(self._index, query, **_OPTIONS)
        try:
            async for frame in connection:
                self._on_frame(_decode(frame))
        except ConnectionClosed as fault:
            return str(fault)
        finally:
            self._connection = None
            await connection.close()
        return f"closed with {connection.close_code}"

    def _on_frame(self, message: dict[str, Any]) -> None:
        match message:
            case {"type": "welcome"}:
                self.user_id = message["userId"]
                self._session = message.get("session", "")
                self._backoff.reset()
                for room in self.rooms:
                    self.join(room)
            case {"type": "disconnect"}:
                self._disconnect_code = message["code"]
                self._wait_s = message.get("retryAfterMs", 0) / 1000
            case {"type": "error", "id": str(id)} if id.startswith(_JOIN):
                self.on_join_refused(id.removeprefix(_JOIN), message)
            case _:
                self.on_message(message)

    def join(self, room: str) -> None:
        """Request to join a room, from the last position where there is one."""
        since = self.positions.get(room)
        request = {"type": "join_room", "room": room, "id": _JOIN + room}
        self.send(request | ({"since": since} if since else {}))

    def on_join_refused(self, room: str, error: dict[str, Any]) -> None:
        """Join again later, unless the connection is another one by then."""
        connection = self._connection

        def join_again() -> None:
            if connection is self._connection:
                self.join(room)

        asyncio.get_running_loop().call_later(retry_delay_s(error), join_again)

    def send(self, message: dict[str, Any]) -> None:
        """Send if connected. A message lost with its connection is noticed when that ends."""
        if self._connection is not None and self._connection.state is State.OPEN:
            # The sans-IO core and the transport directly: one frame needs no task.
            self._connection.protocol.send_text(_encode(message))
            self._connection.send_data()

    def on_lost(self) -> None:
        """Drop the state of the lost connection."""
        self.present.clear()

    @abstractmethod
    def on_message(self, message: dict[str, Any]) -> None:
        """Handle one message."""


def retry_delay_s(error: dict[str, Any]) -> float:
    """Return the delay before a refused request is sent again."""
    requested: float = error.get("retryAfterMs", 200) / 1000
    return requested + random.uniform(0, 0.3)
