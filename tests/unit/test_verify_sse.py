"""Reading an event stream: in one piece, byte by byte, and with what follows."""

import pytest

from tidings_cli.verify.sse import BadChunk, ChunkedBody, SseEvent, SseParser

STREAM = (
    b'event: connected\ndata: {"status":"connected"}\n\n'
    b": a comment\n\n"
    b"retry: 1500\n\n"
    b"id: abc\r\nevent: room_message\r\ndata: one\r\ndata: two\r\n\r\n"
    b"data: \xc3\xa9\n\n"
)
EVENTS = [
    SseEvent("connected", '{"status":"connected"}'),
    SseEvent("room_message", "one\ntwo", "abc"),
    SseEvent("message", "é"),
]


@pytest.mark.parametrize("size", [1, 2, 7, len(STREAM)])
def test_events_are_the_same_in_any_pieces(size: int) -> None:
    parser = SseParser()
    pieces = [STREAM[start : start + size] for start in range(0, len(STREAM), size)]
    assert [event for piece in pieces for event in parser.feed(piece)] == EVENTS
    assert parser.retry_ms == 1500


def test_an_event_that_is_not_whole_is_not_yielded() -> None:
    assert list(SseParser().feed(b"data: begun\n")) == []


@pytest.mark.parametrize("size", [1, 3, 100])
def test_a_chunked_body_is_the_same_in_any_pieces(size: int) -> None:
    coded = b"5\r\nhello\r\nA;note=1\r\n, stranger\r\n0\r\n\r\n"
    body = ChunkedBody()
    assert b"".join(body.feed(coded[i : i + size]) for i in range(0, len(coded), size)) == b"hello, stranger"
    assert body.ended


def test_a_body_that_was_cut_has_not_ended() -> None:
    body = ChunkedBody()
    assert body.feed(b"5\r\nhello\r\n") == b"hello"
    assert not body.ended


def test_a_chunk_without_a_size_is_refused() -> None:
    with pytest.raises(BadChunk):
        ChunkedBody().feed(b"hello\r\n")
