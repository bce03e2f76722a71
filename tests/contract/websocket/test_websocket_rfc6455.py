"""RFC 6455 and RFC 7692 in the gateway's own protocol class, in raw frames against a real process."""

import asyncio
import zlib
from collections.abc import Callable

import pytest

from tests.support.cluster import ServiceProcess
from tests.support.deployment import Deployment
from tests.support.rawsocket import (
    BINARY,
    CLOSE,
    CONT,
    FIN,
    PING,
    PONG,
    RSV1,
    RSV2,
    RSV3,
    TEXT,
    RawSocket,
    Received,
    client_frame,
    close_payload,
    raw_socket,
)  # fmt: skip

MAX = 65_536


@pytest.fixture(scope="module")
def deflating(deployment: Deployment) -> ServiceProcess:
    return deployment.extra_gateway("deflating", compression="true")


async def in_one_piece(socket: RawSocket, data: bytes) -> None:
    socket.send(data)


async def byte_by_byte(socket: RawSocket, data: bytes) -> None:
    for byte in data:
        socket.send(bytes([byte]))
        await socket.writer.drain()
        await asyncio.sleep(0)


@pytest.mark.parametrize("size", [0, 1, 125, 126, 127, 65_535, 65_536])
@pytest.mark.parametrize("opcode", [TEXT, BINARY])
async def test_every_length_is_echoed(gateway: ServiceProcess, opcode: int, size: int) -> None:
    async with raw_socket(gateway.port) as socket:
        socket.send(client_frame(FIN | opcode, b"x" * size))
        assert await socket.frame() == Received(FIN | opcode, b"x" * size)


@pytest.mark.parametrize("deliver", [in_one_piece, byte_by_byte])
async def test_fragments_with_control_frames_between(
    gateway: ServiceProcess, deliver: Callable[[RawSocket, bytes], object]
) -> None:
    text = "grüße 👋".encode()
    frames = b"".join(
        [
            client_frame(TEXT, text[:3]),  # in the middle of a character
            client_frame(FIN | PING, b"first"),
            client_frame(CONT, b""),
            client_frame(CONT, text[3:9]),
            client_frame(FIN | PONG, b"nobody asked"),
            client_frame(FIN | PING, b"second"),
            client_frame(FIN | CONT, text[9:]),
            client_frame(FIN | BINARY, b"after"),  # trailing data of another message
        ]
    )
    async with raw_socket(gateway.port) as socket:
        await deliver(socket, frames)  # type: ignore[misc]
        received = [await socket.frame() for _ in range(4)]
    assert received == [
        Received(FIN | PONG, b"first"),
        Received(FIN | PONG, b"second"),
        Received(FIN | TEXT, text),
        Received(FIN | BINARY, b"after"),
    ]


@pytest.mark.parametrize("payload", [b"", b"hi", b"\x00\xff" * 62 + b"!"])
async def test_a_ping_is_answered_with_its_payload(gateway: ServiceProcess, payload: bytes) -> None:
    async with raw_socket(gateway.port) as socket:
        socket.send(client_frame(FIN | PING, payload))
        assert await socket.frame() == Received(FIN | PONG, payload)


@pytest.mark.parametrize("code", [1000, 1001, 1003, 1007, 1011, 3000, 4000, 4999])
async def test_a_close_is_echoed_and_the_connection_ends(gateway: ServiceProcess, code: int) -> None:
    async with raw_socket(gateway.port) as socket:
        socket.send(client_frame(FIN | CLOSE, close_payload(code, "tschüß".encode())))
        await socket.closed(code)


async def test_a_close_without_a_code_is_echoed_as_it_is(gateway: ServiceProcess) -> None:
    async with raw_socket(gateway.port) as socket:
        socket.send(client_frame(FIN | CLOSE))
        await socket.closed(1005)


async def test_a_message_before_a_close_in_one_segment_is_still_echoed(gateway: ServiceProcess) -> None:
    async with raw_socket(gateway.port) as socket:
        socket.send(client_frame(FIN | TEXT, b"last") + client_frame(FIN | CLOSE, close_payload(1000)))
        assert await socket.frame() == Received(FIN | TEXT, b"last")
        await socket.closed(1000)


