"""One client over all its connections: it connects, comes back after every loss, and hands over what arrives."""

import asyncio
import random
from abc import ABC, abstractmethod
from typing import Any, Protocol

import msgspec
from websockets.asyncio.client import ClientConnection
from websockets.exceptions import ConnectionClosed
from websockets.protocol import State

from services.backoff import Backoff
from services.wire.records import Position
from tidings_cli.verify.gateways import CannotConnect, Gateways
from tidings_cli.verify.history import Finished, Lost, Recorder

_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder().decode


class Receiver(Protocol):
    """Somebody who receives what is said in rooms, over whatever transport."""

    who: str
    rooms: tuple[str, ...]
    positions: dict[str, Position]
    present: set[str]

    async def run(self) -> None:
        """Stay connected until stopped."""

    async def stop(self) -> None:
        """Take down nothing more and disconnect."""


class Client(ABC):
    """Base of members and publishers. `run` ends after `stop`."""

    def __init__(self, who: str, gateways: Gateways, recorder: Recorder, place: int) -> None:
        self.who = who
        self.user_id = ""
        self._gateways = gateways
        self._record = recorder
        self._session = ""
        self._connection: ClientConnection | None = None
        self._stopping = asyncio.Event()
        self._backoff = Backoff(0.2, 5.0, jitter=1.0)
        self._place = place  # in the list of gateways; the next one after each failure
        self._sent_away = 0
        self._wait_s = 0.0  # what the gateway asked us to wait before we come back

    async def run(self) -> None:
        """Stay connected until stopped."""
        while not self._stopping.is_set():
            why = "closed"
            try:
                connection = await self._gateways.open(self._place, self.who, self._session)
            except CannotConnect as fault:
                why, self._wait_s = str(fault), fault.retry_after_s
            else:
                why = await self._stay(connection)
            self._connection = None
            self._place += 1
            if self._stopping.is_set():
                break
            self._record.add(Lost(who=self.who, why=why, sent_away=self._sent_away))
            self.on_lost()
            self._sent_away = 0
            await self._pause()
        self._record.add(Finished(who=self.who))

    async def _stay(self, connection: ClientConnection) -> str:
        """Serve one connection; return why it ended."""
        self._connection = connection
        try:
            async for frame in connection:
                if self._stopping.is_set():
                    break  # what comes after the end of the record is nobody's
                self._take(_decode(frame))
        except ConnectionClosed as fault:
            return str(fault)
        finally:
            await connection.close()
        return f"closed with {connection.close_code}"

    def _take(self, message: dict[str, Any]) -> None:
        match message["type"]:
            case "welcome":
                self.user_id = message["userId"]
                self._session = message.get("session", "")
                self._backoff.reset()
                self.on_connected()
            case "disconnect":
                self._sent_away = message["code"]
                self._wait_s = message.get("retryAfterMs", 0) / 1000
            case _:
                self.on_message(message)

    async def _pause(self) -> None:
        delay_s = self._backoff.next_s()
        if self._wait_s:
            delay_s += self._wait_s
            self._wait_s = 0.0
        try:
            async with asyncio.timeout(delay_s):
                await self._stopping.wait()
        except TimeoutError:
            return

    def send(self, message: dict[str, Any]) -> None:
        """Send if connected; what a broken connection swallows is noticed when it ends."""
        if self._connection is not None and self._connection.state is State.OPEN:
            # The sans-IO core and the transport directly: one frame needs no task.
            self._connection.protocol.send_text(_encode(message))
            self._connection.send_data()

    async def stop(self) -> None:
        """Take down nothing more and disconnect."""
        self._stopping.set()
        if self._connection is not None:
            await self._connection.close()

    @property
    def connected(self) -> bool:
        """Whether the client has been welcomed and not lost since."""
        return self._connection is not None

    @abstractmethod
    def on_connected(self) -> None:
        """Do what a new connection begins with."""

    @abstractmethod
    def on_message(self, message: dict[str, Any]) -> None:
        """Take in one message."""

    @abstractmethod
    def on_lost(self) -> None:
        """Forget what belonged to the connection."""


def retry_delay_s(error: dict[str, Any]) -> float:
    """Return how long to wait before a refused request is sent again."""
    asked: float = error.get("retryAfterMs", 200) / 1000
    return asked + random.uniform(0, 0.3)
