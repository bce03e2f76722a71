"""Any bytes after the upgrade: the protocol never raises, and how they are cut up changes nothing."""

import asyncio
import base64
import codecs
import os
import struct
from types import SimpleNamespace
from typing import Any

from hypothesis import example, given, settings
from hypothesis import strategies as st

from gateway.limits import Limit
from gateway.ws.handshake import PendingUpgrade, UpgradeHandler
from gateway.ws.protocol import ServerContext, WebSocketProtocol, discard
from gateway.ws.sniff import SnifferFactory
from services.settings import Settings
from services.wire.codes import CloseCode
from tests.support.properties import examples

UPGRADE = (
    b"GET /ws HTTP/1.1\r\nhost: x\r\nupgrade: websocket\r\nconnection: upgrade\r\nsec-websocket-version: 13\r\n"
    b"sec-websocket-key: " + base64.b64encode(os.urandom(16)) + b"\r\n"
)
_DEFLATE = b"sec-websocket-extensions: permessage-deflate; client_max_window_bits\r\n"


class Transport(asyncio.Transport):
    """Takes what is written; a write after the end is an error, as with a real one."""

    def __init__(self) -> None:
        super().__init__()
        self.written = bytearray()
        self.ended = False
        self.reading = True
        self.protocol: asyncio.BaseProtocol | None = None

    def set_protocol(self, protocol: asyncio.BaseProtocol) -> None:
        self.protocol = protocol

    def get_protocol(self) -> asyncio.BaseProtocol:
        assert self.protocol is not None
        return self.protocol

    def write(self, data: bytes | bytearray | memoryview) -> None:
        assert not self.ended, "written after the end"
        self.written += data

    def close(self) -> None:
        self.ended = True

    def abort(self) -> None:
        self.ended = True

    def is_closing(self) -> bool:
        return self.ended

    def is_reading(self) -> bool:
        return self.reading and not self.ended

    def pause_reading(self) -> None:
        self.reading = False

    def resume_reading(self) -> None:
        self.reading = True

    def can_write_eof(self) -> bool:
        return True

    def write_eof(self) -> None:
        pass

    def get_write_buffer_size(self) -> int:
        return 0

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        return {"peername": ("127.0.0.1", 1), "sockname": ("127.0.0.1", 2)}.get(name, default)


class Recorder:
    """A handler that keeps what it is given."""

    def __init__(self) -> None:
        self.write = discard
        self.messages: list[tuple[bytes, bool]] = []
        self.closed: list[int] = []

    def on_message(self, data: bytes, binary: bool) -> None:
        assert not self.closed
        self.messages.append((data, binary))

    def on_slow(self) -> None:
        raise AssertionError("nothing is written here")

    def disconnect_frame(self, code: CloseCode) -> bytes:
        return b""

    def on_close(self, code: int, *, by_client: bool) -> None:
        self.closed.append(code)


def connect(
    handler: type[UpgradeHandler], settings: Settings, limits: list[Limit], request: bytes
) -> Transport:
    """Send the head of a request on a new connection."""
    gateway: Any = SimpleNamespace(settings=settings)
    upgrades = handler(gateway, ServerContext(settings, limits.append))
    sniffer, transport = SnifferFactory(upgrades, asyncio.Protocol)(), Transport()
    sniffer.connection_made(transport)
    sniffer.data_received(request)
    return transport


async def upgraded(
    limits: list[Limit], *, deflate: bool = False, frame_rate: float = 0, max_message_bytes: int = 1024
) -> tuple[Transport, WebSocketProtocol, Recorder]:
    """Let a connection in."""
    handlers: list[Recorder] = []
    accepted = asyncio.Event()

    class Open(UpgradeHandler):
        async def handle(self, upgrade: PendingUpgrade) -> None:
            handlers.append(Recorder())
            upgrade.accept(handlers[0])
            accepted.set()

    chosen = Settings(max_message_bytes=max_message_bytes, compression=deflate, frame_rate=frame_rate)
    transport = connect(Open, chosen, limits, UPGRADE + (_DEFLATE if deflate else b"") + b"\r\n")
    await accepted.wait()
    protocol = transport.get_protocol()
    assert isinstance(protocol, WebSocketProtocol)
    return transport, protocol, handlers[0]


async def outcome_of(
    chunks: list[bytes], *, deflate: bool, frame_rate: float = 0, pinging: bool = False
) -> tuple[list[tuple[bytes, bool]], list[int], list[Limit]]:
    """Upgrade, feed the chunks, lose the connection; return what came of it."""
    limits: list[Limit] = []
    transport, protocol, handler = await upgraded(limits, deflate=deflate, frame_rate=frame_rate)
    for chunk in chunks:
        if transport.is_reading():
            protocol.data_received(chunk)
        if pinging:
            protocol.ping()  # drops state that is not needed between frames
    if not transport.ended:
        protocol.eof_received()
    protocol.connection_lost(None)
    return handler.messages, handler.closed, limits


