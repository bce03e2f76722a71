"""The cases of Autobahn's test suite for WebSocket servers, by number, in raw frames against a real process.

The suite itself needs Python 2. These are its cases of sections 1 to 7 and 10 but for the informational ones, in its strict
reading: 6.4, for one, wants the close before the rest of the message is sent. Sections 9, 12 and 13 measure; here are their
sizes, as far as a gateway takes them.
"""

import asyncio
import zlib
from collections.abc import Iterator
from itertools import count
from typing import NamedTuple

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
)

HELLO = b"Hello, world!"
BYTES = b"\x00\xff\xfe\xfd\xfc\xfb\x00\xff"
UMLAUTS = "Hello-µ@ßöäüàá-UTF-8!!".encode()
KOSME = b"\xce\xba\xe1\xbd\xb9\xcf\x83\xce\xbc\xce\xb5"
BROKEN = KOSME + b"\xed\xa0\x80edited"  # a surrogate; wrong from its second byte on
OUT_OF_RANGE = KOSME + b"\xf4\x90\x80\x80edited"  # over U+10FFFF; the same


class Step(NamedTuple):
    """Bytes to send, and the answer that must arrive before the next ones are sent."""

    sends: bytes
    receives: tuple[Received, ...] = ()


class Case(NamedTuple):
    """A case ends with the server's close frame."""

    number: str
    steps: tuple[Step, ...]
    chop: int = 0  # bytes of one segment; 0: each step is one


def message(payload: bytes, opcode: int = TEXT) -> bytes:
    return client_frame(FIN | opcode, payload)


def fragments(*parts: bytes, opcode: int = TEXT) -> list[bytes]:
    last = len(parts) - 1
    return [
        client_frame((FIN if at == last else 0) | (CONT if at else opcode), part)
        for at, part in enumerate(parts)
    ]


def fragmented(payload: bytes, size: int, opcode: int = TEXT) -> bytes:
    return b"".join(
        fragments(*(payload[at : at + size] for at in range(0, len(payload), size)), opcode=opcode)
    )


def echo(payload: bytes, opcode: int = TEXT) -> Received:
    return Received(FIN | opcode, payload)


def pong(payload: bytes = b"") -> Received:
    return Received(FIN | PONG, payload)


GOODBYE = client_frame(FIN | CLOSE, close_payload(1000))
CLOSED = Received(FIN | CLOSE, close_payload(1000))


def clean(number: str, sends: bytes, *receives: Received, chop: int = 0) -> Case:
    """All is answered, and then the client closes."""
    return Case(number, (Step(sends, receives), Step(GOODBYE, (CLOSED,))), chop)


def failed(number: str, sends: bytes, *receives: Received, code: int = 1002, chop: int = 0) -> Case:
    """The server closes with `code`, after what came before was answered."""
    return Case(number, (Step(sends, (*receives, Received(FIN | CLOSE, close_payload(code)))),), chop)


def closing(number: str, sends: bytes, payload: bytes) -> Case:
    """The client closes, and the server answers with `payload`."""
    return Case(number, (Step(sends, (Received(FIN | CLOSE, payload),)),))


def framing() -> Iterator[Case]:
    sizes = (0, 125, 126, 127, 128, 65_535, 65_536, 65_536)
    for group, opcode, byte in ((1, TEXT, b"*"), (2, BINARY, b"\xfe")):
        for index, size in enumerate(sizes, 1):
            payload = byte * size
            yield clean(
                f"1.{group}.{index}", message(payload, opcode), echo(payload, opcode), chop=(index == 8) * 997
            )


def pings() -> Iterator[Case]:
    for index, payload in enumerate((b"", HELLO, BYTES, b"\xfe" * 125), 1):
        yield clean(f"2.{index}", message(payload, PING), pong(payload))
    yield failed("2.5", message(b"\xfe" * 126, PING))
    yield clean("2.6", message(b"\xfe" * 125, PING), pong(b"\xfe" * 125), chop=1)
    yield clean("2.7", message(b"", PONG))
    yield clean("2.8", message(b"unsolicited", PONG))
    yield clean("2.9", message(b"unsolicited", PONG) + message(HELLO, PING), pong(HELLO))
    ten = [b"payload-%d" % number for number in range(10)]
    for number, chop in (("2.10", 0), ("2.11", 1)):
        yield clean(number, b"".join(message(each, PING) for each in ten), *map(pong, ten), chop=chop)


