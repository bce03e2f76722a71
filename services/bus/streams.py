"""Durable logs on JetStream: streams that capture a subject and republish what they stored (ADR 0002).

No consumers: whoever reads asks for a batch by direct get (NATS ADR-31).
"""

import asyncio
import hashlib
import secrets
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import msgspec
import structlog

from services.bus.client import Bus
from services.bus.errors import BusError, Misconfigured, NoAnswer, Refused, Unavailable
from services.bus.jsapi import (
    STREAM_NAME_IN_USE,
    STREAM_NOT_FOUND,
    StreamInfo,
    StreamState,
    decode_got,
    decode_info,
    error_of,
)
from services.bus.message import BusMessage
from services.bus.publishing import Publisher, Stored

__all__ = ["Batch", "DurableLog", "Stored", "StoredMessage", "StreamSpec"]

_log = structlog.get_logger(__name__)
EPOCH_KEY = "tidings-epoch"
_NS = 1_000_000_000
_OPEN_S = 15.0
_RETRY_S = 0.25
_ASK_S = 2.0
_READ_S = 3.0
_CATCH_UP_S = 0.05
_NOT_FOUND = 404
_END_OF_BATCH = 204


@dataclass(frozen=True, slots=True)
class StreamSpec:
    """What a stream must be. `captured` and `republished` are subjects with wildcards, see wire.subjects."""

    name: str
    captured: str
    republished: str
    max_per_subject: int
    max_age_s: int
    duplicate_window_s: int
    replicas: int

    def config(self) -> dict[str, Any]:
        """Return it as JetStream says it. The server refuses a duplicate window longer than the age."""
        return {
            "name": self.name,
            "subjects": [self.captured],
            "retention": "limits",
            "storage": "file",
            "discard": "old",
            "max_msgs_per_subject": self.max_per_subject,
            "max_age": self.max_age_s * _NS,
            "duplicate_window": min(self.duplicate_window_s, self.max_age_s) * _NS,
            "num_replicas": self.replicas,
            "allow_direct": True,
            "republish": {"src": self.captured, "dest": self.republished},
        }


@dataclass(frozen=True, slots=True)
class StoredMessage:
    """One message of a stream."""

    seq: int
    subject: str
    data: bytes


@dataclass(frozen=True, slots=True)
class Batch:
    """Messages of one subject in order.

    `complete` says that nothing more of the subject was stored. `last_seq` is the last message's sequence, or
    the stream's last one when there is no message: reading on from there misses nothing.
    """

    messages: list[StoredMessage]
    last_seq: int
    complete: bool


