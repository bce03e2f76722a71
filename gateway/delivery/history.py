"""Reading what rooms keep, for the HTTP surface."""

from dataclasses import dataclass

import msgspec
import structlog

from gateway.delivery.logs import Logs
from gateway.delivery.rooms import decode_room_event
from services.bus.streams import StoredMessage
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
    """Reads the durable logs."""

    def __init__(self, logs: Logs, settings: Settings) -> None:
        self._logs = logs
        self._settings = settings

    async def room_history(
        self, room: str, *, limit: int, before: int | None, since: int | None
    ) -> RoomHistory:
        """Return at most `limit` messages: the newest, the newest before `before`, or the first after `since`.

        Raises:
            BusError: the room's log cannot be read.
        """
        namespace = self._settings.namespace_of(room)
        durable_log = self._logs.of_namespace(namespace)
        if durable_log is None:
            return RoomHistory("", 0, [])
        subject = self._settings.subjects.room_in(namespace, room)
        found: list[StoredMessage] = []
        start = 1 if since is None else since + 1
        last_seq = 0
        while True:
            # A room keeps few messages (its namespace says how many), so reading them all is a page or two.
            batch = await durable_log.read_from(subject, start, _PAGE)
            found += batch.messages
            last_seq = batch.last_seq
            enough = since is not None and len(found) >= limit
            if batch.complete or not batch.messages or enough:
                break
            start = batch.messages[-1].seq + 1
        if before is not None:
            found = [message for message in found if message.seq < before]
        piece = found[:limit] if since is not None else found[-limit:]
        return RoomHistory(durable_log.epoch, last_seq, [m for m in map(_decoded, piece) if m is not None])


def _decoded(stored: StoredMessage) -> server.RoomMessage | None:
    try:
        message = decode_room_event(stored.data, stored.seq).message.message
    except (msgspec.DecodeError, RecursionError) as fault:
        log.error("stored message is not readable", subject=stored.subject, seq=stored.seq, reason=str(fault))
        return None
    return message if isinstance(message, server.RoomMessage) else None
