"""The parts of the bus that need no server: addresses, backoff, probe, tables of requests, batches."""

import pytest

from services.bus.connect import check_version
from services.bus.errors import BusError, Misconfigured, NoAnswer, RequestRefused, StoreFull, Unavailable
from services.bus.jsapi import JetStreamError, PubAck, error_of, outcome_of_ack, read_batch
from services.bus.message import BusMessage
from services.bus.reply_inbox import PendingRequest, ReplyInbox
from services.bus.specs import StreamSpec
from services.bus.stats import Probe
from services.servers import parse_nats_url

# --- addresses ---


def test_credentials_are_taken_out_and_decoded() -> None:
    address = parse_nats_url("nats://user:p%40ss%2F@one:4222, nats://two, [::1]:4333")
    assert address.servers == ["nats://one:4222", "nats://two:4222", "nats://[::1]:4333"]
    assert (address.user, address.password, address.token) == ("user", "p@ss/", None)
    assert "p@ss" not in repr(address)
    assert "p@ss" not in address.shown


def test_lone_user_is_a_token() -> None:
    address = parse_nats_url("tls://secret@one")
    assert (address.servers, address.token, address.user) == (["tls://one:4222"], "secret", None)


@pytest.mark.parametrize("urls", ["", " , ", "nats://", "nats://host:port", "nats://:4222"])
def test_bad_addresses_are_refused(urls: str) -> None:
    with pytest.raises(ValueError, match=r"^is "):
        parse_nats_url(urls)


@pytest.mark.parametrize("version", ["2.11.0", "2.15.1", "v2.11.0-dev", "3.0.0"])
def test_recent_servers_pass(version: str) -> None:
    check_version(version)


@pytest.mark.parametrize("version", ["2.10.29", "1.99.0", "", "unknown"])
def test_old_servers_are_misconfigured(version: str) -> None:
    with pytest.raises(Misconfigured, match=r"2\.11"):
        check_version(version)


# --- probe ---


def test_probe_is_stale_after_its_time_and_fresh_with_the_first_echo() -> None:
    probe = Probe(stale_s=5, now=100)
    assert probe.healthy(104.9)
    assert not probe.healthy(105)
    probe.on_echo(106)
    assert probe.healthy(106)


# --- tables of questions ---


class Asked:
    def __init__(self, subject: str) -> None:
        self.subject = subject
        self.answers: list[bytes] = []
        self.errors: list[BusError] = []

    def on_answer(self, message: BusMessage) -> None:
        self.answers.append(message.data)

    def on_failed(self, error: BusError) -> None:
        self.errors.append(error)


def _answer(reply: str, data: bytes = b"x", headers: bytes = b"") -> BusMessage:
    return BusMessage(reply, "", data, headers)


def test_answers_find_their_question() -> None:
    inbox: ReplyInbox[Asked] = ReplyInbox()
    first, second = Asked("a"), Asked("b")
    first_reply, second_reply = inbox.open(first), inbox.open(second)
    assert first_reply.startswith(inbox.subject[:-1])
    inbox.on_message(_answer(second_reply, b"2"))
    inbox.on_message(_answer(first_reply, b"1"))
    inbox.on_message(_answer(inbox.subject[:-1] + "nobody"))
    assert (first.answers, second.answers) == ([b"1"], [b"2"])
    assert inbox.close(first_reply) is first
    assert inbox.close(first_reply) is None
    inbox.on_message(_answer(first_reply, b"late"))
    assert first.answers == [b"1"]
    assert len(inbox) == 1


def test_one_answer_closes_the_question() -> None:
    inbox: ReplyInbox[Asked] = ReplyInbox(one_answer=True)
    asked = Asked("a")
    reply = inbox.open(asked)
    inbox.on_message(_answer(reply, b"1"))
    inbox.on_message(_answer(reply, b"2"))
    inbox.fail_all(Unavailable(""))
    assert (asked.answers, asked.errors) == ([b"1"], [])


def test_failing_all_and_failing_one_subject() -> None:
    inbox: ReplyInbox[Asked] = ReplyInbox()
    upper, other = Asked("Upper.Case"), Asked("other")
    inbox.open(upper)
    inbox.open(other)
    oldest = inbox.oldest()
    assert oldest is not None
    assert oldest[1] is upper
    refused = Misconfigured("no")
    inbox.fail_subject("upper.case", refused)
    assert (upper.errors, other.errors) == ([refused], [])
    gone = Unavailable("gone")
    inbox.fail_all(gone)
    inbox.fail_all(gone)
    assert (upper.errors, other.errors) == ([refused], [gone])
    assert inbox.oldest() is None