async def test_what_follows_a_close_is_ignored(gateway: ServiceProcess) -> None:
    async with raw_socket(gateway.port) as socket:
        late = client_frame(FIN | TEXT, b"too late") + client_frame(FIN | PING)
        socket.send(client_frame(FIN | CLOSE, close_payload(1000)) + late)
        await socket.closed(1000)


@pytest.mark.parametrize(
    "frames",
    [
        pytest.param(client_frame(FIN | CLOSE, b"\x03"), id="one byte"),
        *[
            pytest.param(client_frame(FIN | CLOSE, close_payload(code)), id=str(code))
            for code in (0, 999, 1004, 1005, 1006, 1015, 1016, 2999, 5000, 65_535)
        ],
    ],
)
async def test_invalid_close_frames(gateway: ServiceProcess, frames: bytes) -> None:
    async with raw_socket(gateway.port) as socket:
        socket.send(frames)
        await socket.closed(1002)


async def test_a_close_reason_that_is_not_utf8(gateway: ServiceProcess) -> None:
    async with raw_socket(gateway.port) as socket:
        socket.send(client_frame(FIN | CLOSE, close_payload(1000, b"\xce\xba\xe1")))
        await socket.closed(1007)


@pytest.mark.parametrize(
    "text", [b"\xff", b"\xc3", b"\xed\xa0\x80", b"\xc0\xaf", b"\xf4\x90\x80\x80", b"abc\x80def"]
)
@pytest.mark.parametrize("split", [False, True])
async def test_text_that_is_not_utf8(gateway: ServiceProcess, text: bytes, split: bool) -> None:
    frames = client_frame(TEXT, text[:1]) + client_frame(FIN | CONT, text[1:])
    async with raw_socket(gateway.port) as socket:
        socket.send(frames if split else client_frame(FIN | TEXT, text))
        await socket.closed(1007)


@pytest.mark.parametrize(
    "frames",
    [
        pytest.param(client_frame(FIN | RSV1 | TEXT, b"x"), id="RSV1 without an extension"),
        pytest.param(client_frame(FIN | RSV2 | TEXT, b"x"), id="RSV2"),
        pytest.param(client_frame(FIN | RSV3 | PING, b"x"), id="RSV3 on a ping"),
        pytest.param(client_frame(FIN | TEXT, b"x", masked=False), id="unmasked"),
        *[
            pytest.param(client_frame(FIN | opcode, b"x"), id=f"opcode {opcode}")
            for opcode in (3, 4, 5, 6, 7, 11, 12, 13, 14, 15)
        ],
        pytest.param(client_frame(PING, b"x"), id="fragmented ping"),
        pytest.param(client_frame(FIN | PING, b"x" * 126), id="long ping"),
        pytest.param(client_frame(FIN | CLOSE, close_payload(1000, b"x" * 124)), id="long close"),
        pytest.param(client_frame(FIN | CONT, b"x"), id="continuation of nothing"),
        pytest.param(client_frame(TEXT, b"a") + client_frame(FIN | TEXT, b"b"), id="text within fragments"),
    ],
)
@pytest.mark.parametrize("deliver", [in_one_piece, byte_by_byte])
async def test_violations_of_the_protocol(
    gateway: ServiceProcess, frames: bytes, deliver: Callable[[RawSocket, bytes], object]
) -> None:
    async with raw_socket(gateway.port) as socket:
        await deliver(socket, frames)  # type: ignore[misc]
        await socket.closed(1002)


@pytest.mark.parametrize(
    "frames",
    [
        pytest.param(client_frame(FIN | TEXT, b"", length=MAX + 1), id="announced"),
        pytest.param(client_frame(FIN | TEXT, b"x" * (MAX + 1)), id="sent"),
        pytest.param(client_frame(FIN | BINARY, b"", length=2**63 - 1), id="absurd"),
        pytest.param(client_frame(BINARY, b"x" * MAX) + client_frame(FIN | CONT, b"x"), id="in fragments"),
    ],
)
async def test_oversize_messages(gateway: ServiceProcess, frames: bytes) -> None:
    async with raw_socket(gateway.port) as socket:
        socket.send(frames)
        await socket.closed(1009)


