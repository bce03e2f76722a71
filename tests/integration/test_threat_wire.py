"""Hostile bytes against a real gateway: one threat for each test, during which other clients are served."""

import asyncio
import contextlib
import json
import zlib
from collections.abc import AsyncIterator, Iterator

import httpx
import pytest
from websockets.exceptions import InvalidStatus

from tests.support.cluster import ServiceProcess
from tests.support.deadline import PATIENCE_S, eventually
from tests.support.deployment import Deployment, resident_bytes
from tests.support.rawsocket import (
    BINARY,
    CONT,
    FIN,
    PING,
    PONG,
    RSV1,
    TEXT,
    RawSocket,
    client_frame,
    raw_socket,
)
from tests.support.secured import SERVER, WITH_TOKENS, bearer, client, counted, token
from tidings_cli.local.servers import NatsServer, RedisServer


@pytest.fixture(scope="module")
def gateways(
    nats_server: NatsServer, redis_server: RedisServer, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[list[ServiceProcess]]:
    settings: dict[str, object] = {
        **WITH_TOKENS,
        "nats_url": nats_server.url,
        "redis_url": redis_server.url,
        "prefix": "threats",
        "echo_endpoint": True,
        "compression": True,
        "handshake_timeout_s": 1,
        "body_timeout_s": 1,
        "write_timeout_s": 2,
        "write_buffer_bytes": 65_536,
        "frame_rate": 50,
        "message_rate": 20,
        "connections_per_address": 40,
        "connections_per_user": 2,
        "trusted_proxies": "127.0.0.1",
    }
    with Deployment(tmp_path_factory.mktemp("threats"), services=False, **settings) as deployment:
        deployment.extra_gateway("patient", write_buffer_bytes=100_000_000)
        deployment.extra_gateway("strict", request_rate=5, ticket_rate=2, accept_rate=5)
        deployment.extra_gateway("frugal", message_bytes_rate=10_000)
        yield deployment.gateways
        assert deployment.faults() == []


@pytest.fixture
def gateway(gateways: list[ServiceProcess]) -> ServiceProcess:
    return gateways[0]


@pytest.fixture
def patient(gateways: list[ServiceProcess]) -> ServiceProcess:
    """A gateway that lets much wait for a client."""
    return gateways[2]


@pytest.fixture
def strict(gateways: list[ServiceProcess]) -> ServiceProcess:
    """A gateway with rates that are off, or higher, elsewhere."""
    return gateways[3]


@pytest.fixture(autouse=True)
async def _others_are_served(gateway: ServiceProcess) -> AsyncIterator[None]:
    """Whatever one client does, another one notices nothing."""
    async with client(gateway, token("witness")) as witness:
        yield
        assert await witness.is_open()


async def times_met(gateway: ServiceProcess, limit: str) -> float:
    async with httpx.AsyncClient(timeout=PATIENCE_S) as http:
        return counted((await http.get(f"{gateway.url}/metrics", headers=SERVER)).text, limit)


@contextlib.asynccontextmanager
async def met(gateway: ServiceProcess, limit: str) -> AsyncIterator[None]:
    """Expect that a limit is counted once more."""
    before = await times_met(gateway, limit)
    yield

    async def more() -> bool:
        return await times_met(gateway, limit) > before

    await eventually(more, f"the limit {limit} to be counted")


@contextlib.asynccontextmanager
async def raw(gateway: ServiceProcess) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    reader, writer = await asyncio.open_connection("127.0.0.1", gateway.port)
    try:
        yield reader, writer
    finally:
        writer.close()


async def rest_of(reader: asyncio.StreamReader) -> bytes:
    """Return what comes until the server closes."""
    async with asyncio.timeout(PATIENCE_S):
        with contextlib.suppress(ConnectionError):
            return await reader.read()
    return b""


# --- connections that never ask -------------------------------------------------------------------------------


async def test_slow_loris(gateway: ServiceProcess) -> None:
    async with met(gateway, "head_time"), raw(gateway) as (reader, writer):

        async def drip() -> None:
            writer.write(b"GET / HTTP/1.1\r\nhost: x\r\n")
            with contextlib.suppress(ConnectionError):
                while True:
                    writer.write(b"x-a: b\r\n")
                    await writer.drain()
                    await asyncio.sleep(0.1)

        dripping = asyncio.ensure_future(drip())
        answer = await rest_of(reader)
        dripping.cancel()
        assert answer == b"" or b" 408 " in answer.splitlines()[0]


async def test_a_connection_that_says_nothing(gateway: ServiceProcess) -> None:
    async with met(gateway, "head_time"), raw(gateway) as (reader, _):
        assert await rest_of(reader) == b""


async def test_a_kept_connection_that_sends_line_breaks(gateway: ServiceProcess) -> None:
    async with met(gateway, "head_time"), raw(gateway) as (reader, writer):
        writer.write(b"GET /healthz HTTP/1.1\r\nhost: 127.0.0.1\r\n\r\n")
        await reader.readuntil(b"}")
        writer.write(b"\r\n")
        assert await rest_of(reader) == b""


@pytest.mark.parametrize("parts", [b"1\r\nx\r\n", b"1;a=b\r\nx\r\n"], ids=["chunks", "extensions"])
async def test_a_body_that_drips_behind_its_answer(gateway: ServiceProcess, parts: bytes) -> None:
    async with met(gateway, "head_time"), raw(gateway) as (reader, writer):
        writer.write(b"POST /nope HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n")

        async def drip() -> None:
            with contextlib.suppress(ConnectionError):
                while True:
                    writer.write(parts)
                    await writer.drain()
                    await asyncio.sleep(0.1)

        dripping = asyncio.ensure_future(drip())
        assert b" 404 " in (await rest_of(reader)).splitlines()[0]
        dripping.cancel()


async def test_slow_loris_within_an_upgrade(gateway: ServiceProcess) -> None:
    async with raw(gateway) as (reader, writer):
        writer.write(b"GET /ws HTTP/1.1\r\nhost: x\r\nupgrade: websocket\r\nconnection: upgrade\r\n")
        assert b" 408 " in await rest_of(reader)


async def test_a_body_that_drips(gateway: ServiceProcess) -> None:
    async with met(gateway, "body_time"), raw(gateway) as (reader, writer):
        head = f"POST /api/publish HTTP/1.1\r\nhost: x\r\nx-api-key: {SERVER['x-api-key']}\r\ncontent-length: 100\r\n\r\n{{"
        writer.write(head.encode())
        async with asyncio.timeout(PATIENCE_S):
            assert b" 408 " in await reader.readline()


# --- heads that are too large ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "head",
    [
        b"GET / HTTP/1.1\r\nhost: x\r\nx-a: " + b"a" * 20_000 + b"\r\n\r\n",
        b"GET / HTTP/1.1\r\nhost: x\r\n" + b"a: b\r\n" * 3000 + b"\r\n",
        b"GET /?" + b"a" * 20_000 + b" HTTP/1.1\r\nhost: x\r\n\r\n",
        b"GET / HTTP/1.1\r\nhost: x\r\nx-a: " + b"a" * 400_000,
        b"GET /" + b"a" * 400_000,
    ],
    ids=["one header", "many headers", "path", "header without end", "path without end"],
)
async def test_huge_headers(gateway: ServiceProcess, head: bytes) -> None:
    async with met(gateway, "head_bytes"), raw(gateway) as (reader, writer):
        writer.write(head)
        answer = await rest_of(reader)
        # Where more was on its way, the end comes as a reset, which may overtake the answer.
        assert b" 431 " in answer or (answer == b"" and len(head) > 100_000)


