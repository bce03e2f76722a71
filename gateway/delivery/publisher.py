"""Publishes messages of clients and of the server API to rooms, to users and to everyone, as events on the bus.

An acknowledged durable message is stored; an acknowledged ephemeral one was accepted. `id` makes a retry harmless: it
is unique per (user, room), so equal ids of other users or rooms are different messages.
"""

import asyncio
import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from hashlib import blake2b

import msgspec
import structlog

from gateway.delivery.sanitizing import sanitized, sanitized_text
from gateway.delivery.streams import RoomRoute, Streams
from gateway.limits import Limit
from services.bus.ack_publisher import Stored
from services.bus.client import Bus
from services.bus.errors import BusError, PayloadTooLarge, StoreFull, Unavailable
from services.bus.streams import DurableLog
from services.settings import Settings
from services.wire import server
from services.wire.codes import ErrorCode, ErrorSpec
from services.wire.content import BadMessage, ContentTooLarge
from services.wire.events import BroadcastPublished, DirectPublished, RoomPublished
from services.wire.records import UNSET, UnsetType

log = structlog.get_logger(__name__)

_encode = msgspec.json.Encoder().encode

# Space returns when messages expire, or an operator adds some: not within a second.
STORE_FULL_RETRY_MS = 30_000
_LOG_EVERY_S = 10.0


@dataclass(frozen=True, slots=True)
class Sender:
    """The user of a message. Their connection `connection_id` gets no copy."""

    user_id: str
    username: str
    connection_id: str = ""


class PublishRefused(Exception):
    """The message was not published. Carries the answer to the sender; `retry_after_ms` 0 means soon."""

    def __init__(self, code: ErrorCode | ErrorSpec, message: str, retry_after_ms: int = 0) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.retry_after_ms = retry_after_ms


# Called exactly once per publish.
OnDone = Callable[[server.Ack | PublishRefused], None]