class DurableLog:
    """One stream: its epoch, publishing with acknowledgement, and reading back."""

    def __init__(self, bus: Bus, spec: StreamSpec, publish_timeout_s: float = 5.0) -> None:
        self.spec = spec
        self.epoch = ""
        self._bus = bus
        self._publisher = Publisher(bus, publish_timeout_s)
        self._direct_get = f"$JS.API.DIRECT.GET.{spec.name}"

    # --- the stream itself ---

    async def open(self, timeout_s: float = _OPEN_S) -> None:
        """Create or update the stream, learn its epoch. Call again after a reconnect.

        Several processes may do so at once. A cluster that is still coming up is asked again for `timeout_s`.

        Raises:
            Misconfigured: no JetStream, missing permissions, or another stream of that name that cannot be
                made to fit.
            Unavailable: no answer in time.
        """
        loop = asyncio.get_running_loop()
        deadline = loop.time() + timeout_s
        while True:
            try:
                info = await self._ensure()
                break
            except NoAnswer as exc:
                if not self._bus.jetstream_offered:
                    raise Misconfigured(
                        "JetStream is off: start nats-server with a `jetstream` block"
                    ) from exc
                await self._pause_before(deadline, exc)
            except Unavailable as exc:
                await self._pause_before(deadline, exc)
            except Refused as exc:
                raise Misconfigured(f"stream {self.spec.name} cannot be made to fit: {exc}") from exc
        self.epoch = _epoch_of(info)

    async def _pause_before(self, deadline: float, error: Unavailable) -> None:
        if asyncio.get_running_loop().time() + _RETRY_S > deadline:
            raise error
        _log.info("stream not ready", stream=self.spec.name, reason=str(error))
        await asyncio.sleep(_RETRY_S)

    async def _ensure(self) -> StreamInfo:
        wanted = self.spec.config()
        info = await self._api("STREAM.INFO", None)
        if info.error is not None and info.error.err_code == STREAM_NOT_FOUND:
            created = wanted | {"metadata": {EPOCH_KEY: secrets.token_hex(8)}}
            info = await self._api("STREAM.CREATE", created)
            if info.error is not None and info.error.err_code == STREAM_NAME_IN_USE:
                info = await self._api("STREAM.INFO", None)  # another process was faster: its epoch holds
            elif info.error is None:
                _log.info("stream created", stream=self.spec.name)
        if info.error is None and not _fits(info.config, wanted):
            info = await self._api("STREAM.UPDATE", info.config | wanted)
            _log.info("stream updated", stream=self.spec.name)
        if info.error is not None:
            raise error_of(info.error)
        return info

    async def _api(self, verb: str, request: dict[str, Any] | None) -> StreamInfo:
        payload = b"" if request is None else msgspec.json.encode(request)
        answer = await self._bus.request(f"$JS.API.{verb}.{self.spec.name}", payload, timeout_s=_ASK_S)
        return decode_info(answer.data)

    # --- writing ---

    def publish(
        self,
        subject: str,
        payload: bytes,
        *,
        message_id: str,
        on_done: Callable[[Stored | BusError], None],
    ) -> None:
        """Publish; order is kept. `on_done` is called exactly once, and never before this returns.

        It gets Stored; Unavailable (disconnected, connection lost, deadline, no stream, no leader or space:
        it may or may not be stored, and the same `message_id` may be sent again); TooLarge; Refused with
        JetStream's `err_code`; or Misconfigured (this user may not publish there). `message_id` may be any
        text; empty is none.

        Raises:
            ValueError: the subject is none to publish to.
        """
        self._publisher.publish(subject, payload, message_id, on_done)

    def close(self) -> None:
        """Stop taking acknowledgements; what still waits for one is told Unavailable."""
        self._publisher.close()

    # --- reading ---

    async def read_from(self, subject: str, seq: int, limit: int) -> Batch:
        """Batched direct get: messages of `subject` with sequence >= `seq`, at most `limit`.

        A batch with a hole is never returned. A replica that lags behind the stream's leader is waited for.

        Raises:
            Unavailable: no answer, a hole, or a follower that does not catch up.
            Refused: the server does not understand the request.
        """
        known = await self._last_at_leader(subject) if self.spec.replicas > 1 else 0
        deadline = asyncio.get_running_loop().time() + _READ_S
        while True:
            messages, more = await self._get_batch(subject, seq, limit)
            last = messages[-1].seq if messages else 0
            if more or last >= known or known < seq:
                break
            if asyncio.get_running_loop().time() > deadline:
                raise Unavailable(f"replicas of stream {self.spec.name} lag behind their leader")
            await asyncio.sleep(_CATCH_UP_S)
            known = await self._last_at_leader(subject)  # what it was may have expired meanwhile
        if messages:
            return Batch(messages, messages[-1].seq, complete=not more)
        # The stream's end first, the subject again afterwards: what is stored in between is in the answer.
        last = await self._last_of_stream()
        messages, more = await self._get_batch(subject, seq, limit)
        if messages:
            return Batch(messages, messages[-1].seq, complete=not more)
        return Batch([], last, complete=True)

    async def last_of(self, subject: str) -> tuple[int, int]:
        """Return (last sequence of the subject or 0, last sequence of the stream).

        When the first is 0, the second is the position of an empty room: all that the subject stores from
        then on has a higher sequence.

        Raises:
            Unavailable: no answer.
            Refused: the server does not understand the request.
        """
        stream_last = await self._last_of_stream()
        subject_last = await self._last_at_leader(subject)
        return subject_last, max(stream_last, subject_last)

    async def first_seq(self) -> int:
        """Return the first sequence that the stream still holds: one past the last where it holds none.

        Raises:
            Unavailable: no answer.
            Refused: the server does not understand the request.
        """
        state = await self._state()
        return state.first_seq or state.last_seq + 1

    async def last_seq(self) -> int:
        """Return the last sequence of the stream.

        Raises:
            Unavailable: no answer.
            Refused: the server does not understand the request.
        """
        return await self._last_of_stream()

    async def _state(self) -> StreamState:
        info = await self._api("STREAM.INFO", None)
        if info.error is not None:
            raise error_of(info.error)
        return info.state

    async def _last_of_stream(self) -> int:
        return (await self._state()).last_seq

    async def _last_at_leader(self, subject: str) -> int:
        """Ask the leader: a follower's direct get may not have the newest message yet."""
        request = msgspec.json.encode({"last_by_subj": subject})
        answer = await self._bus.request(
            f"$JS.API.STREAM.MSG.GET.{self.spec.name}", request, timeout_s=_ASK_S
        )
        got = decode_got(answer.data)
        if got.error is not None:
            if got.error.code == _NOT_FOUND and got.error.err_code != STREAM_NOT_FOUND:
                return 0
            raise error_of(got.error)
        return got.message.seq if got.message else 0

    async def _get_batch(self, subject: str, seq: int, limit: int) -> tuple[list[StoredMessage], bool]:
        """Return the messages and whether more are stored."""
        request = msgspec.json.encode({"seq": max(1, seq), "next_by_subj": subject, "batch": limit})
        answers = await self._bus.request_many(
            self._direct_get, request, timeout_s=_READ_S, until=lambda message: message.status > 0
        )
        return read_batch(subject, answers)


def read_batch(subject: str, answers: list[BusMessage]) -> tuple[list[StoredMessage], bool]:
    """Turn the replies of a batched direct get into messages, and say whether more are stored.

    Each says the sequence of the one sent before it (0 for the first), and the end says the last one: a reply
    that was lost on the way breaks the chain.
    """
    if not answers:
        raise NoAnswer(subject, "no reply to a direct get")
    end = answers.pop()
    status = end.status
    if status == _NOT_FOUND and not answers:
        return [], False
    if status == 0:
        raise Unavailable(f"batch of {subject} has no end")
    if status != _END_OF_BATCH:
        raise Refused(str(status), end.description)
    previous = 0
    messages = []
    for answer in [*answers, end]:
        if answer.last_seq != previous:
            raise Unavailable(f"batch of {subject} has a hole after {previous}")
        if answer is not end:
            previous = answer.seq
            messages.append(StoredMessage(previous, answer.header("Nats-Subject") or subject, answer.data))
    return messages, (end.header("Nats-Num-Pending") or "0") != "0"


def _fits(config: dict[str, Any], wanted: dict[str, Any]) -> bool:
    return all(config.get(key) == value for key, value in wanted.items())


def _epoch_of(info: StreamInfo) -> str:
    """Return a short name of this life of the stream.

    A stream made again has another random id. One made by hand has none: its creation time is its epoch.
    """
    identity = f"{info.config.get('metadata', {}).get(EPOCH_KEY, '')}/{info.created}"
    return hashlib.blake2b(identity.encode(), digest_size=8).hexdigest()