async def test_a_large_body_is_no_large_head(gateway: ServiceProcess) -> None:
    async with httpx.AsyncClient(headers=SERVER, timeout=PATIENCE_S) as http:
        content = json.dumps({"room": "a", "content": "x" * 60_000}).encode()
        for split in (1, 3, 50_000):  # also where the head's end is split over two segments
            async with raw(gateway) as (reader, writer):
                head = f"POST /api/publish HTTP/1.1\r\nhost: x\r\nx-api-key: {SERVER['x-api-key']}\r\ncontent-length: {len(content)}\r\n\r\n".encode()
                whole = head + content
                at = len(head) - split if split < 10 else len(head) + split
                writer.write(whole[:at])
                await writer.drain()
                await asyncio.sleep(0.05)
                writer.write(whole[at:])
                assert b" 200 " in await reader.readline()
        assert http.headers


# --- requests that two servers in a row may read differently ----------------------------------------------------


CHUNKED = "host: x\r\ntransfer-encoding: chunked\r\n"
CONTENT = b'{"room": "a", "content": 1}'
BODY = b"%x\r\n%b\r\n0\r\n" % (len(CONTENT), CONTENT)


@pytest.mark.parametrize(
    "trailers", [b"a: b\r\n" * 4000, b"a: " + b"b" * 20_000], ids=["many", "one without end"]
)
@pytest.mark.parametrize("known", [True, False])
async def test_trailers_without_end(gateway: ServiceProcess, trailers: bytes, known: bool) -> None:
    """Whether a handler waits for the end of the body or has answered already."""
    path = f"/api/publish HTTP/1.1\r\nx-api-key: {SERVER['x-api-key']}" if known else "/nope HTTP/1.1"
    async with met(gateway, "head_bytes"), raw(gateway) as (reader, writer):
        writer.write(f"POST {path}\r\n{CHUNKED}\r\n".encode() + BODY)
        for part in (trailers[:3], trailers[3:-3], trailers[-3:]):
            await asyncio.sleep(0.02)  # segments
            writer.write(part)
        answer = await rest_of(reader)
        assert (b" 431 " if known else b" 404 ") in answer.splitlines()[0]
        assert answer.count(b"HTTP/1.1") == 1


