"""Reading what rooms keep, for the HTTP surface."""

from collections import deque
from dataclasses import dataclass

import msgspec
import structlog

from gateway.delivery.logs import Logs
from gateway.delivery.reads import Reads
from gateway.delivery.rooms import decode_room_event
from services.bus.streams import Batch, DurableLog, StoredMessage
from services.settings import Settings
from services.wire import server

log = structlog.get_logger(__name__)

_PAGE = 256


@dataclass(frozen=True, slots=True)
class RoomHistory:
    """A piece of a room's past, oldest first, and the position the room has reached.

    An ephemeral room has an empty epoch, sequence 0 and no messages.
    """

    epoch: str
    last_seq: int
    messages: list[server.RoomMessage]


class History:
    """Reads the durable logs, few at once and a page of bytes at a time."""

    def __init__(self, logs: Logs, settings: Settings, reads: Reads) -> None:
        self._logs = logs
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
        durable_log = self._logs.of_namespace(namespace)
        if durable_log is None:
            return RoomHistory("", 0, [])
        subject = self._settings.subjects.room_in(namespace, room)
        most = self._settings.recovery_max_bytes
        async with self._reads.history():
            if since is not None:
                batch = await durable_log.read_from(subject, since + 1, limit, most)
                found = batch.messages
            else:
                batch, found = await _newest(durable_log, subject, limit, before, most)
        return RoomHistory(
            durable_log.epoch, batch.last_seq, [m for m in map(_decoded, found) if m is not None]
        )


async def _newest(
    durable_log: DurableLog, subject: str, limit: int, before: int | None, most: int
) -> tuple[Batch, list[StoredMessage]]:
    """Return the last batch of a room, and its newest messages: read from the beginning, and let go of on the way."""
    kept: deque[StoredMessage] = deque()
    size, start = 0, 1
    while True:
        batch = await durable_log.read_from(subject, start, _PAGE)
        for message in batch.messages:
            if before is not None and message.seq >= before:
                break
            kept.append(message)
            size += len(message.data)
            while len(kept) > limit or (size > most and len(kept) > 1):
                size -= len(kept.popleft().data)
        if batch.complete or not batch.messages:
            return batch, list(kept)
        start = batch.messages[-1].seq + 1


def _decoded(stored: StoredMessage) -> server.RoomMessage | None:
    try:
        message = decode_room_event(stored.data, stored.seq).message.message
    except (msgspec.DecodeError, RecursionError) as fault:
        log.error("stored message is not readable", subject=stored.subject, seq=stored.seq, reason=str(fault))
        return None
    return message if isinstance(message, server.RoomMessage) else None