async def test_the_close_code_arrives_while_the_client_is_still_sending(gateway: ServiceProcess) -> None:
    async with raw_socket(gateway.port) as socket:
        socket.send(client_frame(FIN | BINARY, b"", length=50_000_000) + b"x" * 5_000_000)
        assert (await socket.frame()).close_code == 1009


async def test_a_connection_that_just_ends_affects_no_other(gateway: ServiceProcess) -> None:
    async with raw_socket(gateway.port) as other:
        for last in (b"", client_frame(TEXT, b"half"), client_frame(FIN | TEXT, b"", length=100)):
            async with raw_socket(gateway.port) as socket:
                socket.send(last)
                socket.writer.write_eof()  # half-closed: it could still read
                await socket.ended()
        await other.still_serves()


@pytest.mark.parametrize("cut", [1, 2, 3, 6])
async def test_a_mask_that_looks_like_a_frame(gateway: ServiceProcess, cut: int) -> None:
    """Where a frame was cut, what comes next is the rest of it, whatever it looks like."""
    mask = bytes((FIN | TEXT, 0x80, 0, 0))
    payload = bytes((FIN | TEXT, 0x80, 0, 0, 0, 0)) * 5
    masked = bytes(byte ^ mask[index % 4] for index, byte in enumerate(payload))
    frame = bytes((FIN | BINARY, 0x80 | len(masked))) + mask + masked
    async with raw_socket(gateway.port) as socket:
        socket.send(frame[:cut])
        await asyncio.sleep(0.05)  # two segments
        socket.send(frame[cut:])
        assert await socket.frame() == Received(FIN | BINARY, payload)
        await socket.still_serves()


@pytest.mark.parametrize("size", [0, 1, 125])
@pytest.mark.parametrize("length", ["16 bits", "64 bits"])
@pytest.mark.parametrize("deliver", [in_one_piece, byte_by_byte])
async def test_a_length_that_is_not_in_its_shortest_form(
    gateway: ServiceProcess, size: int, length: str, deliver: Callable[[RawSocket, bytes], object]
) -> None:
    """Not allowed to senders (RFC 6455 §5.2): the length of one message would have several spellings."""
    head = bytes((0x80 | 126,)) + size.to_bytes(2, "big")
    if length == "64 bits":
        head = bytes((0x80 | 127,)) + size.to_bytes(8, "big")
    odd = bytes((FIN | TEXT,)) + head + bytes(4) + b"x" * size
    async with raw_socket(gateway.port) as socket:
        await deliver(socket, client_frame(FIN | TEXT, b"before") + odd + client_frame(FIN | TEXT, b"after"))  # type: ignore[misc]
        assert await socket.frame() == Received(FIN | TEXT, b"before")
        await socket.closed(1002)


@pytest.mark.parametrize("deliver", [in_one_piece, byte_by_byte])
async def test_many_frames_of_every_kind_in_a_row(
    gateway: ServiceProcess, deliver: Callable[[RawSocket, bytes], object]
) -> None:
    """Ordinary frames and all others take turns at being parsed, and none is lost between."""
    frames = b"".join(
        [
            client_frame(FIN | TEXT, b"one"),
            client_frame(FIN | PONG),
            client_frame(TEXT, b"t"),
            client_frame(FIN | PING, b"within"),
            client_frame(FIN | CONT, b"wo"),
            client_frame(FIN | PING, b"without"),
            client_frame(FIN | BINARY, b"x" * 300),
            client_frame(FIN | TEXT, b"last"),
            client_frame(FIN | CLOSE, close_payload(1000)),
        ]
    )
    async with raw_socket(gateway.port) as socket:
        await deliver(socket, frames)  # type: ignore[misc]
        assert [await socket.frame() for _ in range(6)] == [
            Received(FIN | TEXT, b"one"),
            Received(FIN | PONG, b"within"),
            Received(FIN | TEXT, b"two"),
            Received(FIN | PONG, b"without"),
            Received(FIN | BINARY, b"x" * 300),
            Received(FIN | TEXT, b"last"),
        ]
        await socket.closed(1000)