def reserved() -> Iterator[Case]:
    hello, ping = message(HELLO), message(b"", PING)
    yield failed("3.1", client_frame(FIN | RSV3 | TEXT, HELLO))
    yield failed("3.2", hello + client_frame(FIN | RSV2 | TEXT, HELLO) + ping, echo(HELLO))
    yield failed("3.3", hello + client_frame(FIN | RSV2 | RSV3 | TEXT, HELLO) + ping, echo(HELLO))
    yield failed("3.4", hello + client_frame(FIN | RSV1 | TEXT, HELLO) + ping, echo(HELLO), chop=1)
    yield failed("3.5", client_frame(FIN | RSV1 | RSV3 | BINARY, BYTES))
    yield failed("3.6", client_frame(FIN | RSV1 | RSV2 | PING, HELLO))
    yield failed("3.7", client_frame(FIN | RSV1 | RSV2 | RSV3 | CLOSE))
    for group, first in ((1, 3), (2, 11)):
        yield failed(f"4.{group}.1", message(b"", first))
        yield failed(f"4.{group}.2", message(b"reserved", first + 1))
        yield failed(f"4.{group}.3", hello + message(b"", first + 2) + ping, echo(HELLO))
        yield failed(f"4.{group}.4", hello + message(HELLO, first + 3) + ping, echo(HELLO))
        yield failed(f"4.{group}.5", hello + message(HELLO, first + 4) + ping, echo(HELLO), chop=1)


def fragmentation() -> Iterator[Case]:
    parts = fragments(b"one", b"two")
    ping, whole = message(b"ping", PING), echo(b"onetwo")
    yield failed("5.1", b"".join(fragments(b"one", b"two", opcode=PING)))
    yield failed("5.2", b"".join(fragments(b"one", b"two", opcode=PONG)))
    yield clean("5.3", b"".join(parts), whole)
    yield Case("5.4", (Step(parts[0]), Step(parts[1], (whole,)), Step(GOODBYE, (CLOSED,))))
    yield clean("5.5", b"".join(parts), whole, chop=1)
    yield clean("5.6", parts[0] + ping + parts[1], pong(b"ping"), whole)
    steps = (Step(parts[0]), Step(ping, (pong(b"ping"),)), Step(parts[1], (whole,)), Step(GOODBYE, (CLOSED,)))
    yield Case("5.7", steps)
    yield clean("5.8", parts[0] + ping + parts[1], pong(b"ping"), whole, chop=1)
    for number, first in ((9, FIN | CONT), (12, CONT)):
        nothing = client_frame(first, b"continues nothing")
        yield failed(f"5.{number}", nothing + message(HELLO))
        yield Case(f"5.{number + 1}", (Step(nothing, (Received(FIN | CLOSE, close_payload(1002)),)),))
        yield failed(f"5.{number + 2}", nothing + message(HELLO), chop=1)
    yield failed("5.15", b"".join(parts) + client_frame(CONT, b"three") + message(b"four"), whole)
    for number, first in ((16, CONT), (17, FIN | CONT)):
        yield failed(f"5.{number}", (client_frame(first, b"nothing") + b"".join(parts)) * 2)
    yield failed("5.18", client_frame(TEXT, b"one") + client_frame(FIN | TEXT, b"two"))
    five = fragments(b"1", b"2", b"3", b"4", b"5")
    first, second = message(b"first", PING), message(b"second", PING)
    for number, chop in (("5.19", 0), ("5.20", 7)):
        yield Case(
            number,
            (
                Step(five[0] + five[1] + first, (pong(b"first"),)),
                Step(five[2] + five[3] + second + five[4], (pong(b"second"), echo(b"12345"))),
                Step(GOODBYE, (CLOSED,)),
            ),
            chop,
        )


