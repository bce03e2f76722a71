"""Reading what rooms keep, for the HTTP surface."""

from dataclasses import dataclass

import msgspec
import structlog

from gateway.delivery.reads import Reads
from gateway.delivery.rooms import decode_room_event
from gateway.delivery.streams import Streams
from services.bus.jsapi import StoredMessage
from services.bus.streams import DurableLog
from services.settings import Settings
from services.wire import server

log = structlog.get_logger(__name__)

_PAGE = 256
# How many of a long past are looked for first: as many messages of the largest size as an answer holds.
_FIRST_LOOK = 16
_LOOK_FURTHER = 4
_MARGIN = 65_536


@dataclass(frozen=True, slots=True)
class RoomHistory:
    """A piece of a room's past, oldest first, and the position the room has reached.

    An ephemeral room has an empty epoch, sequence 0 and no messages.
    """

    epoch: str
    last_seq: int
    messages: list[server.RoomMessage]


class History:
    """Reads the durable streams, few at once and a page of bytes at a time."""

    def __init__(self, streams: Streams, settings: Settings, reads: Reads) -> None:
        self._streams = streams
        self._settings = settings
        self._reads = reads

    async def room_history(
        self, room: str, *, limit: int, before: int | None, since: int | None
    ) -> RoomHistory:
        """Return at most `limit` messages: the newest, the newest before `before`, or the first after `since`.

        There are fewer where they would be more than `recovery_max_bytes` together, but at least one.

        Raises:
            BusError: the room's log cannot be read.
        """
        namespace = self._settings.namespace_of(room)
        durable_log = self._streams.of_namespace(namespace)
        if durable_log is None:
            return RoomHistory("", 0, [])
        subject = self._settings.subjects.room_in(namespace, room)
        most = self._settings.recovery_max_bytes
        async with self._reads.history():
            if since is not None:
                batch = await durable_log.read_from(subject, since + 1, limit, most)
                last_seq, found = batch.last_seq, batch.messages
            else:
                last_seq, found = await _newest(durable_log, subject, limit, before, most)
        return RoomHistory(durable_log.epoch, last_seq, [m for m in map(_decoded, found) if m is not None])


async def _newest(
    durable_log: DurableLog, subject: str, limit: int, before: int | None, most: int
) -> tuple[int, list[StoredMessage]]:
    """Return where a room stands, and its newest messages (before `before`), at most `limit` and `most` bytes."""
    batch = await durable_log.read_from(subject, 1, _PAGE)
    if batch.complete:
        return batch.last_seq, _last_of(batch.messages, limit, before, most)
    # A long past is not read from its beginning, but from a place that is looked for.
    later = 0 if before is None else await _count(durable_log, subject, before)
    last_seq, stream_last = await durable_log.last_of(subject)
    last_seq = last_seq or stream_last  # all of it has expired meanwhile
    wanted = min(limit, _FIRST_LOOK)
    while True:
        start = 1
        if wanted + later < len(batch.messages) + batch.pending:
            start = await _start_seq(durable_log, subject, last_seq, wanted + later, slack=wanted)
        found = await _read_on(durable_log, subject, start, limit, before, most)
        enough = len(found) >= limit or sum(len(message.data) for message in found) >= most - _MARGIN
        if enough or start == 1:
            return max(last_seq, found[-1].seq if found else 0), found
        wanted *= _LOOK_FURTHER


async def _read_on(
    durable_log: DurableLog, subject: str, start: int, limit: int, before: int | None, most: int
) -> list[StoredMessage]:
    """Read to the end, or to `before`, a page at a time, and let go of all but the newest on the way."""
    kept: list[StoredMessage] = []
    while True:
        batch = await durable_log.read_from(subject, start, _PAGE)
        kept = _last_of([*kept, *batch.messages], limit, before, most)
        start = batch.last_seq + 1
        if batch.complete or not batch.messages or (before is not None and start >= before):
            return kept


def _last_of(messages: list[StoredMessage], limit: int, before: int | None, most: int) -> list[StoredMessage]:
    kept: list[StoredMessage] = []
    size = 0
    for message in reversed(messages):
        if before is not None and message.seq >= before:
            continue
        size += len(message.data)
        if len(kept) >= limit or (size > most and kept):
            break
        kept.append(message)
    return kept[::-1]


async def _start_seq(durable_log: DurableLog, subject: str, last_seq: int, wanted: int, *, slack: int) -> int:
    """Return a sequence from which on a room has at least `wanted` messages, and hardly more than `slack` besides."""
    low, high = 1, last_seq + 1
    while high - low > 1:
        middle = (low + high) // 2
        count = await _count(durable_log, subject, middle)
        if count < wanted:
            high = middle
        else:
            low = middle
            if count <= wanted + slack:
                break
    return low


async def _count(durable_log: DurableLog, subject: str, seq: int) -> int:
    """Return how many messages a room has from a sequence on: one is read for it."""
    batch = await durable_log.read_from(subject, seq, 1)
    return len(batch.messages) + batch.pending


def _decoded(stored: StoredMessage) -> server.RoomMessage | None:
    try:
        message = decode_room_event(stored.data, stored.seq).message.message
    except (msgspec.DecodeError, RecursionError) as fault:
        log.error("stored message is not readable", subject=stored.subject, seq=stored.seq, reason=str(fault))
        return None
    return message if isinstance(message, server.RoomMessage) else None
