"""SSE streams: fan-outs write to a buffer, and a response sends it.

The buffer is bounded in bytes: a client that reads too slowly gets `disconnect`, and its stream ends (ADR 0004).
"""

import asyncio
import secrets
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Iterable
from typing import Protocol

import msgspec

from gateway.auth.expiry import CredentialTimer
from gateway.auth.identity import Identity
from gateway.connections import Figures, disconnect_message
from gateway.delivery.counters import Counters
from gateway.delivery.encoded_message import EncodedMessage, Encoding, sse_event
from gateway.delivery.fd_table import NO_FD
from gateway.delivery.inbox import INBOX_TOPIC
from gateway.limits import Limit
from gateway.presence.batch_queue import Chosen
from gateway.sse.event_id import encode_id
from services.clock import now_ms
from services.wire import server
from services.wire.codes import CloseCode, ErrorCode
from services.wire.events import Revoked
from services.wire.records import UNSET, Position
from services.wire.rpc import AnyPresenceOp, Connected, Joined

_encode = msgspec.json.Encoder().encode


class Buffer:
    """Bytes on their way to one client, at most `limit`; one recovery may exceed it by itself."""

    __slots__ = ("_allowed", "_chunks", "_limit", "_wake", "ended", "on_end", "overflowed", "size")

    def __init__(self, limit: int) -> None:
        self._chunks: list[bytes] = []
        self.size = 0
        self._allowed = self._limit = limit
        self._wake = asyncio.Event()
        self.ended = False  # nothing more will be added
        self.on_end: Callable[[], object] = bool
        self.overflowed = False

    def put(self, data: bytes) -> bool:
        """Add bytes; False, and nothing is added, where they do not fit or the stream has ended."""
        if self.ended:
            return False
        if self.size + len(data) > self._allowed:
            self.overflowed = True
            return False
        self._append(data)
        return True

    def put_recovery(self, data: bytes) -> bool:
        """Add what a client missed: the limit counts from what waits then, until it has left (ADR 0004)."""
        if self.ended:
            return False
        self._append(data)
        self._allowed = self.size + self._limit
        return True

    def _append(self, data: bytes) -> None:
        self._chunks.append(data)
        self.size += len(data)
        self._wake.set()

    def end(self, last: bytes = b"") -> None:
        """End the stream after what is in the buffer and `last`."""
        if not self.ended:
            self._chunks.append(last)
            self.ended = True
            self._wake.set()
            self.on_end()

    async def get(self, timeout_s: float) -> bytes:
        """Return the buffered bytes, or wait for some; nothing when the time is up or the stream has ended."""
        if not self._chunks and not self.ended:
            self._wake.clear()
            try:
                async with asyncio.timeout(timeout_s):
                    await self._wake.wait()
            except TimeoutError:
                return b""
        data = b"".join(self._chunks)
        self._chunks.clear()
        self.size, self._allowed = 0, self._limit
        return data