def text() -> Iterator[Case]:
    yield clean("6.1.1", message(b""), echo(b""))
    yield clean("6.1.2", b"".join(fragments(b"", b"", b"")), echo(b""))
    yield clean("6.1.3", b"".join(fragments(b"", b"middle", b"")), echo(b"middle"))
    yield clean("6.2.1", message(UMLAUTS), echo(UMLAUTS))
    yield clean("6.2.2", b"".join(fragments(UMLAUTS[:12], UMLAUTS[12:])), echo(UMLAUTS))
    yield clean("6.2.3", fragmented(UMLAUTS, 1), echo(UMLAUTS))
    yield clean("6.2.4", fragmented(KOSME, 1), echo(KOSME))
    yield failed("6.3.1", message(BROKEN), code=1007)
    yield failed("6.3.2", fragmented(BROKEN, 1), code=1007)
    refused = (Received(FIN | CLOSE, close_payload(1007)),)
    ping = message(b"", PING)
    for number, start, end in ((1, 11, 15), (2, 12, 13)):
        # What follows is never sent: the server must not wait for it.
        head, wrong, _ = fragments(OUT_OF_RANGE[:start], OUT_OF_RANGE[start:end], OUT_OF_RANGE[end:])
        yield Case(f"6.4.{number}", (Step(head + ping, (pong(),)), Step(wrong, refused)))
        frame = message(OUT_OF_RANGE)
        yield Case(f"6.4.{number + 2}", (Step(frame[: 6 + start]), Step(frame[6 + start : 6 + end], refused)))
    yield from sequences()


def sequences() -> Iterator[Case]:
    """UTF-8, right and wrong (6.5 to 6.23, after Markus Kuhn's stress test)."""
    starts = ((0xC0, 0xDF), (0xE0, 0xEF), (0xF0, 0xF7), (0xF8, 0xFB), (0xFC, 0xFD))
    incomplete = [
        "c0",
        "e080",
        "f08080",
        "f8808080",
        "fc80808080",
        "df",
        "efbf",
        "f7bfbf",
        "fbbfbfbf",
        "fdbfbfbfbf",
    ]
    continued = ["80", "bf", "80bf", "80bf80", "80bf80bf", "80bf80bf80", "80bf80bf80bf"]
    planes = [
        f"{first:02x}{second}bf{third}"
        for first in range(0xF0, 0xF5)
        for second in ("8f", "9f", "af", "bf")
        for third in ("be", "bf")
        if (first, second) != (0xF0, "8f") and (first < 0xF4 or second == "8f")
    ]
    groups: list[list[str]] = [
        [b"hello$world".hex(), "hello¢world".encode().hex(), "hello€world".encode().hex(),
         "hello\U00024b62world".encode().hex(), KOSME.hex()],
        [KOSME[:size].hex() for size in range(1, len(KOSME) + 1)],
        ["00", "c280", "e0a080", "f0908080"],
        ["f888808080", "fc8480808080"],
        ["7f", "dfbf", "efbfbf", "f48fbfbf"],
        ["f7bfbfbf", "fbbfbfbfbf", "fdbfbfbfbfbf"],
        ["ed9fbf", "ee8080", "efbfbd", "f48fbfbf", "f4908080"],
        [*continued, bytes(range(0x80, 0xBF)).hex()],
        ["".join(f"{byte:02x}20" for byte in range(first, last)) for first, last in starts],
        incomplete,
        ["".join(incomplete)],
        ["fe", "ff", "fefeffff"],
        ["c0af", "e080af", "f08080af", "f8808080af", "fc80808080af"],
        ["c1bf", "e09fbf", "f08fbfbf", "f887bfbfbf", "fc83bfbfbfbf"],
        ["c080", "e08080", "f0808080", "f880808080", "fc8080808080"],
        ["eda080", "edadbf", "edae80", "edafbf", "edb080", "edbe80", "edbfbf"],
        [high + low for high in ("eda080", "edadbf", "edae80", "edafbf") for low in ("edb080", "edbfbf")],
        ["efbfbe", "efbfbf", *planes],
        ["efbfb9", "efbfba", "efbfbb", "efbfbc", "efbfbd", "efbfbe", "efbfbf"],
    ]  # fmt: skip
    for group, sequence in zip(count(5), groups, strict=False):
        for index, digits in enumerate(sequence, 1):
            payload, number = bytes.fromhex(digits), f"6.{group}.{index}"
            try:
                payload.decode()
            except UnicodeDecodeError:
                yield failed(number, message(payload), code=1007)
            else:
                yield clean(number, message(payload), echo(payload))


