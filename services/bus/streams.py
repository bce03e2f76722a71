"""Durable logs on JetStream: streams that capture a subject and republish what they stored (ADR 0002).

No consumers: reads are batched direct gets (NATS ADR-31).
"""

import asyncio
import hashlib
import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import msgspec
import structlog

from services.backoff import Backoff
from services.bus.ack_publisher import AckPublisher
from services.bus.client import Bus
from services.bus.errors import BusError, Misconfigured, NoAnswer, RequestRefused, StoreFull, Unavailable
from services.bus.jsapi import (
    NO_STORAGE,
    NOT_FOUND,
    STREAM_NAME_IN_USE,
    STREAM_NOT_FOUND,
    MessageGot,
    StoredMessage,
    StoredRaw,
    StreamInfo,
    StreamState,
    decode_answer,
    error_of,
    read_batch,
)
from services.bus.message import BusMessage
from services.bus.specs import StreamSpec, changes

_log = structlog.get_logger(__name__)
EPOCH_KEY = "tidings-epoch"
_OPEN_S = 15.0
_RETRY_S = 0.25
_ASK_S = 2.0
_READ_S = 3.0
_CATCH_UP_S = 0.05
_GATHER_S = 0.001
# What one read asks for at most: NATS drops a connection that has more than 64 MB waiting.
PAGE_BYTES = 1024 * 1024
# NATS takes 1,024 subjects in one request for their last messages; one of them is the newest of the stream.
MAX_SUBJECTS = 1023


@dataclass(frozen=True, slots=True)
class Batch:
    """Messages of one subject in order.

    `pending`: how many more of the subject are stored. `last_seq`: the sequence of the last message, or without any
    the stream's last: reading on from there misses nothing.
    """

    messages: list[StoredMessage]
    last_seq: int
    pending: int = 0

    @property
    def complete(self) -> bool:
        """Whether nothing more of the subject was stored."""
        return self.pending == 0


@dataclass(frozen=True, slots=True)
class Newest:
    """The last sequence of a stream, and of its newest message that is still there: its subject (or none)."""

    last_seq: int
    subject: str
    seq: int = 0