async def test_trailers_are_no_headers(gateway: ServiceProcess) -> None:
    trailer = f"x-api-key: {SERVER['x-api-key']}\r\n\r\n".encode()
    head = f"POST /api/publish HTTP/1.1\r\n{CHUNKED}\r\n".encode()
    async with raw(gateway) as (reader, writer):
        writer.write(head + BODY + trailer)
        assert b" 401 " in await reader.readline()
    async with raw(gateway) as (reader, writer):
        writer.write(head.replace(b"\r\n\r\n", b"\r\n" + trailer) + BODY + b"x-a: b\r\n\r\n")
        assert b" 200 " in await reader.readline()


@pytest.mark.parametrize(
    "head", ["GET / HTTP/1.1\r\n", "GET / HTTP/1.1\r\nhost: x\r\nhost: y\r\n", "GET /x\r\n"]
)
async def test_a_request_names_one_host_and_a_version(gateway: ServiceProcess, head: str) -> None:
    async with met(gateway, "bad_request"), raw(gateway) as (reader, writer):
        writer.write(f"{head}\r\n".encode())
        assert b" 400 " in await rest_of(reader)


async def test_an_old_client_names_no_host(gateway: ServiceProcess) -> None:
    async with raw(gateway) as (reader, writer):
        writer.write(b"GET /healthz HTTP/1.0\r\n\r\n")
        assert b" 200 " in await reader.readline()


@pytest.mark.parametrize("length", ["content-length: 5", "transfer-encoding: chunked"])
@pytest.mark.parametrize("request_line", ["GET /ws/echo", "POST /api/publish"])
@pytest.mark.parametrize("protocol", ["websocket", "h2c"])
async def test_an_upgrade_with_a_body(
    gateway: ServiceProcess, request_line: str, length: str, protocol: str
) -> None:
    head = (
        f"{request_line} HTTP/1.1\r\nhost: 127.0.0.1\r\nupgrade: {protocol}\r\nconnection: upgrade\r\n"
        f"sec-websocket-version: 13\r\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n{length}\r\n\r\n"
    )
    async with met(gateway, "bad_request"), raw(gateway) as (reader, writer):
        writer.write(head.encode() + b"5\r\nabcde\r\n0\r\n\r\n")
        answer = await rest_of(reader)
        assert b" 400 " in answer.splitlines()[0]
        assert answer.count(b"HTTP/1.1") == 1


async def test_requests_behind_an_answer(gateway: ServiceProcess) -> None:
    """So many wait; the last of them says that the others have to be asked again."""
    health = b"GET /healthz HTTP/1.1\r\nhost: x\r\n\r\n"
    async with met(gateway, "pipelined"), raw(gateway) as (reader, writer):
        writer.write(health * 200)
        answers = (await rest_of(reader)).split(b"HTTP/1.1 200 OK\r\n")[1:]
        assert len(answers) == 33
        assert [b"connection: close" in answer for answer in answers] == [False] * 32 + [True]