def closes() -> Iterator[Case]:
    normal = close_payload(1000)
    yield clean("7.1.1", message(HELLO), echo(HELLO))
    yield closing("7.1.2", GOODBYE + client_frame(FIN | CLOSE), normal)
    yield closing("7.1.3", GOODBYE + message(b"", PING), normal)
    yield closing("7.1.4", GOODBYE + message(HELLO), normal)
    one, two = fragments(b"one", b"two")
    yield closing("7.1.5", one + GOODBYE + two, normal)
    yield closing("7.3.1", client_frame(FIN | CLOSE), b"")
    yield failed("7.3.2", client_frame(FIN | CLOSE, b"a"))
    for index, payload in enumerate((normal, normal + b"Hello World!", normal + b"*" * 123), 3):
        yield closing(f"7.3.{index}", client_frame(FIN | CLOSE, payload), payload)
    yield failed("7.3.6", client_frame(FIN | CLOSE, normal + b"*" * 124))
    yield failed("7.5.1", client_frame(FIN | CLOSE, normal + BROKEN), code=1007)
    valid = (1000, 1001, 1002, 1003, 1007, 1008, 1009, 1010, 1011, 3000, 3999, 4000, 4999)
    for index, code in enumerate(valid, 1):
        yield closing(f"7.7.{index}", client_frame(FIN | CLOSE, close_payload(code)), close_payload(code))
    for index, code in enumerate((0, 999, 1004, 1005, 1006, 1016, 1100, 2000, 2999), 1):
        yield failed(f"7.9.{index}", client_frame(FIN | CLOSE, close_payload(code)))


CASES = [*framing(), *pings(), *reserved(), *fragmentation(), *text(), *closes(),
         clean("10.1.1", fragmented(b"*" * 65_536, 1300), echo(b"*" * 65_536))]  # fmt: skip


@pytest.fixture(scope="module")
def large(deployment: Deployment) -> ServiceProcess:
    """A gateway that takes messages as large as the suite's, deflated or not."""
    return deployment.extra_gateway(
        "large", max_message_bytes=4_194_304, frame_rate=0, compression="true", write_buffer_bytes=16_777_216
    )


async def send(socket: RawSocket, data: bytes, chop: int) -> None:
    for at in range(0, len(data), chop or len(data) or 1):
        socket.send(data[at : at + (chop or len(data))])
        await socket.writer.drain()
        await asyncio.sleep(0)
    await asyncio.sleep(0.005)  # a segment of its own


def bare(frame: Received) -> Received:
    """Return a close frame of the server's own without its reason, which is free."""
    own = frame.opcode == CLOSE and frame.payload[:2] in (close_payload(1002), close_payload(1007))
    return Received(frame.first, frame.payload[:2]) if own else frame


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.number)
async def test_a_case(gateway: ServiceProcess, case: Case) -> None:
    async with raw_socket(gateway.port) as socket:
        for step in case.steps:
            await send(socket, step.sends, case.chop)
            assert [bare(await socket.frame()) for _ in step.receives] == list(step.receives)
        await socket.ended()


def test_all_of_its_cases_are_here() -> None:
    assert len({case.number for case in CASES}) == len(CASES)
    sections = [case.number.partition(".")[0] for case in CASES]
    assert {each: sections.count(each) for each in sections} == {
        "1": 16, "2": 11, "3": 7, "4": 10, "5": 20, "6": 145, "7": 34, "10": 1
    }  # fmt: skip


