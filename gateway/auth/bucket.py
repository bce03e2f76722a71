"""Small values under keys, each used at most once: a JetStream stream read and written by key.

It works as a NATS key-value bucket does (ADR-8): the last message of a subject is the key's value, its sequence is the
revision, and a write may demand a revision, so that of several writers exactly one wins.

nats-py's own `key_value()` would not do: it puts keys under `$KV.BUCKET`, hears answers on an inbox that no role may
subscribe to, and belongs to one client, where the bus replaces its client. Everything here goes through `Bus.request`.
The stream lives in memory, and is made again after its loss (a restarted server).
"""

from dataclasses import dataclass
from typing import Any

import msgspec

from services.bus.client import Bus
from services.bus.errors import NoAnswer, RequestRefused, Unavailable
from services.bus.jsapi import STREAM_NAME_IN_USE, STREAM_NOT_FOUND, JetStreamError, error_of
from services.bus.specs import StreamSpec

# err_code values of nats-server's errors.json
_NO_MESSAGE_FOUND = 10037
_WRONG_LAST_SEQUENCE = frozenset({"10071", "10164"})  # the latter while another write is in process

_TIMEOUT_S = 2.0
# What another process may have asked more of.
_RAISED = ("num_replicas", "max_age", "max_bytes")


@dataclass(frozen=True, slots=True)
class Entry:
    """A value and the revision to name when replacing it."""

    value: bytes
    revision: int


class _StoredMessage(msgspec.Struct):
    seq: int
    data: bytes = b""  # base64 in JSON, which msgspec decodes


class _ApiReply(msgspec.Struct):
    """A PubAck or an answer of the JetStream API: either an error or what was asked for."""

    error: JetStreamError | None = None
    seq: int = 0
    message: _StoredMessage | None = None
    config: dict[str, Any] = {}


class Bucket:
    """One bucket. Keys are single subject tokens."""

    def __init__(self, bus: Bus, spec: StreamSpec) -> None:
        self._bus = bus
        self._spec = spec

    async def create(self, key: str, value: bytes) -> int:
        """Store a value under a key that was never used, and return its revision.

        Raises:
            RequestRefused: the key exists.
            StoreFull: the bucket, or the memory of NATS, is full.
            Unavailable: no answer in time.
        """
        try:
            return await self._put(key, value, expected=0)
        except NoAnswer:
            # Nothing captures the subject: the first use ever, or the server lost the stream with its memory.
            await self.open()
            return await self._put(key, value, expected=0)

    async def get(self, key: str) -> Entry | None:
        """Return the value under a key, or None if there is none or it was used. Raises Unavailable.

        The request goes to the stream's leader: a replica may not have the key yet.
        """
        query = msgspec.json.encode({"last_by_subj": self._subject(key)})
        reply = await self._ask(f"$JS.API.STREAM.MSG.GET.{self._spec.name}", query)
        if reply.error is not None and reply.error.err_code not in (STREAM_NOT_FOUND, _NO_MESSAGE_FOUND):
            raise error_of(reply.error)
        if reply.message is None or not reply.message.data:
            return None
        return Entry(reply.message.data, reply.message.seq)

    async def consume(self, key: str, revision: int) -> bool:
        """Use up the value of that revision; True for exactly one caller. Raises Unavailable."""
        try:
            await self._put(key, b"", expected=revision)
        except NoAnswer:
            return False  # the stream is gone, and the value with it
        except RequestRefused as fault:
            if fault.code in _WRONG_LAST_SEQUENCE:
                return False
            raise
        return True

    def _subject(self, key: str) -> str:
        return f"{self._spec.captured.removesuffix('.*')}.{key}"

    async def _put(self, key: str, value: bytes, *, expected: int) -> int:
        headers = {"Nats-Expected-Last-Subject-Sequence": str(expected)}
        return (await self._api(self._subject(key), value, headers)).seq

    async def _api(self, subject: str, payload: bytes, headers: dict[str, str] | None = None) -> _ApiReply:
        """Ask JetStream, and raise what it says went wrong."""
        reply = await self._ask(subject, payload, headers)
        if reply.error is not None:
            raise error_of(reply.error)
        return reply

    async def _ask(self, subject: str, payload: bytes, headers: dict[str, str] | None = None) -> _ApiReply:
        answer = await self._bus.request(subject, payload, timeout_s=_TIMEOUT_S, headers=headers)
        try:
            return msgspec.json.decode(answer.data, type=_ApiReply)
        except msgspec.DecodeError as fault:
            raise Unavailable(f"no answer of JetStream on {subject}: {fault}") from None

    async def open(self) -> None:
        """Make the stream, or enlarge it (ADR 0012); `create` does it where the stream is missing.

        Raises:
            BusError: JetStream is out of reach, or refuses.
        """
        config = self._spec.config()
        payload = msgspec.json.encode(config)
        try:
            await self._api(f"$JS.API.STREAM.CREATE.{self._spec.name}", payload)
        except RequestRefused as fault:
            if fault.code != str(STREAM_NAME_IN_USE):  # made by an earlier version or with other settings
                raise
            there = await self._api(f"$JS.API.STREAM.INFO.{self._spec.name}", b"")
            raised = {name: max(config[name], there.config.get(name, 0)) for name in _RAISED}
            payload = msgspec.json.encode(config | raised)
            await self._api(f"$JS.API.STREAM.UPDATE.{self._spec.name}", payload)