async def test_the_accept_key_of_the_rfcs_own_example(gateway: ServiceProcess) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", gateway.port)
    writer.write(
        b"GET /ws/echo HTTP/1.1\r\nHost: 127.0.0.1\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
    )
    head = await reader.readuntil(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 101 ")
    assert b"Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=" in head
    writer.transport.abort()
    await asyncio.sleep(0)


# --- permessage-deflate ---

OFFER = "Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits"
LONG = b'{"text": "' + b"the same again, " * 200 + b'"}'


def deflated(data: bytes) -> bytes:
    deflate = zlib.compressobj(wbits=-12)
    return (deflate.compress(data) + deflate.flush(zlib.Z_SYNC_FLUSH))[:-4]


def inflated(data: bytes) -> bytes:
    return zlib.decompressobj(wbits=-15).decompress(data + b"\x00\x00\xff\xff")


async def test_deflate_both_ways(deflating: ServiceProcess) -> None:
    async with raw_socket(deflating.port, "/ws/echo", OFFER) as socket:
        assert b"permessage-deflate" in socket.head
        assert b"server_no_context_takeover" in socket.head
        for _ in range(2):  # the second shows that neither side remembers the first
            socket.send(client_frame(FIN | RSV1 | TEXT, deflated(LONG)))
            frame = await socket.frame()
            assert frame.first == FIN | RSV1 | TEXT
            assert len(frame.payload) < len(LONG) / 5
            assert inflated(frame.payload) == LONG


async def test_deflated_fragments_and_messages_that_are_not_worth_it(deflating: ServiceProcess) -> None:
    data = deflated(b"short")
    async with raw_socket(deflating.port, "/ws/echo", OFFER) as socket:
        socket.send(client_frame(RSV1 | TEXT, data[:2]) + client_frame(FIN | CONT, data[2:]))
        assert await socket.frame() == Received(FIN | TEXT, b"short")
        socket.send(client_frame(FIN | BINARY, b"plain"))
        assert await socket.frame() == Received(FIN | BINARY, b"plain")


async def test_without_an_offer_nothing_is_compressed(deflating: ServiceProcess) -> None:
    async with raw_socket(deflating.port) as socket:
        assert b"permessage-deflate" not in socket.head
        socket.send(client_frame(FIN | TEXT, LONG))
        assert await socket.frame() == Received(FIN | TEXT, LONG)


async def test_a_smaller_window_than_the_shared_one_is_declined(deflating: ServiceProcess) -> None:
    offer = "Sec-WebSocket-Extensions: permessage-deflate; server_max_window_bits=10"
    async with raw_socket(deflating.port, "/ws/echo", offer) as socket:
        assert b"permessage-deflate" not in socket.head
        await socket.still_serves()
    async with raw_socket(deflating.port, "/ws/echo", f"{offer}, permessage-deflate") as socket:
        assert b"permessage-deflate" in socket.head


async def test_by_default_compression_is_off(gateway: ServiceProcess) -> None:
    async with raw_socket(gateway.port, "/ws/echo", OFFER) as socket:
        assert b"permessage-deflate" not in socket.head


async def test_a_deflate_bomb_is_oversize(deflating: ServiceProcess) -> None:
    async with raw_socket(deflating.port, "/ws/echo", OFFER) as socket:
        socket.send(client_frame(FIN | RSV1 | BINARY, deflated(b"\x00" * 10_000_000)))
        await socket.closed(1009)


async def test_garbage_that_claims_to_be_deflated(deflating: ServiceProcess) -> None:
    async with raw_socket(deflating.port, "/ws/echo", OFFER) as socket:
        socket.send(client_frame(FIN | RSV1 | TEXT, b"\xff\xff\xff\xff"))
        await socket.closed(1002)


async def test_one_client_is_cut_off_and_the_others_are_not(
    gateway: ServiceProcess, deflating: ServiceProcess
) -> None:
    for port in (gateway.port, deflating.port):
        async with raw_socket(port) as other, raw_socket(port) as hostile:
            hostile.send(b"\x00" * 1000)
            await hostile.closed(1002)
            await other.still_serves()
