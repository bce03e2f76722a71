"""The load of the benchmark: counts of messages in any pieces."""

import zlib

import pytest

from bench.cases.open_loop import Arrivals
from bench.cases.stalled import closing_code
from bench.load.contents import MARK, content, documents
from bench.load.dialects import Place, Rooms, SocketIo, places
from bench.load.frames import FrameCounter, inflated
from gateway.ws.frames import frame, message_frame

_MESSAGES = [
    frame(0x81, b"x" * 100),  # the least that counts
    frame(0x81, b"x" * 99),  # an answer
    frame(0x89, b""),  # a ping
    frame(0x82, b"y" * 300),
    frame(0x81, b"z" * 70_000),
]


@pytest.mark.parametrize("step", [1, 2, 3, 7, 250, 100_000])
def test_frames_are_counted_wherever_reads_cut_them(step: int) -> None:
    stream = b"".join(_MESSAGES) * 2
    counter = FrameCounter()
    found = sum(counter.count(5, memoryview(stream[at : at + step])) for at in range(0, len(stream), step))
    assert found == 2 * 3


def test_frames_of_different_connections_do_not_mix() -> None:
    counter = FrameCounter()
    half = _MESSAGES[0][:50]
    assert counter.count(5, memoryview(half)) == 1
    assert counter.count(6, memoryview(half)) == 1
    assert counter.count(5, memoryview(_MESSAGES[0][50:])) == 0


def test_what_arrives_while_connecting_is_inflated() -> None:
    text = b'{"type":"welcome","more":"' + b"abc " * 300 + b'"}'
    compressed = message_frame(text, binary=False, deflate=True)
    assert compressed[0] == 0xC1
    head = b"HTTP/1.1 101 Switching Protocols\r\n\r\n"
    assert inflated(head + compressed + frame(0x81, b"plain")) == head + text + b"plain"
    assert inflated(head[:-2]) == head[:-2]
    assert inflated(compressed[:-1]) == b""


def test_contents_have_one_mark_and_compress_as_documents_do() -> None:
    assert content().encode().count(MARK) == 1
    texts = documents(3)
    assert len(set(texts)) == 3
    for text in texts:
        assert text.encode().count(MARK) == 1
        assert 0.2 < len(zlib.compress(text.encode(), 1)) / len(text) < 0.6


def test_a_message_of_each_dialect_carries_the_mark_once() -> None:
    for dialect in (Rooms(), SocketIo()):
        assert dialect.publish("bench", content()).count(MARK) == 1


def test_positions_are_read_from_received_bytes() -> None:
    welcome = b'{"type":"welcome","session":"s.1","inbox":{"epoch":"other","seq":7}}'
    durable = b'{"type":"joined_room","room":"r","epoch":"e1","seq":42}'
    ephemeral = b'{"type":"joined_room","room":"live:r"}'
    assert places([welcome + durable, welcome + ephemeral]) == [Place("s.1", "e1", 42), Place("s.1")]
    assert b'"since":{"epoch":"e1","seq":42}' in Rooms().join("r", Place("s.1", "e1", 42))
    assert b"since" not in Rooms().join("r", Place("s.1"))


def _numbered(number: int) -> bytes:
    return b"{" + MARK + f"{number:08d}".encode() + b"}"


@pytest.mark.parametrize("cut", range(1, 12))
def test_each_message_has_its_latency_wherever_reads_cut_it(cut: int) -> None:
    arrivals = Arrivals(publisher=9)
    stream = _numbered(0) + _numbered(1)
    for part in (stream[:cut], stream[cut:]):
        arrivals.on_data(5, memoryview(part), part.count(MARK))
    arrivals.on_data(9, memoryview(stream), 2)  # an echo
    assert arrivals.delivered == 2
    histogram = arrivals.latencies(base=arrivals.last - 2.0, rate=1.0)
    # Due after 0 s and 1 s, received after 2 s.
    assert histogram.get_total_count() == 2
    assert histogram.get_value_at_percentile(100) == pytest.approx(2e6, rel=0.01)
    assert histogram.get_value_at_percentile(50) == pytest.approx(1e6, rel=0.01)


@pytest.mark.parametrize(
    ("received", "code"),
    [
        (b"", 0),
        (b"\x88\x02\x0f\xa0", 4000),
        (b"noise\x88\x0d\x0f\xa0slow client", 4000),
        (b"\x88\x02\x03\xe8 and more", 0),
        (frame(0x81, b"\x88" * 50), 0),
    ],
)
def test_the_close_code_is_that_of_the_last_frame(received: bytes, code: int) -> None:
    assert closing_code(received) == code