async def test_requests_behind_a_stream(gateway: ServiceProcess) -> None:
    stream = f"GET /events HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {token()}\r\n\r\n"
    async with met(gateway, "pipelined"), raw(gateway) as (reader, writer):
        writer.write(stream.encode() + b"GET /healthz HTTP/1.1\r\nhost: x\r\n\r\n" * 200)
        await reader.readuntil(b"event: connected")
        await reader.readuntil(b"event: heartbeat")  # it goes on


async def test_what_is_no_http(gateway: ServiceProcess) -> None:
    for garbage in (
        b"\x00\x01\x02\r\n\r\n",
        b"GET\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00",
        b"GET / HTTP/9.9\r\n\r\n",
    ):
        async with raw(gateway) as (reader, writer):
            writer.write(garbage)
            answer = await rest_of(reader)
            assert answer == b"" or b" 400 " in answer.splitlines()[0]


# --- WebSocket frames -----------------------------------------------------------------------------------------


async def expelled(socket: RawSocket, code: int) -> None:
    """Expect the close frame; what a flooder still sends is not read, so the end may come as a reset."""
    while (frame := await socket.frame()).opcode != 0x8:
        pass
    assert frame.close_code == code


@pytest.mark.parametrize("opcode", [PING, PONG], ids=["ping", "pong"])
async def test_control_frame_flood(gateway: ServiceProcess, opcode: int) -> None:
    async with met(gateway, "frame_rate"), raw_socket(gateway.port) as socket:
        socket.send(client_frame(FIN | opcode, b"x") * 5000)
        await expelled(socket, 4503)


async def test_pings_within_the_rate_are_answered(gateway: ServiceProcess) -> None:
    async with raw_socket(gateway.port) as socket:
        for _ in range(50):
            socket.send(client_frame(FIN | PING, b"x"))
            assert (await socket.frame()).opcode == PONG
        await socket.still_serves()


async def test_fragment_flood(gateway: ServiceProcess) -> None:
    async with met(gateway, "frame_rate"), raw_socket(gateway.port) as socket:
        socket.send(client_frame(TEXT, b"x") + client_frame(CONT, b"x") * 5000)
        await expelled(socket, 4503)


async def test_empty_fragment_flood(gateway: ServiceProcess) -> None:
    async with raw_socket(gateway.port) as socket:
        socket.send(client_frame(TEXT) + client_frame(CONT) * 5000)
        await expelled(socket, 4503)


async def test_oversize(gateway: ServiceProcess) -> None:
    async with met(gateway, "message_bytes"), raw_socket(gateway.port) as socket:
        socket.send(client_frame(FIN | BINARY, length=65_537))
        await socket.closed(1009)


async def test_oversize_in_fragments(gateway: ServiceProcess) -> None:
    async with raw_socket(gateway.port) as socket:
        socket.send(client_frame(BINARY, b"x" * 40_000) + client_frame(CONT | FIN, b"x" * 40_000))
        await socket.closed(1009)


async def test_deflate_bomb(gateway: ServiceProcess) -> None:
    deflate = zlib.compressobj(9, wbits=-12)
    bomb = deflate.compress(b"\0" * 50_000_000) + deflate.flush(zlib.Z_SYNC_FLUSH)
    before = resident_bytes(gateway)
    extension = "Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits"
    async with met(gateway, "message_bytes"), raw_socket(gateway.port, "/ws/echo", extension) as socket:
        assert b"permessage-deflate" in socket.head
        assert len(bomb) - 4 < 65_536
        socket.send(client_frame(FIN | RSV1 | BINARY, bomb[:-4]))
        await socket.closed(1009)
    assert resident_bytes(gateway) - before < 20_000_000


async def test_slow_reader_by_bytes(gateway: ServiceProcess) -> None:
    async with met(gateway, "write_bytes"), raw_socket(gateway.port) as socket:
        socket.writer.transport.pause_reading()
        with contextlib.suppress(ConnectionError):
            for _ in range(400):
                socket.send(client_frame(FIN | BINARY, b"x" * 60_000))
                await socket.writer.drain()
                if await times_met(gateway, "write_bytes"):
                    break


