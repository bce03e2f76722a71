"""A WebSocket client that sends any bytes, valid or not, and returns every received frame."""

import asyncio
import base64
import os
import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import NamedTuple

from tests.support.deadline import PATIENCE_S

CONT, TEXT, BINARY, CLOSE, PING, PONG = 0x0, 0x1, 0x2, 0x8, 0x9, 0xA
FIN, RSV1, RSV2, RSV3 = 0x80, 0x40, 0x20, 0x10


class Received(NamedTuple):
    """One frame from the server."""

    first: int
    payload: bytes

    @property
    def opcode(self) -> int:
        return self.first & 0x0F

    @property
    def close_code(self) -> int:
        """The code of a close frame; 1005 where it has none (RFC 6455 §7.4.1)."""
        assert self.opcode == CLOSE, f"opcode {self.opcode}, not a close frame: {self.payload!r}"
        return struct.unpack("!H", self.payload[:2])[0] if self.payload else 1005


def client_frame(
    first: int, payload: bytes = b"", *, masked: bool = True, length: int | None = None
) -> bytes:
    """Return a frame. `first` is FIN, RSV bits and opcode; `length` lies about the payload's size."""
    size = len(payload) if length is None else length
    mask_bit = 0x80 if masked else 0
    if size < 126:
        head = bytes((first, mask_bit | size))
    elif size < 65_536:
        head = bytes((first, mask_bit | 126)) + struct.pack("!H", size)
    else:
        head = bytes((first, mask_bit | 127)) + struct.pack("!Q", size)
    if not masked:
        return head + payload
    mask = os.urandom(4)
    return head + mask + bytes(byte ^ mask[index % 4] for index, byte in enumerate(payload))


def close_payload(code: int, reason: bytes = b"") -> bytes:
    return struct.pack("!H", code) + reason


@dataclass
class RawSocket:
    """An upgraded connection."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter
    head: bytes

    def send(self, data: bytes) -> None:
        self.writer.write(data)

    async def frame(self) -> Received:
        """Return the next frame but pings, which come at any time; EOFError where the server closed instead."""
        while (frame := await self._frame()).opcode == PING:
            pass
        return frame

    async def _frame(self) -> Received:
        async with asyncio.timeout(PATIENCE_S):
            try:
                first, second = await self.reader.readexactly(2)
                assert not second & 0x80, "a server must not mask"
                size = second & 0x7F
                if size == 126:
                    size = struct.unpack("!H", await self.reader.readexactly(2))[0]
                elif size == 127:
                    size = struct.unpack("!Q", await self.reader.readexactly(8))[0]
                return Received(first, await self.reader.readexactly(size))
            except (asyncio.IncompleteReadError, ConnectionResetError):
                raise EOFError from None

    async def closed(self, code: int) -> None:
        """Expect a close frame with `code` (after whatever else), and then the end of the connection."""
        while (frame := await self.frame()).opcode != CLOSE:
            pass
        assert frame.close_code == code, frame
        await self.ended()

    async def ended(self) -> None:
        """Expect the end of the connection, and nothing before it."""
        async with asyncio.timeout(PATIENCE_S):
            try:
                assert await self.reader.read(1) == b""
            except ConnectionResetError:
                return

    async def still_serves(self) -> None:
        """Expect that the connection is open and echoes."""
        self.send(client_frame(FIN | TEXT, b"still here"))
        assert await self.frame() == Received(FIN | TEXT, b"still here")


@asynccontextmanager
async def raw_socket(port: int, path: str = "/ws/echo", *headers: str) -> AsyncIterator[RawSocket]:
    """Upgrade, and hand over the connection as it is after the 101."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    key = base64.b64encode(os.urandom(16)).decode()
    lines = [
        f"GET {path} HTTP/1.1", f"Host: 127.0.0.1:{port}", "Upgrade: websocket", "Connection: Upgrade",
        f"Sec-WebSocket-Key: {key}", "Sec-WebSocket-Version: 13", *headers, "", "",
    ]  # fmt: skip
    writer.write("\r\n".join(lines).encode())
    try:
        async with asyncio.timeout(PATIENCE_S):
            head = await reader.readuntil(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 101 "), head
        yield RawSocket(reader, writer, head)
    finally:
        writer.transport.abort()  # what is unsent would keep it open beyond the test's loop
        await asyncio.sleep(0)