class Stream(ABC):
    """One SSE stream: a client whose writes go through a response."""

    encoding = Encoding.SSE
    fd_ref = NO_FD
    rooms: Collection[str] = frozenset()
    keepalive_s: float  # proxies cut what is silent for long; 15 s is the usual limit

    def __init__(self, identity: Identity, limit: int, counters: Counters, connection_id: str = "") -> None:
        self.connection_id = connection_id or secrets.token_hex(8)
        self.user_id = identity.user_id
        self.identity = identity
        self.ip_key = ""
        self.address = ""
        self.opened_at = time.monotonic()
        self.bytes_out = 0
        self.sent_before = 0
        self.channels: Collection[str] = ()
        self.expiry: CredentialTimer | None = None
        self.buffer = Buffer(limit)
        self._counters = counters
        self.write: Callable[[bytes], None] = self._write

    @property
    def backlog(self) -> int:
        """See `Member`."""
        return self.buffer.size

    @abstractmethod
    def accept_messages(self, messages: list[EncodedMessage]) -> bool:
        """See `Member`."""

    @abstractmethod
    def keepalive(self) -> bytes:
        """Return the bytes that keep the stream alive, sent every `keepalive_s` seconds."""

    def presence_ops(self) -> Iterable[AnyPresenceOp]:
        """See `Announced`."""
        return ()

    def chosen(self) -> Chosen | None:
        """See `Client`."""
        return None

    def add_to_room(self, room: str, on_done: Callable[[ErrorCode | None], None]) -> None:  # noqa: ARG002  # a stream of bare records has none
        """See `Client`."""
        on_done(ErrorCode.CONFLICT)

    def remove_from_room(self, room: str) -> bool:  # noqa: ARG002  # as above
        """See `Client`."""
        return False

    def figures(self) -> Figures:
        """See `Client`. A stream's client sends nothing after its request."""
        return Figures(
            transport="sse",
            opened_at=self.opened_at,
            seen_at=self.opened_at,
            address=self.address,
            channels=self.channels,
            messages_in=0,
            bytes_in=UNSET,
            bytes_out=self.bytes_out,
        )

    def notify(self, message: server.ServerMessage) -> None:  # noqa: B027  # a stream of bare records carries none
        """See `Client`."""

    def end_room_tokens(self, revoked: Revoked) -> None:  # noqa: B027
        """See `Client`. Streams have none: tokens must not travel in URLs."""

    @abstractmethod
    def disconnect(self, code: CloseCode, *, retry_after_ms: int | None = None, reason: str = "") -> None:
        """See `Client`."""

    def abort(self) -> None:
        """End the stream with nothing more sent."""
        self.buffer.end()

    def _write(self, data: bytes) -> None:
        if not self.buffer.put(data) and self.buffer.overflowed and not self.buffer.ended:
            self._counters.slow_clients += 1
            self._counters.dropped += 1
            self._counters.limit_hit(Limit.WRITE_BYTES)
            self.disconnect(CloseCode.SLOW_CLIENT)


class MetricsStream(Stream):
    """`/events/metrics`: bare records, one a second. Not present, and without an envelope for other messages."""

    keepalive_s = 10.0

    def accept_messages(self, messages: list[EncodedMessage]) -> bool:
        """Send the record of each message, without its envelope."""
        for outbound in messages:
            if isinstance(outbound.message, server.MetricsUpdate):
                self._write(b"data: " + _encode(outbound.message.data) + b"\n\n")
        return True

    def keepalive(self) -> bytes:
        """Return a comment, which clients ignore."""
        return b": keep-alive\n\n"

    def disconnect(self, code: CloseCode, *, retry_after_ms: int | None = None, reason: str = "") -> None:  # noqa: ARG002  # bare records have no envelope for it
        """End the stream, with the time to reconnect."""
        self.buffer.end(b"" if retry_after_ms is None else b"retry: %d\n\n" % retry_after_ms)


class Membership(Protocol):
    """The rooms of a stream, as the server API changes them."""

    def add(self, room: str, on_done: Callable[[ErrorCode | None], None]) -> None:
        """See `Client.add_to_room`."""

    def remove(self, room: str) -> bool:
        """See `Client.remove_from_room`."""


