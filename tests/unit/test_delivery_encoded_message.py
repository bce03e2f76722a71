"""Frames: built once, right at every length, compressed where agreed."""

import zlib

import msgspec
import pytest
from websockets.frames import Frame, Opcode

from gateway.delivery.encoded_message import EncodedMessage, Encoding, sse_event
from gateway.ws.frames import MAX_COMPRESSED_BYTES, MIN_COMPRESSED_BYTES, frame, message_frame
from services.wire import server
from tests.support.delivery import payloads_in, said


@pytest.mark.parametrize("size", [0, 1, 125, 126, 127, 65_535, 65_536, 70_000])
def test_frames_are_those_of_a_kept_library(size: int) -> None:
    payload = b"x" * size
    assert frame(0x81, payload) == Frame(Opcode.TEXT, payload).serialize(mask=False)
    assert frame(0x82, payload) == Frame(Opcode.BINARY, payload).serialize(mask=False)
    assert message_frame(payload, binary=True, deflate=False) == frame(0x82, payload)


def test_small_messages_are_not_compressed_and_large_ones_are() -> None:
    small, large = b"x" * (MIN_COMPRESSED_BYTES - 1), b"x" * MIN_COMPRESSED_BYTES
    assert message_frame(small, binary=False, deflate=True) == frame(0x81, small)
    compressed = message_frame(large, binary=False, deflate=True)
    assert compressed[0] == 0x81 | 0x40
    payload = compressed[2:]
    assert compressed[1] == len(payload) < 126
    assert zlib.decompressobj(wbits=-15).decompress(payload + b"\x00\x00\xff\xff") == large
    too_large = b"x" * (MAX_COMPRESSED_BYTES + 1)
    assert message_frame(too_large, binary=False, deflate=True) == frame(0x81, too_large)


def test_both_encodings_have_the_same_content() -> None:
    content = {"text": "grüße", "deep": [[1, 2.5, None, True]], "big": 2**64 - 1}
    message = said(msgspec.Raw(msgspec.json.encode(content)), 7)
    text, binary = message.encode(Encoding.JSON), message.encode(Encoding.MSGPACK)
    assert (text[0], binary[0]) == (0x81, 0x82)
    said_as = [payloads_in(text), payloads_in(binary)]
    assert msgspec.json.decode(said_as[0][0]) == msgspec.msgpack.decode(said_as[1][0])


@pytest.mark.parametrize("encoding", list(Encoding))
def test_bytes_are_built_once(encoding: Encoding) -> None:
    message = said("x" * 1000)
    assert message.encode(encoding) is message.encode(encoding)


def test_server_sent_events() -> None:
    assert EncodedMessage(server.HeartbeatAck()).encode(Encoding.SSE) == (
        b'event: heartbeat_ack\ndata: {"type":"heartbeat_ack"}\n\n'
    )
    assert sse_event("x", b"{}", "an-id") == b"id: an-id\nevent: x\ndata: {}\n\n"
