"""Posts to one URL over kept connections (HTTP/1.1).

Written here because each message of a client may need a post: one by httpx costs 1.4 ms of processor time (ADR 0015). It knows
only what hooks need: one POST, an answer of limited size, no redirects, no compression, no proxies.
"""

import asyncio
import ssl
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import cast
from urllib.parse import urlsplit

import httptools

MAX_BODY_BYTES = 65_536
# Of the status line, headers and the lengths of chunks together.
_MAX_FRAMING_BYTES = 32_768
# Servers close idle connections too, often after 5 s: these are for answers that keep them longer.
_IDLE_S = 30.0
_DEFAULT_PORTS = {"http": 80, "https": 443}


class PostFailed(Exception):
    """No complete answer. `reason` is one of few words: `unreachable`, `broken`, `malformed`, `too_large`."""

    def __init__(self, reason: str, detail: str = "") -> None:
        super().__init__(f"{reason}: {detail}" if detail else reason)
        self.reason = reason


class _ClosedBeforeAnswer(PostFailed):
    """The connection ended before the first byte of an answer."""

    def __init__(self) -> None:
        super().__init__("broken", "the connection was closed")


@dataclass(frozen=True, slots=True)
class Answer:
    """A complete answer."""

    status: int
    body: bytes


class HttpClient:
    """Posts to one URL. The caller limits how many posts are under way, and their time: cancelling one closes its connection."""

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        self._host = parts.hostname or ""
        self._port = parts.port or _DEFAULT_PORTS[parts.scheme]
        self._tls = ssl.create_default_context() if parts.scheme == "https" else None
        target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        authority = parts.netloc.rpartition("@")[2]
        self._head = (
            f"POST {target} HTTP/1.1\r\nHost: {authority}\r\nUser-Agent: tidings\r\nAccept: application/json\r\n"
            "Content-Type: application/json\r\n"
        ).encode("ascii")
        self._idle: list[_Connection] = []  # the one used last is at the end
        self._closed = False

    async def post(self, headers: Iterable[tuple[str, str]], body: bytes) -> Answer:
        """Post once. A kept connection that was closed before anything of an answer came is replaced by a new one: its
        server closed it while it was idle.

        Raises:
            PostFailed: there is no complete answer.
        """
        lines = "".join([f"{name}: {value}\r\n" for name, value in headers])
        request = b"%bContent-Length: %d\r\n%b\r\n%b" % (self._head, len(body), lines.encode("latin-1"), body)
        while (kept := self._next_idle()) is not None:
            try:
                return await self._post_on(kept, request)
            except _ClosedBeforeAnswer:
                continue
        return await self._post_on(await self._connect(), request)

    def close(self) -> None:
        """Close the connections, and keep none any more."""
        self._closed = True
        while self._idle:
            self._idle.pop().abort()

    async def _post_on(self, connection: "_Connection", request: bytes) -> Answer:
        reusable = False
        try:
            answer, reusable = await connection.send(request)
        finally:
            if reusable and not self._closed and connection.is_open:
                self._keep(connection)
            else:
                connection.abort()
        return answer

    async def _connect(self) -> "_Connection":
        loop = asyncio.get_running_loop()
        try:
            _, connection = await loop.create_connection(
                lambda: _Connection(self._forget), self._host, self._port, ssl=self._tls
            )
        except (OSError, ssl.SSLError) as fault:
            raise PostFailed("unreachable", fault.strerror or type(fault).__name__) from None
        return connection

    def _next_idle(self) -> "_Connection | None":
        now = time.monotonic()
        while self._idle:
            connection = self._idle.pop()
            if now - connection.idle_since < _IDLE_S:
                return connection
            connection.abort()
        return None

    def _keep(self, connection: "_Connection") -> None:
        now = connection.idle_since = time.monotonic()
        self._idle.append(connection)
        if now - self._idle[0].idle_since >= _IDLE_S:
            self._idle.pop(0).abort()

    def _forget(self, connection: "_Connection") -> None:
        if connection in self._idle:
            self._idle.remove(connection)


class _Connection(asyncio.Protocol):
    """One connection: a request, its answer, the next request. The `on_...` methods are what the parser calls."""

    def __init__(self, on_lost: Callable[["_Connection"], None]) -> None:
        self.idle_since = 0.0
        self._on_lost = on_lost
        self._transport: asyncio.Transport | None = None
        self._parser = httptools.HttpResponseParser(self)
        self._answer: asyncio.Future[tuple[Answer, bool]] | None = None
        self._received = 0
        self._body = bytearray()
        self._framed = False
        self._ends_with_connection = False

    @property
    def is_open(self) -> bool:
        """Whether a request can be sent."""
        return self._transport is not None and not self._transport.is_closing()

    async def send(self, request: bytes) -> tuple[Answer, bool]:
        """Return the answer to a request, and whether the connection may be used again. Raises PostFailed."""
        if self._transport is None or not self.is_open:
            raise _ClosedBeforeAnswer
        self._received = 0
        self._answer = asyncio.get_running_loop().create_future()
        self._transport.write(request)
        try:
            return await self._answer
        finally:
            self._answer = None

    def abort(self) -> None:
        """Close at once."""
        if self._transport is not None:
            self._transport.abort()

    # --- what asyncio calls ---

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        if self._answer is None or self._answer.done():  # nothing was asked
            self.abort()
            return
        self._received += len(data)
        try:
            self._parser.feed_data(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade):
            self._fail(PostFailed("malformed", "the answer is no HTTP/1.1"))
            return
        if self._received > MAX_BODY_BYTES + _MAX_FRAMING_BYTES:
            self._fail(PostFailed("too_large"))

    def connection_lost(self, exc: Exception | None) -> None:
        self._on_lost(self)
        if self._ends_with_connection and exc is None:
            self._finish(reusable=False)
        elif self._received:
            self._fail(PostFailed("broken", "the connection was lost within the answer"))
        else:
            self._fail(_ClosedBeforeAnswer())

    # --- what the parser calls ---

    def on_message_begin(self) -> None:
        if self._answer is None or self._answer.done():
            self.abort()  # more than was asked for: it must not answer the next request
        self._body.clear()
        self._framed = False
        self._ends_with_connection = False

    def on_header(self, name: bytes, _value: bytes) -> None:
        self._framed = self._framed or name.lower() in (b"content-length", b"transfer-encoding")

    def on_headers_complete(self) -> None:
        self._ends_with_connection = not self._framed and not self._parser.should_keep_alive()

    def on_body(self, body: bytes) -> None:
        if len(self._body) + len(body) > MAX_BODY_BYTES:
            self._fail(PostFailed("too_large"))
        else:
            self._body += body

    def on_message_complete(self) -> None:
        if self._parser.get_status_code() >= 200:  # else it only announces the answer (RFC 9110 §15.2)
            self._finish(reusable=self._parser.should_keep_alive())

    def _finish(self, *, reusable: bool) -> None:
        if self._answer is not None and not self._answer.done():
            answer = Answer(self._parser.get_status_code(), bytes(self._body))
            self._answer.set_result((answer, reusable))

    def _fail(self, fault: PostFailed) -> None:
        if self._answer is not None and not self._answer.done():
            self._answer.set_exception(fault)
        self.abort()
