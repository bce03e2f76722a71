"""Base of all verification clients: connects, reconnects after every loss, and hands over what arrives."""

import asyncio
import random
from abc import ABC, abstractmethod
from typing import Any

import msgspec
from websockets.asyncio.client import ClientConnection
from websockets.exceptions import ConnectionClosed
from websockets.protocol import State

from services.backoff import Backoff
from tidings_cli.verify.gateways import CannotConnect, Gateways
from tidings_cli.verify.history import FinishedRecord, LostRecord, Recorder

_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder().decode


class VerifyClient(ABC):
    """One client over all its connections. `index` is its gateway in the list; each failure moves on to the next."""

    def __init__(self, who: str, gateways: Gateways, recorder: Recorder, index: int) -> None:
        self.who = who
        self._gateways = gateways
        self._record = recorder
        self._index = index
        self._stopping = asyncio.Event()
        self._backoff = Backoff(0.2, 5.0, jitter=1.0)
        self._disconnect_code = 0
        self._wait_s = 0.0  # the gateway's Retry-After

    async def run(self) -> None:
        """Stay connected until `stop`."""
        while not self._stopping.is_set():
            try:
                reason = await self._serve()
            except CannotConnect as fault:
                reason, self._wait_s = str(fault), fault.retry_after_s
            self._index += 1
            if self._stopping.is_set():
                break
            self._record.add(LostRecord(who=self.who, why=reason, sent_away=self._disconnect_code))
            self.on_lost()
            delay_s = self._backoff.next_s() + self._wait_s
            self._disconnect_code, self._wait_s = 0, 0.0
            try:
                async with asyncio.timeout(delay_s):
                    await self._stopping.wait()
            except TimeoutError:
                continue
        self._record.add(FinishedRecord(who=self.who))

    async def stop(self) -> None:
        """Record nothing more, and disconnect."""
        self._stopping.set()

    @abstractmethod
    async def _serve(self) -> str:
        """Open one connection and serve it; return the reason of its end.

        Raises:
            CannotConnect: it was not opened.
        """

    @abstractmethod
    def on_lost(self) -> None:
        """Drop the state of the lost connection."""


class SocketClient(VerifyClient):
    """A client over WebSockets. A session keeps an anonymous user's identity over its connections."""

    def __init__(self, who: str, gateways: Gateways, recorder: Recorder, index: int) -> None:
        super().__init__(who, gateways, recorder, index)
        self.user_id = ""
        self._session = ""
        self._connection: ClientConnection | None = None

    async def _serve(self) -> str:
        connection = await self._gateways.open(self._index, self.who, self._session)
        self._connection = connection
        try:
            async for frame in connection:
                if self._stopping.is_set():
                    break  # the record has ended
                self._on_frame(_decode(frame))
        except ConnectionClosed as fault:
            return str(fault)
        finally:
            await connection.close()
            self._connection = None
        return f"closed with {connection.close_code}"

    def _on_frame(self, message: dict[str, Any]) -> None:
        match message["type"]:
            case "welcome":
                self.user_id = message["userId"]
                self._session = message.get("session", "")
                self._backoff.reset()
                self.on_connected()
            case "disconnect":
                self._disconnect_code = message["code"]
                self._wait_s = message.get("retryAfterMs", 0) / 1000
            case _:
                self.on_message(message)

    def send(self, message: dict[str, Any]) -> None:
        """Send if connected. A message lost with its connection is noticed when that ends."""
        if self._connection is not None and self._connection.state is State.OPEN:
            # The sans-IO core and the transport directly: one frame needs no task.
            self._connection.protocol.send_text(_encode(message))
            self._connection.send_data()

    async def stop(self) -> None:
        """Record nothing more, and disconnect."""
        await super().stop()
        if self._connection is not None:
            await self._connection.close()

    @abstractmethod
    def on_connected(self) -> None:
        """Send what a new connection starts with."""

    @abstractmethod
    def on_message(self, message: dict[str, Any]) -> None:
        """Handle one message."""


def retry_delay_s(error: dict[str, Any]) -> float:
    """Return the delay before a refused request is sent again."""
    requested: float = error.get("retryAfterMs", 200) / 1000
    return requested + random.uniform(0, 0.3)