async def test_slow_reader_by_time(patient: ServiceProcess) -> None:
    """It never reads, and never has more waiting than it may."""
    async with raw_socket(patient.port) as socket, met(patient, "write_time"):
        socket.writer.transport.pause_reading()
        for _ in range(250):
            socket.send(client_frame(FIN | BINARY, b"x" * 60_000))
        with contextlib.suppress(ConnectionError):
            await socket.writer.drain()


async def test_an_answer_that_is_not_read(gateway: ServiceProcess) -> None:
    async with raw(gateway) as (reader, writer):
        reader._transport.pause_reading()  # type: ignore[attr-defined]
        writer.get_extra_info("socket").setsockopt(1, 8, 4096)
        before = await times_met(gateway, "write_time")

        async def cut() -> bool:
            with contextlib.suppress(ConnectionError):
                # Few at a time: requests that wait in a queue would meet the limit of that first.
                writer.write(b"GET /metrics HTTP/1.1\r\nhost: 127.0.0.1\r\n\r\n" * 5)
                await writer.drain()
            return await times_met(gateway, "write_time") > before

        await eventually(cut, "the connection to be cut")


# --- floods ---------------------------------------------------------------------------------------------------


async def test_publish_flood(gateway: ServiceProcess) -> None:
    async with met(gateway, "flooding"), client(gateway, token("flo")) as flo:
        await flo.ask("join_room", room="flooded")
        with contextlib.suppress(Exception):
            for number in range(600):
                await flo.send("room_message", room="flooded", content=number)
        assert await flo.closed() == 4503
        refused = [message for message in flo.seen if message.get("code") == "rate_limited"]
        assert refused[0]["retryable"]
        assert refused[0]["retryAfterMs"] > 0


async def test_a_flood_of_bytes(gateways: list[ServiceProcess]) -> None:
    """A burst of large messages is taken, then the rate in bytes holds."""
    frugal = gateways[4]
    async with met(frugal, "message_bytes_rate"), client(frugal, token("bulk")) as bulk:
        await bulk.ask("join_room", room="bulky")
        answers = [await bulk.ask("room_message", room="bulky", content="x" * 15_000) for _ in range(12)]
        refused = [answer for answer in answers if answer["type"] == "error"]
        assert {answer["code"] for answer in refused} <= {"rate_limited"}
        assert any("bytes per second" in answer["message"] for answer in refused)
        assert answers[0]["type"] == "ack"
        assert await bulk.is_open()


async def test_request_flood_from_one_address(strict: ServiceProcess) -> None:
    async with (
        met(strict, "request_rate"),
        httpx.AsyncClient(base_url=strict.url, timeout=PATIENCE_S) as http,
    ):
        there = {"x-forwarded-for": "2001:db8::1"}
        answers = [await http.get("/api/rooms", headers=there) for _ in range(20)]
        assert {answer.status_code for answer in answers[:10]} == {401}
        refused = [answer for answer in answers if answer.status_code == 429]
        assert refused[0].json()["code"] == "rate_limited"
        assert 0 < refused[0].json()["retryAfterMs"] <= 200
        neighbour = {"x-forwarded-for": "2001:db8::2"}
        assert 429 in [(await http.get("/nowhere", headers=neighbour)).status_code for _ in range(10)]
        for headers in (there | SERVER, {"x-forwarded-for": "2001:db8:0:1::1"}):
            assert (await http.get("/metrics", headers=headers)).status_code == 200
        assert (await http.get("/readyz", headers=there)).status_code == 200


async def test_ticket_flood_of_one_user(strict: ServiceProcess) -> None:
    async with met(strict, "ticket_rate"), httpx.AsyncClient(base_url=strict.url, timeout=PATIENCE_S) as http:
        for number in range(8):
            place = {"x-forwarded-for": f"198.51.100.{number}"}
            answer = await http.post("/api/tickets", headers=place | bearer(token("greedy")))
            assert answer.status_code == 201 or number >= 4
        assert answer.status_code == 429
        assert (await http.post("/api/tickets", headers=bearer(token("modest")))).status_code == 201