class EventStream(Stream):
    """`/events`: the messages of channels and rooms as `event: TYPE`, resumable by id."""

    keepalive_s = 5.0

    def __init__(
        self,
        identity: Identity,
        limit: int,
        counters: Counters,
        now_ms: Callable[[], int] = now_ms,
        connection_id: str = "",
    ) -> None:
        super().__init__(identity, limit, counters, connection_id)
        self.positions: dict[str, Position] = {}
        self.rooms: set[str] = set()
        self.announced = False  # present: with rooms or an inbox
        self.membership: Membership | None = None  # once the stream runs
        self._chosen = Chosen()
        self._held: list[EncodedMessage] | None = None
        self._now_ms = now_ms
        self._opened_at = now_ms()

    def accept_messages(self, messages: list[EncodedMessage]) -> bool:
        """Send messages one by one where their ids are this stream's own; decline where nothing has an id."""
        if not self.positions and self._held is None:
            return False
        for outbound in messages:
            if self._held is not None and outbound.seq and outbound.topic == INBOX_TOPIC:
                self._held.append(outbound)
            else:
                self.send(outbound)
        return True

    def hold_inbox(self) -> None:
        """Keep personal messages back until the missed ones were sent."""
        self._held = []

    def release_inbox(self) -> None:
        """Send what was kept back."""
        held, self._held = self._held or [], None
        for outbound in held:
            self.send(outbound)

    def send(self, outbound: EncodedMessage) -> None:
        """Send one message, with an id if it moves this stream's position."""
        message = outbound.message
        # A room that the server API joined has no position here: the stream cannot be resumed in it.
        if (
            isinstance(message, server.JoinedRoom)
            and isinstance(message.epoch, str)
            and message.room in self.positions
        ):
            # This gateway lost messages of a room, which are in the log no more.
            self.reset([message.room], "lost")
            self.positions[message.room] = Position(message.epoch, message.seq or 0)
            self._write(self._with_id(outbound))
            return
        position = self.positions.get(outbound.topic) if outbound.seq else None
        if position is None:
            self._write(outbound.encode(Encoding.SSE))
            return
        self.positions[outbound.topic] = Position(position.epoch, outbound.seq)
        self._write(self._with_id(outbound))

    def start_topic(
        self, topic: str, position: Position, missed: list[EncodedMessage], notice: EncodedMessage
    ) -> None:
        """Begin a log at a position: a notice that carries the id, after what was missed."""
        events = []
        for outbound in missed:
            self.positions[topic] = Position(position.epoch, outbound.seq)
            events.append(self._with_id(outbound))
        self.positions[topic] = position
        events.append(self._with_id(notice))
        self.buffer.put_recovery(b"".join(events))

    def reset(self, topics: list[str], reason: str) -> None:
        """Say in band that these topics could not be resumed: what was missed is not coming."""
        self._write(sse_event("reset", _encode({"type": "reset", "topics": topics, "reason": reason})))

    def keepalive(self) -> bytes:
        """Return the heartbeat event."""
        return sse_event("heartbeat", _encode({"timestamp": self._now_ms(), "message": "still here"}))

    def presence_ops(self) -> Iterable[AnyPresenceOp]:
        """See `Announced`. A stream with rooms or an inbox makes its user present."""
        if self.announced:
            yield Connected(
                connection_id=self.connection_id,
                user_id=self.user_id,
                username=self.identity.username,
                idle_ms=self._now_ms() - self._opened_at,
            )
            for room in self.rooms:
                yield Joined(connection_id=self.connection_id, room=room)
            yield from self._chosen.ops(self.connection_id, time.monotonic())

    def add_to_room(self, room: str, on_done: Callable[[ErrorCode | None], None]) -> None:
        """See `Client`."""
        if self.membership is None:
            on_done(ErrorCode.CONFLICT)
        else:
            self.membership.add(room, on_done)

    def remove_from_room(self, room: str) -> bool:
        """See `Client`."""
        return self.membership is not None and self.membership.remove(room)

    def chosen(self) -> Chosen | None:
        """See `Client`."""
        return self._chosen if self.announced else None

    def disconnect(self, code: CloseCode, *, retry_after_ms: int | None = None, reason: str = "") -> None:
        """Send `disconnect` and end the stream. `retry` sets the time after which an EventSource reconnects."""
        head = b"" if retry_after_ms is None else b"retry: %d\n" % retry_after_ms
        message = disconnect_message(code, retry_after_ms, reason)
        self.buffer.end(head + sse_event("disconnect", _encode(message)))

    def _with_id(self, outbound: EncodedMessage) -> bytes:
        tag = str(outbound.message.__struct_config__.tag)
        return sse_event(tag, outbound.json, encode_id(self.positions))

    def notify(self, message: server.ServerMessage) -> None:
        """Send a message that belongs to no topic."""
        self._write(EncodedMessage(message).encode(Encoding.SSE))
