"""Small values under keys, each used at most once: a JetStream stream read and written by key.

It works as a NATS key-value bucket does (ADR-8): the last message of a subject is the key's value, its sequence is the
revision, and a write may demand a revision, so that of several writers exactly one wins.

nats-py's `key_value()` does not fit: it needs subjects under `$KV.BUCKET` and an inbox that no role may use, and belongs
to one client, where the bus replaces its client. Here everything goes through `Bus.request`. The stream lives in memory,
and is made again after its loss (a restarted server).
"""

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


class Entry(msgspec.Struct):
    """A value, and as `seq` the revision to name when using it up."""

    seq: int
    data: bytes = b""  # base64 in JSON, which msgspec decodes


class _ApiReply(msgspec.Struct):
    """A PubAck or an answer of the JetStream API: either an error or what was asked for."""

    error: JetStreamError | None = None
    message: Entry | None = None
    config: dict[str, Any] = {}


class Bucket:
    """One bucket. Keys are single subject tokens."""

    def __init__(self, bus: Bus, spec: StreamSpec) -> None:
        self._bus = bus
        self._spec = spec

    async def create(self, key: str, value: bytes) -> None:
        """Store a value under a key that was never used.

        Raises:
            RequestRefused: the key exists.
            StoreFull: the bucket, or the memory of NATS, is full.
            Unavailable: no answer in time.
        """
        try:
            await self._put(key, value, expected=0)
        except NoAnswer:
            # Nothing captures the subject: the first use ever, or the server lost the stream with its memory.
            await self.open()
            await self._put(key, value, expected=0)

    async def get(self, key: str) -> Entry | None:
        """Return the value under a key, or None if there is none or it was used. Raises Unavailable.

        The request goes to the stream's leader: a replica may not have the key yet.
        """
        query = msgspec.json.encode({"last_by_subj": self._subject(key)})
        absent = (STREAM_NOT_FOUND, _NO_MESSAGE_FOUND)
        reply = await self._ask(f"$JS.API.STREAM.MSG.GET.{self._spec.name}", query, accepted=absent)
        return reply.message if reply.message is not None and reply.message.data else None

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

    async def _put(self, key: str, value: bytes, *, expected: int) -> None:
        await self._ask(self._subject(key), value, {"Nats-Expected-Last-Subject-Sequence": str(expected)})

    async def _ask(
        self,
        subject: str,
        payload: bytes,
        headers: dict[str, str] | None = None,
        accepted: tuple[int, ...] = (),
    ) -> _ApiReply:
        """Ask JetStream, and raise the error that it answers, unless its code is `accepted`."""
        answer = await self._bus.request(subject, payload, timeout_s=_TIMEOUT_S, headers=headers)
        try:
            reply = msgspec.json.decode(answer.data, type=_ApiReply)
        except msgspec.DecodeError as fault:
            raise Unavailable(f"no answer of JetStream on {subject}: {fault}") from None
        if reply.error is not None and reply.error.err_code not in accepted:
            raise error_of(reply.error)
        return reply

    async def open(self) -> None:
        """Make the stream, or enlarge it (ADR 0012); `create` does it where the stream is missing.

        Raises:
            BusError: JetStream is out of reach, or refuses.
        """
        config = self._spec.config()
        payload = msgspec.json.encode(config)
        try:
            await self._ask(f"$JS.API.STREAM.CREATE.{self._spec.name}", payload)
        except RequestRefused as fault:
            if fault.code != str(STREAM_NAME_IN_USE):  # made by an earlier version or with other settings
                raise
            there = await self._ask(f"$JS.API.STREAM.INFO.{self._spec.name}", b"")
            raised = {name: max(config[name], there.config.get(name, 0)) for name in _RAISED}
            payload = msgspec.json.encode(config | raised)
            await self._ask(f"$JS.API.STREAM.UPDATE.{self._spec.name}", payload)