class Publisher:
    """Turns messages into events, stores durable ones, and reports the outcome."""

    def __init__(
        self, bus: Bus, streams: Streams, settings: Settings, on_limit: Callable[[Limit], object]
    ) -> None:
        self._bus = bus
        self._streams = streams
        self._settings = settings
        self._subjects = settings.subjects
        self._on_limit = on_limit
        self._logged_full_at = -math.inf

    def to_room(
        self,
        sender: Sender,
        route: RoomRoute,
        content: msgspec.Raw,
        on_done: OnDone,
        *,
        id: str | UnsetType = UNSET,
        echo: bool | UnsetType = False,
        exclude: str = "",
    ) -> None:
        """Publish JSON content to a room, but not to the connection `exclude`. With `echo` unset, the namespace decides."""
        timestamp, username, room = int(time.time() * 1000), sender.username, route.room
        if route.options.sanitize:
            try:
                content = sanitized(content, self._settings.max_message_bytes)
            except BadMessage as fault:
                self._on_limit(Limit.MESSAGE_BYTES if isinstance(fault, ContentTooLarge) else Limit.MARKUP)
                on_done(PublishRefused(fault.code, fault.message))
                return
            username = sanitized_text(username)
        event = RoomPublished(
            user_id=sender.user_id,
            username=username,
            room=room,
            content=content,
            timestamp=timestamp,
            origin=sender.connection_id,
            echo=route.options.echo if isinstance(echo, msgspec.UnsetType) else echo,
            exclude=exclude,
        )
        if route.stream is None:
            self._send(route.subject, _encode(event), timestamp, id, on_done)
        else:
            unique = message_id(sender.user_id, "room", room, id)
            self._store(route.stream, route.subject, _encode(event), unique, timestamp, id, on_done)

    def to_user(
        self,
        sender: Sender,
        user_id: str,
        content: msgspec.Raw,
        on_done: OnDone,
        *,
        id: str | UnsetType = UNSET,
        exclude: str = "",
    ) -> None:
        """Publish JSON content to a user's inbox."""
        timestamp = int(time.time() * 1000)
        event = DirectPublished(
            from_user_id=sender.user_id,
            username=sender.username,
            content=content,
            timestamp=timestamp,
            exclude=exclude,
        )
        subject = self._subjects.user_in(user_id)
        unique = message_id(sender.user_id, "user", user_id, id)
        self._store(self._streams.inbox, subject, _encode(event), unique, timestamp, id, on_done)

    def to_all(
        self,
        sender: Sender,
        content: msgspec.Raw,
        on_done: OnDone,
        *,
        id: str | UnsetType = UNSET,
        echo: bool = False,
        exclude: str = "",
    ) -> None:
        """Publish JSON content to every connection."""
        timestamp = int(time.time() * 1000)
        event = BroadcastPublished(
            user_id=sender.user_id,
            username=sender.username,
            content=content,
            timestamp=timestamp,
            origin=sender.connection_id,
            echo=echo,
            exclude=exclude,
        )
        self._send(self._subjects.broadcast, _encode(event), timestamp, id, on_done)

    def _store(
        self,
        durable_log: DurableLog,
        subject: str,
        payload: bytes,
        unique_id: str,
        timestamp: int,
        id: str | UnsetType,
        on_done: OnDone,
    ) -> None:
        # Until the streams are open again, the stream that answers may have another epoch than the known one.
        if not self._streams.is_open:
            on_done(_refusal(Unavailable("the streams are not open again yet")))
            return

        def stored(outcome: Stored | BusError) -> None:
            if isinstance(outcome, BusError):
                if isinstance(outcome, StoreFull) and time.monotonic() - self._logged_full_at >= _LOG_EVERY_S:
                    self._logged_full_at = time.monotonic()
                    log.error("JetStream's store is full", stream=durable_log.spec.name, reason=str(outcome))
                on_done(_refusal(outcome))
            else:
                on_done(server.Ack(id=id, epoch=durable_log.epoch, seq=outcome.seq, timestamp=timestamp))

        durable_log.publish(subject, payload, message_id=unique_id, on_done=stored)

    def _send(
        self, subject: str, payload: bytes, timestamp: int, id: str | UnsetType, on_done: OnDone
    ) -> None:
        try:
            self._bus.publish(subject, payload)
        except BusError as fault:
            on_done(_refusal(fault))
        else:
            on_done(server.Ack(id=id, timestamp=timestamp))

    # The same as coroutines, for HTTP.

    async def publish_room(
        self,
        sender: Sender,
        room: str,
        content: msgspec.Raw,
        id: str | UnsetType = UNSET,
        *,
        echo: bool | UnsetType = False,
    ) -> server.Ack:
        """Publish to a room and wait for the acknowledgement. Raises PublishRefused."""
        return await _awaited(
            lambda done: self.to_room(sender, self._streams.route(room), content, done, id=id, echo=echo)
        )

    async def publish_user(
        self, sender: Sender, user_id: str, content: msgspec.Raw, id: str | UnsetType = UNSET
    ) -> server.Ack:
        """Publish to a user and wait for the acknowledgement. Raises PublishRefused."""
        return await _awaited(lambda done: self.to_user(sender, user_id, content, done, id=id))

    async def broadcast(
        self, sender: Sender, content: msgspec.Raw, id: str | UnsetType = UNSET
    ) -> server.Ack:
        """Publish to everyone. Raises PublishRefused."""
        return await _awaited(lambda done: self.to_all(sender, content, done, id=id))


async def _awaited(start: Callable[[OnDone], None]) -> server.Ack:
    future: asyncio.Future[server.Ack | PublishRefused] = asyncio.get_running_loop().create_future()

    def done(outcome: server.Ack | PublishRefused) -> None:
        if not future.done():
            future.set_result(outcome)

    start(done)
    outcome = await future
    if isinstance(outcome, PublishRefused):
        raise outcome
    return outcome


def message_id(user_id: str, kind: str, target: str, id: str | UnsetType) -> str:
    """Return the stream-wide message id for a client's `id`; empty if the client gave none.

    It is a hash, because ids and names may contain what a header must not. The parts cannot run into each other: names
    have no NUL.
    """
    if isinstance(id, msgspec.UnsetType):
        return ""
    key = "\0".join((user_id, kind, target, id)).encode("utf-8", "surrogatepass")
    return blake2b(key, digest_size=16).hexdigest()


def _refusal(fault: BusError) -> PublishRefused:
    if isinstance(fault, PayloadTooLarge):
        return PublishRefused(ErrorCode.TOO_LARGE, str(fault))
    if isinstance(fault, StoreFull):
        return PublishRefused(ErrorCode.UNAVAILABLE, "the store of messages is full", STORE_FULL_RETRY_MS)
    return PublishRefused(
        ErrorCode.UNAVAILABLE, "the message could not be stored now; try again with the same id"
    )
