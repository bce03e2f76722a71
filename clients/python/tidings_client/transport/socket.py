"""The interface of a WebSocket, and its implementation with `websockets`."""

from collections.abc import Mapping
from typing import Any, Protocol

from websockets.asyncio.client import ClientConnection
from websockets.asyncio.client import connect as open_connection
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.typing import Subprotocol

from tidings_client.refusal import refusal

NO_CLOSE_FRAME = 1006
# Largest message of a server: 300 missed messages of 64 KiB, with a margin.
_MAX_BYTES = 64 * 1024 * 1024


class SocketClosed(Exception):
    """The WebSocket ended. `code` is 1006 without a close frame."""

    def __init__(self, code: int = NO_CLOSE_FRAME, reason: str = "") -> None:
        super().__init__(reason)
        self.code = code
        self.reason = reason


class Socket(Protocol):
    """An open WebSocket. `recv` and `send` raise SocketClosed when it has ended."""

    async def recv(self) -> str | bytes: ...

    async def send(self, data: str | bytes) -> None: ...

    async def close(self, code: int) -> None: ...


class Connect(Protocol):
    """Opens a WebSocket. Raises a TidingsError if it is refused, another exception if the server cannot be reached."""

    async def __call__(
        self, url: str, *, subprotocol: str, headers: Mapping[str, str], options: Mapping[str, Any]
    ) -> Socket: ...


class _WebSocket:
    def __init__(self, connection: ClientConnection) -> None:
        self._connection = connection

    async def recv(self) -> str | bytes:
        try:
            return await self._connection.recv()
        except ConnectionClosed as closed:
            raise _closed(closed) from closed

    async def send(self, data: str | bytes) -> None:
        try:
            await self._connection.send(data)
        except ConnectionClosed as closed:
            raise _closed(closed) from closed

    async def close(self, code: int) -> None:
        await self._connection.close(code)


def _closed(closed: ConnectionClosed) -> SocketClosed:
    return SocketClosed(closed.rcvd.code, closed.rcvd.reason) if closed.rcvd else SocketClosed()


async def connect(
    url: str, *, subprotocol: str, headers: Mapping[str, str], options: Mapping[str, Any]
) -> Socket:
    """Open a WebSocket with `websockets`."""
    given = {
        "ping_interval": None,  # the server pings, and the watchdog probes
        "open_timeout": None,  # `Options.connect_timeout` is the limit
        "close_timeout": 1,
        "max_size": _MAX_BYTES,
        **options,
        "additional_headers": {**options.get("additional_headers", {}), **headers},
    }
    try:
        return _WebSocket(await open_connection(url, subprotocols=[Subprotocol(subprotocol)], **given))
    except InvalidStatus as refused:
        response = refused.response
        raise refusal(
            response.status_code, response.headers.get("Retry-After"), response.body or b""
        ) from refused