@st.composite
def frames(draw: st.DrawFn) -> bytes:
    """Draw a frame, mostly right, with everything that can be wrong about one."""
    first = draw(
        st.sampled_from(
            [0x81, 0x82, 0x01, 0x02, 0x80, 0x00, 0x88, 0x89, 0x8A, 0xC1, 0xC2, 0x91, 0xA1, 0x83, 0x09, 0xFF]
        )
    )
    payload = draw(
        st.one_of(
            st.binary(max_size=40),
            st.text(max_size=20).map(str.encode),
            st.integers(0, 65_535).map(lambda code: struct.pack("!H", code)),
            st.integers(900, 1300).map(lambda size: b"x" * size),
        )
    )
    masked = draw(st.integers(0, 19)) > 0
    declared = draw(st.one_of(st.just(len(payload)), st.just(len(payload)), st.integers(0, 2**63)))
    mask_bit = 0x80 if masked else 0
    if declared < 126:
        head = bytes((first, mask_bit | declared))
    elif declared < 65_536:
        head = bytes((first, mask_bit | 126)) + struct.pack("!H", declared)
    else:
        head = bytes((first, mask_bit | 127)) + struct.pack("!Q", declared)
    if not masked:
        return head + payload
    mask = draw(st.binary(min_size=4, max_size=4))
    return head + mask + bytes(byte ^ mask[index % 4] for index, byte in enumerate(payload))


STREAMS = st.one_of(st.lists(frames(), max_size=8).map(b"".join), st.binary(max_size=200))
FUZZ = settings(max_examples=examples(300))


@FUZZ
@example(stream=b"\x81\x81\0\0\0\0\x80" + b"\x81\x80\0\0\0\0" + b"\0\0", deflate=False, cut=1)
@given(stream=STREAMS, deflate=st.booleans(), cut=st.integers(1, 64))
def test_any_bytes_in_any_pieces(stream: bytes, deflate: bool, cut: int) -> None:
    whole = asyncio.run(outcome_of([stream], deflate=deflate))
    pieces = [stream[at : at + cut] for at in range(0, len(stream), cut)]
    cut_up = asyncio.run(outcome_of(pieces, deflate=deflate, pinging=True))
    assert whole[0] == cut_up[0]
    assert whole[1] == cut_up[1]
    assert len(whole[1]) == 1
    for data, binary in whole[0]:
        assert len(data) <= 1024
        if not binary:
            data.decode()


async def refused_at(
    payload: bytes, pieces: list[int], cuts: list[int]
) -> tuple[tuple[int, int] | None, list[tuple[bytes, bool]]]:
    """Send a text message in fragments of these sizes, cut into segments of those.

    Return what was delivered, and how much of the payload had come before the segment that refused it, and with it.
    """
    sizes, at = [*pieces, len(payload)], 0
    stream, owner = bytearray(), []  # and of each byte, how many of the payload have come with it
    for number, size in enumerate(sizes):
        part = payload[at : at + size]
        first = (0x80 if number == len(sizes) - 1 else 0) | (0 if number else 1)
        mask = bytes((number, 0x5A, 0xA5, 0xFF))
        head = bytes((first, 0x80 | len(part))) + mask
        stream += head + bytes(byte ^ mask[index % 4] for index, byte in enumerate(part))
        owner += [at] * len(head) + list(range(at + 1, at + len(part) + 1))
        at += len(part)
    _, protocol, handler = await upgraded([])
    begin = 0
    refused = None
    for size in [*cuts, len(stream)]:
        end = min(begin + size, len(stream))
        protocol.data_received(bytes(stream[begin:end]))
        if protocol.closing:
            refused = (owner[begin - 1] if begin else 0, owner[end - 1])
            break
        begin = end
    protocol.connection_lost(None)
    return refused, handler.messages


@FUZZ
@given(
    payload=st.one_of(
        st.text(max_size=30).map(str.encode),
        st.lists(st.one_of(st.text(max_size=5).map(str.encode), st.binary(max_size=3)), max_size=6).map(
            b"".join
        ),
    ),
    pieces=st.lists(st.integers(0, 9), max_size=4),
    cuts=st.lists(st.integers(1, 9), max_size=30),
)
def test_text_is_refused_with_its_first_wrong_byte(
    payload: bytes, pieces: list[int], cuts: list[int]
) -> None:
    refused, messages = asyncio.run(refused_at(payload, pieces, cuts))
    try:
        payload.decode()
    except UnicodeDecodeError:
        assert messages == []
        assert refused is not None
    else:
        assert (refused, messages) == (None, [(payload, False)])
        return
    decoder = codecs.getincrementaldecoder("utf-8")()
    for count in range(1, len(payload) + 1):
        try:
            decoder.decode(payload[count - 1 : count])
        except UnicodeDecodeError:
            before, with_it = refused
            assert before < count <= with_it
            return
    assert refused[1] == len(payload)  # it only lacks its end


@FUZZ
@given(stream=st.lists(frames(), min_size=1, max_size=8).map(b"".join), times=st.integers(10, 300))
def test_a_rate_of_frames_is_never_exceeded(stream: bytes, times: int) -> None:
    _, closed, limits = asyncio.run(outcome_of([stream * times], deflate=False, frame_rate=5))
    assert len(closed) == 1
    assert limits.count(Limit.FRAME_RATE) <= 1


async def test_a_large_burst_lets_other_connections_go_first() -> None:
    """uvloop reads 2 MB from one socket before it looks at the next, unless reading is paused."""
    transport, protocol, handler = await upgraded([], max_message_bytes=65_536)
    message = b"\x82\xfe" + struct.pack(">H", 60_000) + bytes(4 + 60_000)
    protocol.data_received(message)
    assert transport.is_reading()
    protocol.data_received(message + message)
    assert len(handler.messages) == 3
    assert not transport.is_reading()
    await asyncio.sleep(0)
    assert transport.is_reading()
    protocol.data_received(
        message + b"\x88\x80" + bytes(4) + message
    )  # closed in between: nothing is read on
    await asyncio.sleep(0)
    assert len(handler.messages) == 4
    assert not transport.is_reading()
