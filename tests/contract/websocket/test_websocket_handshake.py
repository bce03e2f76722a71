"""RFC 6455 §4.2 against a real process: an upgrade in one piece and one in many get the same answer, from either parser."""

import asyncio
import contextlib
import re
from collections.abc import Iterator

import pytest

from tests.support.cluster import ServiceProcess
from tests.support.deadline import PATIENCE_S
from tests.support.deployment import Deployment
from tests.support.rawsocket import FIN, TEXT, client_frame
from tidings_cli.local.servers import NatsServer, RedisServer

KEY = "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ=="
ACCEPTED = "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="
PLAIN = ("Host: 127.0.0.1", "Upgrade: websocket", "Connection: Upgrade", KEY, "Sec-WebSocket-Version: 13")


@pytest.fixture(scope="module", params=[False, True], ids=["plain", "compressing"])
def gateway(
    request: pytest.FixtureRequest,
    nats_server: NatsServer,
    redis_server: RedisServer,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[ServiceProcess]:
    with Deployment(
        tmp_path_factory.mktemp("upgrades"),
        gateways=1,
        services=False,
        nats_url=nats_server.url,
        redis_url=redis_server.url,
        prefix="upgrades",
        compression=request.param,
    ) as deployment:
        yield deployment.gateways[0]
        assert deployment.faults() == []


def without(name: str) -> tuple[str, ...]:
    return tuple(line for line in PLAIN if not line.lower().startswith(f"{name}:"))


def instead(line: str) -> tuple[str, ...]:
    return (*without(line.partition(":")[0].lower()), line)


async def answer(port: int, request: bytes, *, pieces: bool) -> tuple[int, dict[str, str]]:
    """Return the status, and the headers that a handshake is about."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    # Read from the beginning: a reset after the answer, for bytes that the server did not read, would hide the answer.
    answered = asyncio.ensure_future(reader.readuntil(b"\r\n\r\n"))
    try:
        with contextlib.suppress(ConnectionError):
            for part in (request[:20], request[20:-3], request[-3:]) if pieces else (request,):
                writer.write(part)
                await writer.drain()
                await asyncio.sleep(0.01)
        async with asyncio.timeout(PATIENCE_S):
            head = (await answered).decode("latin-1")
    finally:
        writer.transport.abort()
    lines = head.split("\r\n")
    headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in lines[1:] if line)}
    told = re.compile(r"sec-websocket-.*|upgrade|allow|www-authenticate")
    return int(lines[0].split()[1]), {name: value for name, value in headers.items() if told.fullmatch(name)}


@pytest.mark.parametrize(
    ("target", "lines", "status"),
    [
        pytest.param("/ws", PLAIN, 101, id="plain"),
        pytest.param("/ws/echo", PLAIN, 101, id="echo"),
        pytest.param("/ws?username=%C3%A9va&channels=presence", PLAIN, 101, id="query"),
        pytest.param("/%77s", PLAIN, 101, id="escaped path"),
        pytest.param("/ws", instead("Connection: keep-alive, Upgrade"), 101, id="as Firefox"),
        pytest.param("/ws", instead("Upgrade: WebSocket"), 101, id="case"),
        pytest.param("/ws", (*PLAIN, "X-Empty:", "X-Tab:\tvalue\t"), 101, id="white space"),
        pytest.param("/ws", (*PLAIN, "Cookie: a=\xff"), 101, id="bytes over 127"),
        pytest.param("/ws", (*PLAIN, "Sec-WebSocket-Protocol: tidings.v1.msgpack"), 101, id="subprotocol"),
        pytest.param("/ws", (*PLAIN, "Sec-WebSocket-Protocol: x, tidings.v1.json"), 101, id="second choice"),
        pytest.param("/ws", (*PLAIN, "Sec-WebSocket-Protocol: x"), 101, id="none of ours"),
        pytest.param(
            "/ws",
            (*PLAIN, "Sec-WebSocket-Protocol: x", "Sec-WebSocket-Protocol: tidings.v1.json"),
            101,
            id="subprotocols in two lines",
        ),
        pytest.param("/ws", (*PLAIN, "Sec-WebSocket-Protocol: a b"), 400, id="no token"),
        pytest.param("/ws", (*PLAIN, "Sec-WebSocket-Extensions: permessage-deflate"), 101, id="compression"),
        pytest.param("/ws", without("host"), 400, id="no host"),
        pytest.param("/ws", (*PLAIN, "Host: 127.0.0.1"), 400, id="two hosts"),
        pytest.param("/ws", (*PLAIN, "Content-Length: 0"), 101, id="an empty body"),
        pytest.param("/ws", (*PLAIN, "Content-Length: 5"), 400, id="a body"),
        pytest.param("/ws", (*PLAIN, "Transfer-Encoding: chunked"), 400, id="a body in chunks"),
        pytest.param("/ws", without("sec-websocket-key"), 400, id="no key"),
        pytest.param("/ws", instead("Sec-WebSocket-Key: dGhlIHNhbXBsZQ=="), 400, id="short key"),
        pytest.param("/ws", instead("Sec-WebSocket-Key: ???"), 400, id="no base64"),
        pytest.param("/ws", (*PLAIN, KEY), 400, id="two keys"),
        pytest.param("/ws", without("sec-websocket-version"), 400, id="no version"),
        pytest.param("/ws", instead("Sec-WebSocket-Version: 8"), 400, id="another version"),
        pytest.param("/ws", (*PLAIN, "Origin: http://evil.example"), 403, id="foreign page"),
        pytest.param("/ws", instead("Host: evil.example"), 403, id="foreign name"),
        pytest.param("/ws?username=%00", PLAIN, 400, id="no name"),
        pytest.param("http://127.0.0.1/ws?username=Eva", PLAIN, 101, id="a whole URL"),
        pytest.param("http://127.0.0.1", PLAIN, 404, id="a whole URL without a path"),
        pytest.param("*", PLAIN, 404, id="no path"),
        pytest.param("/nowhere", PLAIN, 404, id="no such path"),
        pytest.param("/wsx", PLAIN, 404, id="nearly the path"),
    ],
)
async def test_the_answer_is_the_same_in_one_piece_and_in_many(
    gateway: ServiceProcess, target: str, lines: tuple[str, ...], status: int
) -> None:
    request = "\r\n".join([f"GET {target} HTTP/1.1", *lines, "", ""]).encode("latin-1")
    whole = await answer(gateway.port, request, pieces=False)
    in_pieces = await answer(gateway.port, request, pieces=True)
    assert whole == in_pieces
    assert whole[0] == status
    assert whole[1].get("sec-websocket-accept") == (ACCEPTED if status == 101 else None)


@pytest.mark.parametrize(
    "head",
    [
        pytest.param("GET /ws HTTP/1.1\r\nHost: x\r\nUpgrade : websocket\r\n", id="blank before the colon"),
        pytest.param("GET /ws HTTP/1.1\r\nHost: x\r\nX-A: b\x01\r\n", id="control character"),
        pytest.param("GET  /ws HTTP/1.1\r\nHost: x\r\n", id="two blanks"),
        pytest.param("GET /ws HTTP/2.0\r\nHost: x\r\n", id="another version"),
    ],
)
async def test_what_is_no_http_is_refused(gateway: ServiceProcess, head: str) -> None:
    upgrade = f"Upgrade: websocket\r\nConnection: Upgrade\r\n{KEY}\r\nSec-WebSocket-Version: 13\r\n\r\n"
    status, _ = await answer(gateway.port, (head + upgrade).encode("latin-1"), pieces=False)
    assert 400 <= status < 600


async def test_an_upgrade_with_another_method_is_refused(gateway: ServiceProcess) -> None:
    lines = "\r\n".join(["POST /ws HTTP/1.1", *PLAIN, "Content-Length: 0", "", ""])
    status, _ = await answer(gateway.port, lines.encode(), pieces=False)
    assert status == 405


async def test_an_upgrade_by_the_version_before_is_refused(gateway: ServiceProcess) -> None:
    request = "\r\n".join(["GET /ws HTTP/1.0", *PLAIN, "", ""]).encode()  # RFC 9110 §7.8
    status, _ = await answer(gateway.port, request, pieces=False)
    assert status == 505


async def test_what_follows_the_request_at_once_is_the_first_of_what_comes(gateway: ServiceProcess) -> None:
    """The client should have waited, but what is not lost in another segment is not lost in this one."""
    request = "\r\n".join(["GET {} HTTP/1.1", *PLAIN, "", ""])
    heartbeat = client_frame(FIN | TEXT, b'{"type":"heartbeat","id":"early"}')
    for path, expected in (("/ws", b'"id":"early"'), ("/ws/echo", b'{"type":"heartbeat","id":"early"}')):
        for cut in (0, 1, len(heartbeat) - 1, len(heartbeat)):
            reader, writer = await asyncio.open_connection("127.0.0.1", gateway.port)
            try:
                writer.write(request.format(path).encode() + heartbeat[:cut])
                await asyncio.sleep(0.02)
                writer.write(heartbeat[cut:])
                async with asyncio.timeout(PATIENCE_S):
                    await reader.readuntil(expected)
            finally:
                writer.transport.abort()


async def test_more_than_a_head_behind_the_request_is_refused(gateway: ServiceProcess) -> None:
    request = "\r\n".join(["GET /ws HTTP/1.1", *PLAIN, "", ""]).encode()
    status, _ = await answer(gateway.port, request + bytes(40_000), pieces=False)
    assert status == 431


async def test_an_upgrade_behind_an_unanswered_request_ends_the_connection(gateway: ServiceProcess) -> None:
    """Its answer must not stand before, nor within, another."""
    first = b"GET /api/gateways HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n"
    upgrade = "\r\n".join(["GET /ws/echo HTTP/1.1", *PLAIN, "", ""]).encode()
    reader, writer = await asyncio.open_connection("127.0.0.1", gateway.port)
    try:
        writer.write(first + upgrade)
        async with asyncio.timeout(PATIENCE_S):
            answered = await reader.read()
    finally:
        writer.transport.abort()
    assert answered.startswith(b"HTTP/1.1 200 OK\r\n")
    assert answered.count(b"HTTP/1.1") == 1
