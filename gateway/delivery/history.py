"""The stored messages of rooms, for the HTTP API."""

from dataclasses import dataclass

import msgspec
import structlog

from gateway.delivery.newest import read_newest
from gateway.delivery.rooms import decode_room_event
from gateway.delivery.stream_subscription import DeliveryParts
from services.bus.jsapi import StoredMessage
from services.wire import server

log = structlog.get_logger(__name__)


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
                last_seq, found = await read_newest(durable_log, subject, limit, before, max_bytes)
        return RoomHistory(durable_log.epoch, last_seq, [m for m in map(_decoded, found) if m is not None])


def _decoded(stored: StoredMessage) -> server.RoomMessage | None:
    try:
        message = decode_room_event(stored.data, stored.seq).message.message
    except (msgspec.DecodeError, RecursionError) as fault:
        log.error("stored message is not readable", subject=stored.subject, seq=stored.seq, reason=str(fault))
        return None
    return message if isinstance(message, server.RoomMessage) else None
