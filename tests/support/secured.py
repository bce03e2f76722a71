"""Gateways that require tokens: minting them, and a client that waits for expected messages."""

import asyncio
import json
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import jwt
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed

from tests.support.cluster import ServiceProcess
from tests.support.deadline import PATIENCE_S
from tests.support.deployment import websocket_url

SECRET = "a-secret-for-tests-of-32-bytes-or-more"
KEY = "the-api-key-of-the-tests"
WITH_TOKENS = {"auth": "jwt", "jwt_secrets": SECRET, "api_keys": KEY}
SERVER = {"x-api-key": KEY}


def token(sub: str = "ada", *, life_s: float = 60, **claims: object) -> str:
    """Return a token; `claims` are added, and those of None left out."""
    now = time.time()
    base = {"sub": sub, "aud": "tidings", "iat": int(now), "exp": int(now + life_s)} | claims
    return jwt.encode({name: value for name, value in base.items() if value is not None}, SECRET, "HS256")


def bearer(text: str) -> dict[str, str]:
    """Return the header that shows a token."""
    return {"Authorization": f"Bearer {text}"}


class Client:
    """One WebSocket. Received messages are kept until a test reads them."""

    def __init__(self, socket: ClientConnection) -> None:
        self.socket = socket
        self.seen: list[dict[str, Any]] = []

    async def send(self, type: str, **fields: object) -> None:
        await self.socket.send(json.dumps({"type": type, **fields}))

    async def receive(self, type: str, timeout_s: float = PATIENCE_S) -> dict[str, Any]:
        """Return the next message of that type; others are kept in `seen`."""
        async with asyncio.timeout(timeout_s):
            while True:
                message: dict[str, Any] = json.loads(await self.socket.recv())
                self.seen.append(message)
                if message["type"] == type:
                    return message

    async def receive_any(self) -> dict[str, Any]:
        """Return the next message."""
        async with asyncio.timeout(PATIENCE_S):
            message: dict[str, Any] = json.loads(await self.socket.recv())
        self.seen.append(message)
        return message

    async def ask(self, type: str, **fields: object) -> dict[str, Any]:
        """Send a request and return what answers it."""
        id = f"{type}-{len(self.seen)}-{time.monotonic_ns()}"
        await self.send(type, id=id, **fields)
        async with asyncio.timeout(PATIENCE_S):
            while True:
                message: dict[str, Any] = json.loads(await self.socket.recv())
                self.seen.append(message)
                if message.get("id") == id:
                    return message

    async def closed(self) -> int:
        """Wait for the end and return the close code."""
        async with asyncio.timeout(PATIENCE_S):
            try:
                while True:
                    self.seen.append(json.loads(await self.socket.recv()))
            except ConnectionClosed as end:
                return end.rcvd.code if end.rcvd else 1006

    async def closed_at(self) -> tuple[int, float]:
        """Wait for the end and return the close code, and when it came by `time.monotonic()`."""
        return await self.closed(), time.monotonic()

    async def is_open(self) -> bool:
        """Whether the server answers."""
        return (await self.ask("heartbeat"))["type"] == "heartbeat_ack"


@asynccontextmanager
async def client(
    gateway: ServiceProcess, text: str = "", query: str = "", **headers: str
) -> AsyncIterator[Client]:
    """Connect, and wait for `welcome`."""
    sent = {name.replace("_", "-"): value for name, value in headers.items()}
    url = websocket_url(gateway, query)
    headers = sent | (bearer(text) if text else {})
    async with connect(url, additional_headers=headers, open_timeout=PATIENCE_S) as socket:
        connected = Client(socket)
        await connected.receive("welcome")
        yield connected


def counted(metrics: str, limit: str) -> float:
    """Return how often a limit was met, from Prometheus text."""
    sign = f'tidings_gateway_limited_total{{limit="{limit}"}} '
    found = [line for line in metrics.splitlines() if line.startswith(sign)]
    return float(found[0].removeprefix(sign)) if found else 0.0
