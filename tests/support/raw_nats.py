"""A minimal NATS client without checks: for messages that our client would not send, and for watching."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from urllib.parse import urlsplit

from tests.support.deadline import PATIENCE_S


@dataclass
class RawNats:
    """One connection. What comes is in `seen` as (subject, reply, payload), what is refused in `refused`."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter
    answer: bytes | None = None  # sent to the reply subject of whatever comes with one
    seen: list[tuple[str, str, bytes]] = field(default_factory=list)
    refused: list[str] = field(default_factory=list)
    _sids: int = 0
    _pongs: int = 0
    _pinged: int = 0
    _news: asyncio.Event = field(default_factory=asyncio.Event)

    def publish(self, subject: str, payload: bytes = b"", *, reply: str = "") -> None:
        self.writer.write(f"PUB {subject} {reply} {len(payload)}\r\n".encode() + payload + b"\r\n")

    def subscribe(self, subject: str) -> None:
        self._sids += 1  # NATS ignores a subscription under an id that is in use
        self.writer.write(f"SUB {subject} {self._sids}\r\n".encode())

    async def flush(self) -> None:
        """Return when the server has done everything sent before, and all that came before its PONG is in `seen`."""
        self._pinged += 1
        self.writer.write(b"PING\r\n")
        async with asyncio.timeout(PATIENCE_S):
            while self._pongs < self._pinged:
                self._news.clear()
                await self._news.wait()

    async def read(self) -> None:
        while line := await self.reader.readline():
            verb, *words = line.decode().split()
            if verb == "PONG":
                self._pongs += 1
                self._news.set()
            elif verb == "PING":
                self.writer.write(b"PONG\r\n")
            elif verb == "-ERR":
                self.refused.append(line.decode().strip())
            elif verb in ("MSG", "HMSG"):
                head_bytes = int(words[-2]) if verb == "HMSG" else 0
                payload = (await self.reader.readexactly(int(words[-1]) + 2))[head_bytes:-2]
                counts = 2 if verb == "HMSG" else 1
                reply = words[2] if len(words) > 2 + counts else ""
                self.seen.append((words[0], reply, payload))
                if reply and self.answer is not None:
                    self.publish(reply, self.answer)


@asynccontextmanager
async def raw_nats(url: str, answer: bytes | None = None) -> AsyncIterator[RawNats]:
    """Connect and log in."""
    parts = urlsplit(url)
    reader, writer = await asyncio.open_connection(parts.hostname, parts.port)
    await reader.readline()  # INFO
    login = {"verbose": False, "protocol": 1, "user": parts.username, "pass": parts.password, "headers": True}
    writer.write(f"CONNECT {json.dumps(login)}\r\n".encode())
    connection = RawNats(reader, writer, answer)
    reading = asyncio.create_task(connection.read())
    try:
        await connection.flush()
        yield connection
    finally:
        writer.close()
        reading.cancel()
        await asyncio.gather(reading, return_exceptions=True)
