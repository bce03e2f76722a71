"""JetStream's answers and errors, as far as a durable log needs them (NATS ADR-1, ADR-31)."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, TypeVar

import msgspec

from services.bus.errors import BusError, Misconfigured, NoAnswer, RequestRefused, StoreFull, Unavailable
from services.bus.message import BusMessage

# Statuses of answers to a direct get.
NOT_FOUND = 404
_END_OF_BATCH = 204
# err_code values of nats-server's errors.json. Faults with an HTTP-like code of 500 and more are temporary, those with 400
# are not; the exceptions are named here.
STREAM_NOT_FOUND = 10059
STREAM_NAME_IN_USE = 10058
# No peers yet; the stream is not (or no longer) made; an equal message id is on its way through the replicas.
_PASSING = frozenset({10005, STREAM_NOT_FOUND, 10158})
_CONFIG_REFUSED = 10052
NO_STORAGE = 10047
# No room on disk or in memory: for one more message, or for all that a new stream may hold.
_FULL = frozenset({10023, 10028, NO_STORAGE, 10077})
_NEVER_WORKS = frozenset({10039, 10074, 10076})  # not enabled (for the account); replicas without a cluster


class JetStreamError(msgspec.Struct):
    """`error` of any JetStream answer."""

    code: int = 0
    err_code: int = 0
    description: str = ""


class PubAck(msgspec.Struct):
    """What a stream answers to a publish."""

    seq: int = 0
    duplicate: bool = False
    error: JetStreamError | None = None


_NEVER = datetime(1, 1, 1, tzinfo=UTC)


class StreamState(msgspec.Struct, frozen=True):
    """State of a stream, reported at `at`; `at` and `first_ts` are by the leader's clock."""

    messages: int = 0
    bytes: int = 0
    first_seq: int = 0
    last_seq: int = 0
    first_ts: datetime = _NEVER
    at: datetime = _NEVER

    @property
    def first_held(self) -> int:
        """The first sequence that it still holds: one past the last where it holds none."""
        return self.first_seq or self.last_seq + 1

    @property
    def oldest_s(self) -> float:
        """How long ago its oldest message was stored, in seconds; 0.0 where it holds none."""
        return (self.at - self.first_ts).total_seconds() if self.messages else 0.0


class StreamInfo(msgspec.Struct):
    """Answer to STREAM.INFO, CREATE and UPDATE. `config` stays raw: an update keeps what we do not know."""

    config: dict[str, Any] = {}
    created: str = ""
    state: StreamState = StreamState()
    ts: datetime = _NEVER
    error: JetStreamError | None = None


class StoredRaw(msgspec.Struct):
    """`message` of STREAM.MSG.GET."""

    seq: int
    subject: str = ""


class MessageGot(msgspec.Struct):
    """Answer to STREAM.MSG.GET, which only the stream's leader gives."""

    message: StoredRaw | None = None
    error: JetStreamError | None = None


_decode_ack = msgspec.json.Decoder(PubAck).decode

AnswerT = TypeVar("AnswerT")


def decode_answer(data: bytes, type_: type[AnswerT]) -> AnswerT:
    """Read an answer of the API.

    Raises:
        Unavailable: it is none.
    """
    try:
        return msgspec.json.decode(data, type=type_)
    except msgspec.DecodeError as exc:
        raise Unavailable(f"not an answer of JetStream: {exc}") from exc


def error_of(error: JetStreamError) -> BusError:
    """Translate a JetStream error into ours."""
    text = f"JetStream: {error.description} ({error.err_code})"
    if error.err_code in _NEVER_WORKS:
        return Misconfigured(text)
    if error.err_code in _FULL:
        return StoreFull(text)
    if error.err_code in _PASSING or (error.code >= 500 and error.err_code != _CONFIG_REFUSED):
        return Unavailable(text)
    return RequestRefused(str(error.err_code), error.description)


def outcome_of_ack(data: bytes) -> PubAck | BusError:
    """Return the acknowledgement, or what went wrong."""
    try:
        ack = _decode_ack(data)
    except msgspec.DecodeError as exc:
        return Unavailable(f"not an acknowledgement: {exc}")
    if ack.error is not None:
        return error_of(ack.error)
    return ack


@dataclass(frozen=True, slots=True)
class StoredMessage:
    """One message of a stream."""

    seq: int
    subject: str
    data: bytes


def read_batch(subject: str, answers: Sequence[BusMessage]) -> tuple[list[StoredMessage], int]:
    """Return the messages of a batched direct get, and how many more are stored.

    Each reply names the sequence of the one before it (0 for the first), and the end names the last: a lost reply
    breaks the chain.
    """
    if not answers:
        raise NoAnswer(subject, "no reply to a direct get")
    *found, end = answers
    status = end.status
    if status == NOT_FOUND and not found:
        return [], 0
    if status == 0:
        raise Unavailable(f"batch of {subject} has no end")
    if status != _END_OF_BATCH:
        raise RequestRefused(str(status), end.description)
    previous = 0
    messages = []
    for answer in answers:
        if answer.last_seq != previous:
            raise Unavailable(f"batch of {subject} has a hole after {previous}")
        if answer is not end:
            previous = answer.seq
            messages.append(StoredMessage(previous, answer.header("Nats-Subject") or subject, answer.data))
    return messages, int(end.header("Nats-Num-Pending") or 0)
