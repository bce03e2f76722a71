"""Header blocks and subjects, as bytes and back."""

import pytest

from services.bus.ack_publisher import encode_message_id
from services.bus.message import BusMessage, check_publishable, check_subscribable, encode_headers


def test_encoded_headers_are_the_protocols() -> None:
    assert encode_headers({"A": "1", "Name": "é"}) == "NATS/1.0\r\nA: 1\r\nName: é\r\n\r\n".encode()


@pytest.mark.parametrize("name", ["", "A B", "A:", "A\r\nB", "é"])
def test_header_names_are_tokens(name: str) -> None:
    with pytest.raises(ValueError, match="header"):
        encode_headers({name: "x"})


@pytest.mark.parametrize("value", ["a\r\nNats-Rollup: all", "a\n", "\r", "\x00"])
def test_header_values_have_no_control_characters(value: str) -> None:
    with pytest.raises(ValueError, match="header"):
        encode_headers({"A": value})


@pytest.mark.parametrize(
    "subject", ["a", "a.b", "$JS.API.INFO", "t.in.room.default.=C3=A9", "é.x", "_INBOX.a.1"]
)
def test_plain_subjects_pass(subject: str) -> None:
    check_publishable(subject)
    check_subscribable(subject)


@pytest.mark.parametrize(
    "subject", ["", ".", "a.", ".a", "a..b", "a b", "a\tb", "a\r\nPUB x 0\r\n", "a\n", "a\x00", "\x7f"]
)
def test_malformed_subjects_are_refused(subject: str) -> None:
    with pytest.raises(ValueError, match="subject"):
        check_publishable(subject)
    with pytest.raises(ValueError, match="subject"):
        check_subscribable(subject)


@pytest.mark.parametrize("subject", ["*", "a.*", "a.*.b", ">", "a.>"])
def test_wildcards_are_for_subscribing(subject: str) -> None:
    check_subscribable(subject)
    with pytest.raises(ValueError, match="subject"):
        check_publishable(subject)


@pytest.mark.parametrize("subject", ["a.>.b", "a*", "a.b>", ">.a"])
def test_misplaced_wildcards_are_refused(subject: str) -> None:
    with pytest.raises(ValueError, match="subject"):
        check_subscribable(subject)


def test_message_reads_headers_on_demand() -> None:
    raw = b"NATS/1.0\r\nNats-Last-Sequence: 7\r\nX: a: b \r\nNats-Sequence: 12\r\nEmpty:\r\n\r\n"
    message = BusMessage("s", "", b"", raw)
    assert (message.seq, message.last_seq, message.status) == (12, 7, 0)
    assert message.header("X") == "a: b"
    assert message.header("Empty") == ""
    assert message.header("Nats") is None
    assert message.header("Sequence") is None


def test_message_without_headers() -> None:
    message = BusMessage("s", "", b"", b"")
    assert (message.seq, message.last_seq, message.status) == (0, 0, 0)
    assert message.header("X") is None


@pytest.mark.parametrize(
    ("raw", "status", "description"),
    [
        (b"NATS/1.0 503\r\n\r\n", 503, ""),
        (b"NATS/1.0 404 Message Not Found\r\n\r\n", 404, "Message Not Found"),
        (b"NATS/1.0 204 EOB\r\nNats-Num-Pending: 3\r\nNats-Last-Sequence: 9\r\n\r\n", 204, "EOB"),
    ],
)
def test_inline_status(raw: bytes, status: int, description: str) -> None:
    message = BusMessage("s", "", b"", raw)
    assert (message.status, message.description) == (status, description)


def test_numbers_that_are_none_count_as_absent() -> None:
    assert BusMessage("s", "", b"", b"NATS/1.0\r\nNats-Sequence: -1\r\n\r\n").seq == 0


def test_message_ids_are_escaped_injectively() -> None:
    ids = ["a", "a b", "a%20b", "a%2520b", "é", "%C3%A9", "a\r\nb", " a", "a ", ""]
    encoded = [encode_message_id(message_id) for message_id in ids]
    assert len(set(encoded)) == len(ids)
    encode_headers({"Nats-Msg-Id": "".join(encoded)})
    assert encode_message_id("user-1/room:2#3") == "user-1/room:2#3"