async def test_request_fails_with_what_ended_it() -> None:
    request = PendingRequest("s")
    request.on_answer(_answer("r"))
    request.on_failed(Unavailable("gone"))
    with pytest.raises(Unavailable, match="gone"):
        await request.answers(30)


async def test_request_with_enough_answers_cannot_fail() -> None:
    request = PendingRequest("s", lambda message: message.data == b"last")
    for data in (b"first", b"last", b"late"):
        request.on_answer(_answer("r", data))
    request.on_failed(Unavailable("gone"))
    assert [answer.data for answer in await request.answers(30)] == [b"first", b"last"]


async def test_request_without_responders() -> None:
    request = PendingRequest("s")
    request.on_answer(_answer("r", b"", b"NATS/1.0 503\r\n\r\n"))
    with pytest.raises(NoAnswer):
        await request.answers(30)


# --- JetStream's answers ---


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (JetStreamError(503, 10077, "maximum bytes exceeded"), StoreFull),
        (JetStreamError(503, 10008, "temporarily unavailable"), Unavailable),
        (JetStreamError(503, 10023, "insufficient resources"), StoreFull),
        (JetStreamError(500, 10047, "insufficient storage"), StoreFull),
        (JetStreamError(500, 10118, "stream is offline"), Unavailable),
        (JetStreamError(400, 10005, "no suitable peers"), Unavailable),
        (JetStreamError(409, 10158, "duplicate message id is in process"), Unavailable),
        (JetStreamError(400, 10054, "message size exceeds maximum allowed"), RequestRefused),
        (JetStreamError(404, 10059, "stream not found"), Unavailable),
        (JetStreamError(500, 10052, "can not change storage type"), RequestRefused),
        (JetStreamError(503, 10039, "not enabled for account"), Misconfigured),
        (JetStreamError(500, 10074, "replicas > 1 not supported"), Misconfigured),
    ],
)
def test_jetstream_errors_are_retryable_or_not(error: JetStreamError, kind: type[BusError]) -> None:
    assert type(error_of(error)) is kind


def test_acknowledgements() -> None:
    assert outcome_of_ack(b'{"stream":"S","seq":3,"duplicate": true}') == PubAck(seq=3, duplicate=True)
    refused = outcome_of_ack(b'{"error":{"code":400,"err_code":10054,"description":"too big"},"stream":"S"}')
    assert isinstance(refused, RequestRefused)
    assert (refused.code, refused.message) == ("10054", "too big")
    assert isinstance(outcome_of_ack(b"+OK"), Unavailable)


def test_duplicate_window_is_no_longer_than_the_age() -> None:
    spec = StreamSpec("n", "in.*", 1, max_age_s=10, duplicate_window_s=60, replicas=1)
    assert spec.config()["duplicate_window"] == spec.config()["max_age"] == 10 * 10**9


# --- batches ---


def _part(seq: int, before: int) -> BusMessage:
    headers = f"NATS/1.0\r\nNats-Subject: a\r\nNats-Sequence: {seq}\r\nNats-Last-Sequence: {before}\r\n\r\n"
    return BusMessage("r", "", b"%d" % seq, headers.encode())


def _end(before: int, pending: int = 0) -> BusMessage:
    headers = f"NATS/1.0 204 EOB\r\nNats-Num-Pending: {pending}\r\nNats-Last-Sequence: {before}\r\n\r\n"
    return BusMessage("r", "", b"", headers.encode())


def test_complete_batch() -> None:
    messages, pending = read_batch("a", [_part(3, 0), _part(7, 3), _end(7, pending=2)])
    assert [(m.seq, m.subject, m.data) for m in messages] == [(3, "a", b"3"), (7, "a", b"7")]
    assert pending == 2


def test_nothing_found() -> None:
    assert read_batch("a", [BusMessage("r", "", b"", b"NATS/1.0 404 Message Not Found\r\n\r\n")]) == (
        [],
        0,
    )


@pytest.mark.parametrize(
    "answers",
    [
        [_part(7, 3), _end(7)],  # the first is lost
        [_part(3, 0), _part(9, 7), _end(9)],  # one in the middle
        [_part(3, 0), _end(7)],  # the last
        [_part(3, 0), _part(7, 3)],  # the end
        [_part(7, 3), _part(3, 0), _end(7)],  # out of order
        [],
    ],
)
def test_batch_with_a_hole_is_unavailable(answers: list[BusMessage]) -> None:
    with pytest.raises(Unavailable):
        read_batch("a", answers)


def test_batch_that_the_server_does_not_understand() -> None:
    with pytest.raises(RequestRefused) as refused:
        read_batch("a", [BusMessage("r", "", b"", b"NATS/1.0 408 Bad Request\r\n\r\n")])
    assert (refused.value.code, refused.value.message) == ("408", "Bad Request")