class DurableLog:
    """One stream: its epoch, publishing with acknowledgement, and reading back."""

    def __init__(self, bus: Bus, spec: StreamSpec, publish_timeout_s: float = 5.0) -> None:
        self.spec = spec
        self.epoch = ""
        self.lowered: dict[str, tuple[Any, Any]] = {}
        """Limits of the stream in force that differ from `spec`: (in force, wanted)."""
        # Limits in force, also where another gateway has raised them.
        self.max_per_subject = spec.max_per_subject
        self.max_age_s: float = spec.max_age_s
        self._max_bytes: float = spec.max_bytes
        self._replicas = spec.replicas
        self._next_state: asyncio.Future[StreamState] | None = None
        self._bus = bus
        self._publisher = AckPublisher(bus, publish_timeout_s)
        self.publish = self._publisher.publish
        self._direct_get = f"$JS.API.DIRECT.GET.{spec.name}"

    # --- the stream itself ---

    async def open(self, timeout_s: float = _OPEN_S) -> None:
        """Create or enlarge the stream, learn its epoch. Call again after a reconnect.

        Processes with different settings may do so at once: the largest of each limit holds, because a smaller one
        would delete messages. Differences are in `lowered` and in the log. Tries for `timeout_s` while a cluster starts.

        Raises:
            Misconfigured: no JetStream, missing permissions, or a stream of that name that cannot be made to fit.
            Unavailable: no answer in time.
        """
        loop = asyncio.get_running_loop()
        deadline, backoff = loop.time() + timeout_s, Backoff(_RETRY_S, _RETRY_S)
        while True:
            try:
                info = await self._ensure()
                break
            except NoAnswer as exc:
                if not self._bus.connection.client.server_info.get("jetstream"):
                    raise Misconfigured(
                        "JetStream is off: start nats-server with a `jetstream` block"
                    ) from exc
                await self._pause_before(deadline, backoff, exc)
            except Unavailable as exc:
                await self._pause_before(deadline, backoff, exc)
            except StoreFull as exc:
                if loop.time() + _RETRY_S < deadline:  # a cluster that is coming up may say so too
                    await self._pause_before(deadline, backoff, exc)
                    continue
                raise Misconfigured(
                    f"JetStream has no room for stream {self.spec.name} with {self.spec.max_bytes} bytes: raise "
                    f"max_file_store, or lower TIDINGS_HISTORY_MAX_BYTES and TIDINGS_INBOX_MAX_BYTES ({exc})"
                ) from exc
            except RequestRefused as exc:
                raise Misconfigured(f"stream {self.spec.name} cannot be made to fit: {exc}") from exc
        self.epoch = _epoch_of(info)
        config = info.config
        self._replicas = max(self.spec.replicas, config.get("num_replicas", 1))
        self.max_per_subject = min(self.spec.max_per_subject, _or_endless(config.get("max_msgs_per_subject")))
        self.max_age_s = min(self.spec.max_age_s, _or_endless(config.get("max_age")) / 1e9)
        self._max_bytes = min(self.spec.max_bytes, _or_endless(config.get("max_bytes")))

    @property
    def least_until_full(self) -> int:
        """The least number of messages stored before a full stream drops one."""
        return int(self._max_bytes // max(1, self._bus.max_payload))

    async def _pause_before(self, deadline: float, backoff: Backoff, error: BusError) -> None:
        if asyncio.get_running_loop().time() + _RETRY_S > deadline:
            raise error
        _log.info("stream not ready", stream=self.spec.name, reason=str(error))
        await backoff.wait()

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
        if info.error is not None:
            raise error_of(info.error)
        needed = changes(info.config, self.spec, info.state.bytes)
        lowered = needed.lowered
        if needed.update:
            updated = await self._api("STREAM.UPDATE", info.config | needed.update)
            if updated.error is None:
                _log.info("stream updated", stream=self.spec.name, changed=sorted(needed.update))
                info = updated
            elif updated.error.err_code == NO_STORAGE:  # a smaller stream is better than no gateway
                lowered = lowered | {"max_bytes": (info.config.get("max_bytes"), self.spec.max_bytes)}
            else:
                raise error_of(updated.error)
        if lowered and lowered != self.lowered:
            _log.warning(
                "stream differs from the settings",
                stream=self.spec.name,
                in_force={name: found for name, (found, _) in lowered.items()},
                wanted={name: wish for name, (_, wish) in lowered.items()},
            )
        self.lowered = lowered
        return info

    async def _api(self, verb: str, request: dict[str, Any] | None) -> StreamInfo:
        payload = b"" if request is None else msgspec.json.encode(request)
        answer = await self._bus.request(f"$JS.API.{verb}.{self.spec.name}", payload, timeout_s=_ASK_S)
        return decode_answer(answer.data, StreamInfo)

    # --- writing ---

    def close(self) -> None:
        """Stop; pending publishes end as Unavailable."""
        self._publisher.close()

    # --- reading ---

    async def read_from(
        self, subject: str, seq: int, limit: int, max_bytes: int = PAGE_BYTES, *, stored_last: int = 0
    ) -> Batch:
        """Batched direct get: messages of `subject` with sequence >= `seq`, at most `limit`.

        The last message is the first that exceeds `max_bytes`. A batch with a hole is never returned. Waits for a replica
        that lags behind the leader; with `stored_last` (a sequence that the caller needs) the leader is not asked.

        Raises:
            Unavailable: no answer, a hole, or a follower that does not catch up.
            RequestRefused: the server does not understand the request.
        """
        known = stored_last or (await self._last_at_leader(subject) if self._replicas > 1 else 0)
        deadline = asyncio.get_running_loop().time() + _READ_S
        request = {"seq": max(1, seq), "next_by_subj": subject, "batch": limit, "max_bytes": max_bytes}
        while True:
            messages, pending = read_batch(subject, await self._ask_many(request))
            last = messages[-1].seq if messages else 0
            if pending or last >= known or known < seq:
                break
            if asyncio.get_running_loop().time() > deadline:
                raise Unavailable(f"replicas of stream {self.spec.name} lag behind their leader")
            await asyncio.sleep(_CATCH_UP_S)
            known = await self._last_at_leader(subject)  # what it was may have expired meanwhile
        if messages:
            return Batch(messages, messages[-1].seq, pending)
        # The stream's end first, the subject again afterwards: what is stored in between is in the answer.
        last = (await self.state()).last_seq
        messages, pending = read_batch(subject, await self._ask_many(request))
        return Batch(messages, messages[-1].seq, pending) if messages else Batch([], last)

    async def last_of(self, subject: str) -> tuple[int, int]:
        """Return (last sequence of the subject or 0, last sequence of the stream).

        If the first is 0, the second is the position of the empty room: later messages have higher sequences.

        Raises:
            Unavailable: no answer.
            RequestRefused: the server does not understand the request.
        """
        stream_last = (await self.state()).last_seq
        subject_last = await self._last_at_leader(subject)
        return subject_last, max(stream_last, subject_last)

    async def newest(self) -> "Newest":
        """Return the stream's last sequence and newest message, as its leader has them.

        Raises:
            Unavailable: no answer.
            RequestRefused: the server does not understand the request.
        """
        state = await self.state()
        found = await self._newest_at_leader(self.spec.captured) if state.messages else None
        if found is None:
            return Newest(state.last_seq, "")
        return Newest(max(state.last_seq, found.seq), found.subject, found.seq)

    async def lasts_of(self, subjects: Sequence[str], newest: "Newest") -> dict[str, int]:
        """Return the last sequences of at most `MAX_SUBJECTS` subjects, without those that have no message.

        Includes all messages up to `newest`: waits for a replica that lags behind. One request for each page of bytes
        (ADR-31, `multi_last`: it returns the messages too).

        Raises:
            Unavailable: no answer, a hole, or a replica that does not catch up.
            RequestRefused: the server does not understand the request.
        """
        if not newest.subject:
            return {}
        # With the stream's newest subject: a reply without messages does not tell how far that replica is.
        request: dict[str, Any] = {"multi_last": list({*subjects, newest.subject}), "max_bytes": PAGE_BYTES}
        deadline = asyncio.get_running_loop().time() + _READ_S
        found: dict[str, int] = {}
        while True:
            answers = await self._ask_many(request)
            messages, pending = read_batch(f"{len(subjects)} subjects", answers)
            if int(answers[-1].header("Nats-UpTo-Sequence") or 0) < newest.seq:
                if asyncio.get_running_loop().time() > deadline:
                    raise Unavailable(f"replicas of stream {self.spec.name} lag behind their leader")
                await asyncio.sleep(_CATCH_UP_S)
                continue
            found.update({message.subject: message.seq for message in messages})
            if not pending:
                return found
            request["seq"] = messages[-1].seq + 1

    async def state(self) -> StreamState:
        """Return the stream's state, as its leader has it. Calls at about the same time share one request.

        Raises:
            Unavailable: no answer.
            RequestRefused: the server does not understand the request.
        """
        if self._next_state is None:
            self._next_state = asyncio.ensure_future(self._ask_state())
            # Retrieves a fault that is no longer awaited, so that asyncio does not report it.
            self._next_state.add_done_callback(lambda done: done.cancelled() or done.exception())
        return await asyncio.shield(self._next_state)

    async def _ask_state(self) -> StreamState:
        await asyncio.sleep(_GATHER_S)
        self._next_state = None  # sent now: later callers need a later answer
        info = await self._api("STREAM.INFO", None)
        if info.error is not None:
            raise error_of(info.error)
        return msgspec.structs.replace(info.state, at=info.ts)

    async def _last_at_leader(self, subject: str) -> int:
        newest = await self._newest_at_leader(subject)
        return newest.seq if newest else 0

    async def _newest_at_leader(self, subject: str) -> StoredRaw | None:
        """Ask the leader: a follower's direct get may not have the newest message yet."""
        request = msgspec.json.encode({"last_by_subj": subject})
        answer = await self._bus.request(
            f"$JS.API.STREAM.MSG.GET.{self.spec.name}", request, timeout_s=_ASK_S
        )
        got = decode_answer(answer.data, MessageGot)
        if got.error is not None:
            if got.error.code == NOT_FOUND and got.error.err_code != STREAM_NOT_FOUND:
                return None
            raise error_of(got.error)
        return got.message

    async def _ask_many(self, request: dict[str, Any]) -> list[BusMessage]:
        payload = msgspec.json.encode(request)
        return await self._bus.request_many(
            self._direct_get, payload, timeout_s=_READ_S, until=lambda message: message.status > 0
        )


def _or_endless(limit: float | None) -> Any:
    """Return a limit of JetStream as a number to compare: 0 and -1 are none."""
    return limit if limit is not None and limit > 0 else float("inf")


def _epoch_of(info: StreamInfo) -> str:
    """Return the stream's epoch: from its random id and creation time (a stream made by hand has no id)."""
    identity = f"{info.config.get('metadata', {}).get(EPOCH_KEY, '')}/{info.created}"
    return hashlib.blake2b(identity.encode(), digest_size=8).hexdigest()
