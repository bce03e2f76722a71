"""The HTTP client of hooks: answers whole and byte by byte, and what a server may do instead of answering."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import pytest

from gateway.hooks.http_client import MAX_BODY_BYTES, Answer, HttpClient, PostFailed

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}"
CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\n{\r\n1\r\n}\r\n0\r\n\r\n"
UNTIL_CLOSE = b"HTTP/1.1 200 OK\r\n\r\n{}"
CONTINUED = b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n" + OK
OLD = b"HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\n{}"

Script = Callable[["Server", asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


class Server:
    """Runs a script for each connection; remembers requests and counts connections."""

    def __init__(self, script: Script) -> None:
        self.connections = 0
        self.requests: list[bytes] = []
        self.port = 0
        self._script = script

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        try:
            await self._script(self, reader, writer)
        except (ConnectionError, asyncio.IncompleteReadError):
            pass  # the client closed
        finally:
            writer.close()

    async def request(self, reader: asyncio.StreamReader) -> bytes:
        head = await reader.readuntil(b"\r\n\r\n")
        size = int(head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0])
        self.requests.append(head + await reader.readexactly(size))
        return self.requests[-1]


@asynccontextmanager
async def running(
    script: Script,
    path: str = "/hooks?a=1",
) -> AsyncIterator[tuple[Server, HttpClient]]:
    server = Server(script)
    listener = await asyncio.start_server(server.serve, "127.0.0.1", 0)
    server.port = listener.sockets[0].getsockname()[1]
    client = HttpClient(f"http://127.0.0.1:{server.port}{path}")
    try:
        yield server, client
    finally:
        client.close()
        listener.close()


async def post(client: HttpClient, body: bytes = b"{}") -> Answer:
    async with asyncio.timeout(10):
        return await client.post([("X-Name", "value")], body)


async def fault_of(client: HttpClient) -> str:
    with pytest.raises(PostFailed) as caught:
        await post(client)
    return caught.value.reason


def answering(answer: bytes, *, piece: int = 0, close: bool = False) -> Script:
    async def script(server: Server, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            await server.request(reader)
            for at in range(0, len(answer), piece or len(answer)):
                writer.write(answer[at : at + (piece or len(answer))])
                await writer.drain()
                await asyncio.sleep(0)
            if close:
                return

    return script


async def test_a_post_says_where_it_goes_and_what_it_is() -> None:
    async with running(answering(OK)) as (server, client):
        assert await post(client, b'{"a":1}') == Answer(200, b"{}")
        head, _, body = server.requests[0].partition(b"\r\n\r\n")
    assert head.startswith(b"POST /hooks?a=1 HTTP/1.1\r\nHost: 127.0.0.1:")
    assert {b"Content-Type: application/json", b"Content-Length: 7", b"X-Name: value"} <= set(
        head.split(b"\r\n")
    )
    assert body == b'{"a":1}'


@pytest.mark.parametrize("piece", [0, 1, 7])
@pytest.mark.parametrize(
    ("answer", "close"), [(OK, False), (CHUNKED, False), (CONTINUED, False), (UNTIL_CLOSE, True), (OLD, True)]
)
async def test_an_answer_is_read_however_it_comes(answer: bytes, close: bool, piece: int) -> None:
    async with running(answering(answer, piece=piece, close=close)) as (server, client):
        for _ in range(2):
            assert await post(client) == Answer(200, b"{}")
        assert server.connections == (2 if close else 1)


async def test_an_error_has_its_status_and_the_connection_is_kept() -> None:
    answer = b"HTTP/1.1 503 Busy\r\nContent-Length: 4\r\n\r\nbusy"
    async with running(answering(answer)) as (server, client):
        assert await post(client) == Answer(503, b"busy")
        assert await post(client) == Answer(503, b"busy")
        assert server.connections == 1


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n{}", "broken"),
        (b"HTTP/1.1 200 OK\r\nConten", "broken"),
        (b"SSH-2.0-OpenSSH_9.6\r\n", "malformed"),
        (
            b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\nx",
            "malformed",
        ),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n", "malformed"),
        (b"HTTP/1.1 200 OK\r\n\r\n" + b"x" * (MAX_BODY_BYTES + 1), "too_large"),
        (b"HTTP/1.1 200 OK\r\nX: " + b"x" * 200_000, "too_large"),
        (b"HTTP/1.1 103 Early Hints\r\n\r\n" * 10_000, "too_large"),
    ],
)
async def test_what_is_no_answer_has_a_reason(answer: bytes, reason: str) -> None:
    async with running(answering(answer, close=True)) as (_, client):
        assert await fault_of(client) in ({reason, "malformed"} if reason == "too_large" else {reason})


async def test_a_body_of_the_largest_size_is_read() -> None:
    answer = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (MAX_BODY_BYTES, b"x" * MAX_BODY_BYTES)
    async with running(answering(answer)) as (_, client):
        assert len((await post(client)).body) == MAX_BODY_BYTES


async def test_a_port_without_a_server() -> None:
    async with running(answering(OK)) as (server, _):
        port = server.port
    assert await fault_of(HttpClient(f"http://127.0.0.1:{port}/")) == "unreachable"


async def test_a_kept_connection_that_was_closed_is_replaced_and_a_new_one_is_not() -> None:
    async def once_each(server: Server, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await server.request(reader)
        writer.write(OK)
        await server.request(reader)  # the next one is read, and not answered
        if server.connections == 1:
            return
        writer.write(OK)

    async with running(once_each) as (server, client):
        for _ in range(3):
            assert await post(client) == Answer(200, b"{}")
        assert server.connections == 2

    async def never(server: Server, reader: asyncio.StreamReader, _writer: asyncio.StreamWriter) -> None:
        await server.request(reader)

    async with running(never) as (server, client):
        assert await fault_of(client) == "broken"
        assert (
            server.connections == 1
        )  # it may have been carried out: only the caller knows whether to repeat it


async def test_bytes_that_nothing_asked_for_answer_no_later_request() -> None:
    async def too_much(server: Server, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        number = len(server.requests)
        await server.request(reader)
        writer.write(OK + b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil" * (number == 0))
        await server.request(reader)

    async with running(too_much) as (server, client):
        assert (await post(client)).body == b"{}"
        assert (await post(client)).body == b"{}"
        assert server.connections == 2


async def test_a_cancelled_post_closes_its_connection() -> None:
    asked, closed = asyncio.Event(), asyncio.Event()

    async def silent(server: Server, reader: asyncio.StreamReader, _writer: asyncio.StreamWriter) -> None:
        await server.request(reader)
        asked.set()
        try:
            assert await reader.read() == b""
        finally:
            closed.set()

    async with running(silent) as (_, client):
        posting = asyncio.create_task(post(client))
        await asked.wait()
        posting.cancel()
        await asyncio.wait([posting])
        await asyncio.wait_for(closed.wait(), 10)