async def test_connection_flood_over_the_total_rate(strict: ServiceProcess) -> None:
    """The accept rate: connections above it get a time to reconnect, each later than the one before."""
    waits = []
    async with met(strict, "accept_rate"):
        for path in ["/ws", "/ws/echo"] * 10:
            try:
                async with raw_socket(strict.port, path, "Authorization: Bearer nonsense"):
                    pass
            except AssertionError as refused:
                if "HTTP/1.1 503 " in str(refused):
                    waits.append(int(str(refused).lower().partition("retry-after: ")[2].partition("\\")[0]))
    assert waits
    assert min(waits) >= 1
    assert waits == sorted(waits)


async def test_streams_above_the_accept_rate_count_as_sockets_do(strict: ServiceProcess) -> None:
    statuses = set()
    async with (
        met(strict, "accept_rate"),
        httpx.AsyncClient(base_url=strict.url, headers=SERVER, timeout=PATIENCE_S) as http,
    ):
        for path in ["/events", "/events/metrics"] * 10:
            async with http.stream("GET", path) as answer:
                statuses.add(answer.status_code)
        text = (await http.get("/metrics")).text
    assert 503 in statuses
    counted = [line for line in text.splitlines() if "refusals_total" in line]
    assert any('code="accept_rate"' in line for line in counted)
    assert not any('code="http_503"' in line for line in counted)


async def test_connection_flood_from_one_address(gateway: ServiceProcess) -> None:
    async with contextlib.AsyncExitStack() as stack, met(gateway, "address_connections"):
        for number in range(40):
            header = {"X_Forwarded_For": f"203.0.113.1, 2001:db8::{number:x}"}
            await stack.enter_async_context(client(gateway, token(f"many-{number}"), **header))
        with pytest.raises(InvalidStatus) as refused:
            await stack.enter_async_context(client(gateway, token("more"), X_Forwarded_For="2001:db8::ffff"))
        assert refused.value.response.status_code == 429
        assert refused.value.response.headers["retry-after"] == "10"
        async with httpx.AsyncClient(
            headers={"x-forwarded-for": "2001:db8::ffff"} | bearer(token("more")), timeout=PATIENCE_S
        ) as http:
            assert (await http.get(f"{gateway.url}/events")).status_code == 429
        with pytest.raises(AssertionError, match=r"HTTP/1[.]1 429 "):
            async with raw_socket(gateway.port, "/ws/echo", "X-Forwarded-For: 2001:db8::ffff"):
                pass
        async with client(gateway, token("other"), X_Forwarded_For="2001:db8:0:1::1") as other:
            assert await other.is_open()

    async def room_again() -> bool:
        try:
            async with client(gateway, token("more"), X_Forwarded_For="2001:db8::ffff"):
                return True
        except InvalidStatus:
            return False

    await eventually(room_again, "the place to have room again")


async def test_echo_connections_are_counted_by_address(gateway: ServiceProcess) -> None:
    header = "X-Forwarded-For: 192.0.2.78"
    async with contextlib.AsyncExitStack() as stack:
        for _ in range(40):
            await stack.enter_async_context(raw_socket(gateway.port, "/ws/echo", header))
        with pytest.raises(AssertionError, match=r"HTTP/1[.]1 429 "):
            await stack.enter_async_context(raw_socket(gateway.port, "/ws/echo", header))

    async def room_again() -> bool:
        try:
            async with raw_socket(gateway.port, "/ws/echo", header):
                return True
        except AssertionError:
            return False

    await eventually(room_again, "the place to have room again")


async def test_refused_connections_leave_no_trace(gateway: ServiceProcess) -> None:
    for _ in range(60):
        with pytest.raises(InvalidStatus) as refused:
            async with client(gateway, "nonsense", X_Forwarded_For="192.0.2.77"):
                pass
        assert refused.value.response.status_code == 401


async def test_a_user_has_so_many_connections_on_all_gateways(gateways: list[ServiceProcess]) -> None:
    async with (
        met(gateways[0], "user_connections"),
        client(gateways[0], token("uma")) as first,
        client(gateways[1], token("uma")) as second,
    ):
        assert await first.is_open()
        async with client(gateways[1], token("uma")) as third:
            assert await first.closed() == 4003
            assert first.seen[-1]["reconnect"] is True
            assert await second.is_open()
            assert await third.is_open()
            async with client(gateways[1], token("uma")) as fourth:
                assert await second.closed() == 4003
                assert await fourth.is_open()
