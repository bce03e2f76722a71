"""The stored messages of rooms, for the HTTP API."""

from dataclasses import dataclass

import msgspec
import structlog

from gateway.delivery.rooms import decode_room_event
from gateway.delivery.stream_subscription import DeliveryParts
from services.bus.jsapi import StoredMessage
from services.bus.streams import DurableLog
from services.wire import server

log = structlog.get_logger(__name__)

_PAGE = 256
# The first guess of how many messages to read from a long log: as many of the largest size as an answer holds.
_FIRST_GUESS = 16
_GUESS_FACTOR = 4
_MARGIN = 65_536


@dataclass(frozen=True, slots=True)
class RoomHistory:
    """Messages of a room, oldest first, and its last sequence. For an ephemeral room all are empty or 0."""

    epoch: str
    last_seq: int
    messages: list[server.RoomMessage]


class History:
    """Reads the durable streams, few at once and a page of bytes at a time."""

    def __init__(self, parts: DeliveryParts) -> None:
        self._parts = parts

    async def room_history(
        self, room: str, *, limit: int, before: int | None, since: int | None
    ) -> RoomHistory:
        """Return at most `limit` messages: the newest, the newest before `before`, or the first after `since`.

        Fewer if they are more than `recovery_max_bytes` together, but at least one.

        Raises:
            BusError: the room's log cannot be read.
        """
        route = self._parts.streams.route(room)
        durable_log, subject = route.stream, route.subject
        if durable_log is None:
            return RoomHistory("", 0, [])
        max_bytes = self._parts.settings.recovery_max_bytes
        async with self._parts.reads.history():
            if since is not None:
                batch = await durable_log.read_from(subject, since + 1, limit, max_bytes)
                last_seq, found = batch.last_seq, batch.messages
            else:
                last_seq, found = await _newest(durable_log, subject, limit, before, max_bytes)
        return RoomHistory(durable_log.epoch, last_seq, [m for m in map(_decoded, found) if m is not None])


async def _newest(
    durable_log: DurableLog, subject: str, limit: int, before: int | None, max_bytes: int
) -> tuple[int, list[StoredMessage]]:
    """Return a room's last sequence, and its newest messages (before `before`), at most `limit` and `max_bytes`."""
    batch = await durable_log.read_from(subject, 1, _PAGE)
    if batch.complete:
        return batch.last_seq, _last_of(batch.messages, limit, before, max_bytes)
    # A long log is not read from its start, but from a sequence found by bisection.
    later = 0 if before is None else await _count(durable_log, subject, before)
    last_seq, stream_last = await durable_log.last_of(subject)
    last_seq = last_seq or stream_last  # all messages have expired meanwhile
    wanted = min(limit, _FIRST_GUESS)
    while True:
        start = 1
        if wanted + later < len(batch.messages) + batch.pending:
            start = await _start_seq(durable_log, subject, last_seq, wanted + later, slack=wanted)
        found = await _read_on(durable_log, subject, start, limit, before, max_bytes)
        enough = len(found) >= limit or sum(len(message.data) for message in found) >= max_bytes - _MARGIN
        if enough or start == 1:
            return max(last_seq, found[-1].seq if found else 0), found
        wanted *= _GUESS_FACTOR


async def _read_on(
    durable_log: DurableLog, subject: str, start: int, limit: int, before: int | None, max_bytes: int
) -> list[StoredMessage]:
    """Read to the end, or to `before`, a page at a time; keep only the newest."""
    kept: list[StoredMessage] = []
    while True:
        batch = await durable_log.read_from(subject, start, _PAGE)
        kept = _last_of([*kept, *batch.messages], limit, before, max_bytes)
        start = batch.last_seq + 1
        if batch.complete or not batch.messages or (before is not None and start >= before):
            return kept


def _last_of(
    messages: list[StoredMessage], limit: int, before: int | None, max_bytes: int
) -> list[StoredMessage]:
    kept: list[StoredMessage] = []
    size = 0
    for message in reversed(messages):
        if before is not None and message.seq >= before:
            continue
        size += len(message.data)
        if len(kept) >= limit or (size > max_bytes and kept):
            break
        kept.append(message)
    return kept[::-1]


async def _start_seq(durable_log: DurableLog, subject: str, last_seq: int, wanted: int, *, slack: int) -> int:
    """Return a sequence from which on a room has at least `wanted` messages, and at best `slack` more at most."""
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
    """Return the number of a room's messages from a sequence on. Reads one of them."""
    batch = await durable_log.read_from(subject, seq, 1)
    return len(batch.messages) + batch.pending


def _decoded(stored: StoredMessage) -> server.RoomMessage | None:
    try:
        message = decode_room_event(stored.data, stored.seq).message.message
    except (msgspec.DecodeError, RecursionError) as fault:
        log.error("stored message is not readable", subject=stored.subject, seq=stored.seq, reason=str(fault))
        return None
    return message if isinstance(message, server.RoomMessage) else None
