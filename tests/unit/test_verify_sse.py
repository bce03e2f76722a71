"""Parsing of an event stream: in one piece, byte by byte, and with trailing data."""

import pytest

from tidings_cli.verify.stream_member import SseEvent, SseParser

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


def test_an_incomplete_event_is_not_yielded() -> None:
    assert list(SseParser().feed(b"data: begun\n")) == []
