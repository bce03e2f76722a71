"""HTTP answers in tests of the fallback: streams that the test writes to, and messages that it reads."""

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import httpx


class FakeStream(httpx.AsyncByteStream):
    """One answer to `GET /events`."""

    def __init__(self, request: httpx.Request) -> None:
        self.query = dict(request.url.params)
        self.headers = request.headers
        self.closed = False
        self._pieces: asyncio.Queue[bytes | Exception | None] = asyncio.Queue()

    def list(self, name: str) -> list[str]:
        return [each for each in self.query.get(name, "").split(",") if each]

    def write(self, text: str) -> None:
        self._pieces.put_nowait(text.encode())

    def event(self, kind: str, data: object, event_id: str | None = None) -> None:
        named = "" if event_id is None else f"id: {event_id}\n"
        self.write(f"event: {kind}\n{named}data: {json.dumps(data)}\n\n")

    def greet(self, connection_id: str) -> None:
        who = {"connectionId": connection_id, "userId": "u-me", "username": "Ada", "session": "signed"}
        self.event("connected", {"status": "connected", **who})

    def message(self, message: dict[str, Any], event_id: str | None = None) -> None:
        self.event(message["type"], message, event_id)

    def end(self, fault: Exception | None = None) -> None:
        self._pieces.put_nowait(fault)

    async def __aiter__(self) -> AsyncIterator[bytes]:
        while (piece := await self._pieces.get()) is not None:
            if isinstance(piece, Exception):
                raise piece
            yield piece

    async def aclose(self) -> None:
        self.closed = True


class FakeStreams:
    """The HTTP surface. `refusals` are answered first, one for each request to come."""

    def __init__(self) -> None:
        self.streams: list[FakeStream] = []
        self.sent: list[tuple[str, Any, str | None]] = []
        """What was sent: the operation with its query, the body, and which stream it named."""
        self.greets = True
        self.authorized: list[str | None] = []
        self.forbidden: set[str] = set()
        """Rooms and channels for which a complete stream is refused."""
        self.refused = 0
        self.posts = 0
        self.open_for_posts = asyncio.Event()
        self.open_for_posts.set()
        self.refusals: list[httpx.Response] = []
        self.client = httpx.AsyncClient(transport=httpx.MockTransport(self._answer))

    @property
    def last(self) -> FakeStream:
        return self.streams[-1]

    async def _answer(self, request: httpx.Request) -> httpx.Response:
        self.authorized.append(request.headers.get("Authorization"))
        if self.refusals:
            return self.refusals.pop(0)
        if request.method in ("POST", "PUT"):
            self.posts += 1
            await self.open_for_posts.wait()
            operation = f"{request.method} {request.url.raw_path.decode()}"
            named = request.headers.get("Tidings-Connection")
            self.sent.append((operation, json.loads(request.content), named))
            ack = {"type": "ack", "epoch": "e1", "seq": len(self.sent), "timestamp": 1}
            return httpx.Response(200, json=ack)
        stream = FakeStream(request)
        if self.forbidden & {*stream.list("rooms"), *stream.list("channels")}:
            self.refused += 1
            return refused("forbidden", 403)
        self.streams.append(stream)
        if self.greets:
            stream.greet(f"s{len(self.streams)}")
        return httpx.Response(200, headers={"Content-Type": "text/event-stream"}, stream=stream)


def refused(code: str, status: int) -> httpx.Response:
    """Return an answer that refuses for good."""
    return httpx.Response(status, json={"code": code, "message": "no", "retryable": False})