# --- 9: sizes -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("opcode", [TEXT, BINARY])
@pytest.mark.parametrize("size", [65_536, 262_144, 1_048_576, 4_194_304])
async def test_large_messages(large: ServiceProcess, opcode: int, size: int) -> None:
    payload = (b"BAsd7&jh23" * (size // 10 + 1))[:size]
    async with raw_socket(large.port) as socket:
        socket.send(message(payload, opcode))
        assert await socket.frame() == echo(payload, opcode)


@pytest.mark.parametrize("opcode", [TEXT, BINARY])
@pytest.mark.parametrize("size", [64, 256, 4096, 65_536])
async def test_large_messages_in_pieces(large: ServiceProcess, opcode: int, size: int) -> None:
    payload = "µ".encode() * 131_072
    async with raw_socket(large.port) as socket:
        socket.send(fragmented(payload, size - 1, opcode))  # within characters
        assert await socket.frame() == echo(payload, opcode)
        await send(socket, message(payload, opcode), size)
        assert await socket.frame() == echo(payload, opcode)


@pytest.mark.parametrize("opcode", [TEXT, BINARY])
@pytest.mark.parametrize("size", [0, 16, 64, 256, 1024, 4096])
async def test_many_messages(gateway: ServiceProcess, opcode: int, size: int) -> None:
    async with raw_socket(gateway.port) as socket:
        for _ in range(50):
            socket.send(message(b"*" * size, opcode))
            assert await socket.frame() == echo(b"*" * size, opcode)


# --- 12 and 13: permessage-deflate ----------------------------------------------------------------------------------

OFFER = "Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits"
WORDS = b'{"text": "the same again, and something else", "number": 4711} '


def deflated(data: bytes) -> bytes:
    deflate = zlib.compressobj(wbits=-12)
    return (deflate.compress(data) + deflate.flush(zlib.Z_SYNC_FLUSH))[:-4]


def inflated(frame: Received) -> bytes:
    if not frame.first & RSV1:
        return frame.payload
    return zlib.decompressobj(wbits=-15).decompress(frame.payload + b"\x00\x00\xff\xff")


@pytest.mark.parametrize("size", [16, 64, 256, 1024, 4096, 8192, 16_384, 32_768, 65_536, 131_072])
@pytest.mark.parametrize("fragment", [0, 256])
async def test_deflated_messages(large: ServiceProcess, size: int, fragment: int) -> None:
    payload = (WORDS * (size // len(WORDS) + 1))[:size]
    data = deflated(payload)
    async with raw_socket(large.port, "/ws/echo", OFFER) as socket:
        for _ in range(5):
            if fragment and len(data) > fragment:
                first, *rest = fragments(*(data[at : at + fragment] for at in range(0, len(data), fragment)))
                socket.send(bytes((first[0] | RSV1,)) + first[1:] + b"".join(rest))
            else:
                socket.send(client_frame(FIN | RSV1 | TEXT, data))
            assert inflated(await socket.frame()) == payload


async def test_deflated_text_that_is_not_utf8_is_refused_before_its_end(large: ServiceProcess) -> None:
    deflate = zlib.compressobj(wbits=-12)
    half = deflate.compress(OUT_OF_RANGE) + deflate.flush(zlib.Z_SYNC_FLUSH)
    async with raw_socket(large.port, "/ws/echo", OFFER) as socket:
        socket.send(client_frame(RSV1 | TEXT, half))
        await socket.closed(1007)


@pytest.mark.parametrize(
    ("offers", "agreed"),
    [
        ("permessage-deflate", True),
        ("permessage-deflate; server_no_context_takeover", True),
        ("permessage-deflate; server_max_window_bits=9", False),  # frames are shared: they have one window
        ("permessage-deflate; server_max_window_bits=15", True),
        ("permessage-deflate; server_no_context_takeover; server_max_window_bits=9", False),
        ("permessage-deflate; server_no_context_takeover; server_max_window_bits=15", True),
        ("permessage-deflate; server_max_window_bits=9, permessage-deflate", True),
    ],
)
async def test_offers(large: ServiceProcess, offers: str, agreed: bool) -> None:
    payload = WORDS * 20
    async with raw_socket(large.port, "/ws/echo", f"Sec-WebSocket-Extensions: {offers}") as socket:
        assert (b"permessage-deflate" in socket.head) == agreed
        socket.send(
            client_frame(FIN | (RSV1 if agreed else 0) | TEXT, deflated(payload) if agreed else payload)
        )
        assert inflated(await socket.frame()) == payload
