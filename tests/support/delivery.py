"""Delivery in tests: members that record messages, and a bus and a stream in memory."""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec

from gateway.delivery.encoded_message import EncodedMessage, Encoding
from gateway.delivery.fd_table import NO_FD
from gateway.delivery.stream_subscription import Delivery
from services.bus.errors import BusError, Unavailable
from services.bus.jsapi import StoredMessage, StreamState
from services.bus.specs import StreamSpec
from services.bus.streams import Batch, Newest
from services.wire import server


class Recorder:
    """A member that keeps its writes."""

    fd_ref = NO_FD

    def __init__(self, connection_id: str, user_id: str = "u", encoding: Encoding = Encoding.JSON) -> None:
        self.connection_id = connection_id
        self.user_id = user_id
        self.encoding = encoding
        self.writes: list[bytes] = []
        self.write: Callable[[bytes], None] = self.writes.append

    backlog = 0
    sent_before = 0

    def accept_messages(self, messages: list[EncodedMessage]) -> bool:
        return False

    @property
    def contents(self) -> list[Any]:
        """The content of each room message, and the type of everything else."""
        return [m.get("content", m["type"]) for m in messages_in(b"".join(self.writes))]


def payloads_in(data: bytes) -> list[bytes]:
    """Take unmasked frames apart."""
    found = []
    while data:
        size, at = data[1], 2
        if size == 126:
            size, at = int.from_bytes(data[2:4], "big"), 4
        elif size == 127:
            size, at = int.from_bytes(data[2:10], "big"), 10
        found.append(data[at : at + size])
        data = data[at + size :]
    return found


def messages_in(data: bytes) -> list[dict[str, Any]]:
    """Return what unmasked text frames say."""
    return [msgspec.json.decode(payload) for payload in payloads_in(data)]


def said(content: object, seq: int = 0) -> EncodedMessage:
    message = server.RoomMessage(
        user_id="u", username="U", room="r", content=content, timestamp=1, seq=seq or msgspec.UNSET
    )
    return EncodedMessage(message, "r", seq)


def decode(data: bytes, seq: int) -> Delivery:
    """Payloads are JSON: their content."""
    return Delivery(said(msgspec.json.decode(data), seq))


@dataclass
class FakeMessage:
    """A republished message."""

    seq: int
    last_seq: int
    data: bytes
    subject: str = ""

    @property
    def headers_raw(self) -> bytes:
        return b"NATS/1.0\r\nNats-Sequence: %d\r\nNats-Last-Sequence: %d\r\n\r\n" % (self.seq, self.last_seq)


class FakeBus:
    """Keeps callbacks by subject."""

    def __init__(self) -> None:
        self.callbacks: dict[str, Callable[[Any], None]] = {}

    def subscribe(self, subject: str, on_message: Callable[[Any], None]) -> "FakeSubscription":
        self.callbacks[subject] = on_message
        return FakeSubscription(self, subject)


@dataclass
class FakeSubscription:
    bus: FakeBus
    subject: str

    def close(self) -> None:
        self.bus.callbacks.pop(self.subject, None)


@dataclass(eq=False)
class FakeStream:
    """A stream with limits by number and one log that is read. Sequences are shared with other logs."""

    log_size: int = 100
    epoch: str = "e1"
    last: int = 0
    first_held: int = 1
    stored: dict[int, bytes] = field(default_factory=dict)
    fault: BusError | None = None
    reads: int = 0
    looks: int = 0
    max_age_s: float = 600
    oldest_s: float = 600
    least_until_full: int = 1_000_000

    @property
    def max_per_subject(self) -> int:
        return self.log_size

    @property
    def spec(self) -> StreamSpec:
        return StreamSpec("s", "in.*", self.log_size, 600, 120, 1)

    def store(self, content: object) -> FakeMessage:
        """Store a message of the log, and return it as it is republished."""
        previous = max(self.stored, default=0)
        self.last += 1
        self.stored[self.last] = msgspec.json.encode(content)
        while len(self.stored) > self.log_size:
            del self.stored[min(self.stored)]
        return FakeMessage(self.last, previous, self.stored[self.last])

    def store_elsewhere(self, count: int = 1) -> None:
        self.last += count

    def expire(self, up_to: int) -> None:
        """Evict everything up to a sequence, by age."""
        self.stored = {seq: data for seq, data in self.stored.items() if seq > up_to}
        self.first_held = max(self.first_held, up_to + 1)

    def wipe(self, epoch: str) -> None:
        """Be another stream."""
        self.epoch, self.last, self.first_held = epoch, 0, 1
        self.stored.clear()

    async def read_from(
        self, subject: str, seq: int, limit: int, max_bytes: int = 1 << 20, *, stored_last: int = 0
    ) -> Batch:
        self.reads += 1
        if self.fault is not None:
            raise self.fault
        found = [
            StoredMessage(at, subject, self.stored[at]) for at in sorted(self.stored) if at >= max(1, seq)
        ]
        piece, size = [], 0
        for message in found[:limit]:
            piece.append(message)
            size += len(message.data)
            if size > max_bytes:
                break
        await asyncio.sleep(0)  # on its way
        return Batch(piece, piece[-1].seq if piece else self.last, len(found) - len(piece))

    asked: int = 0
    """How often it was asked where it stands."""

    async def state(self) -> StreamState:
        if self.fault is not None:
            raise self.fault
        now = datetime(2026, 1, 1, tzinfo=UTC)
        return StreamState(
            messages=1,
            first_seq=self.first_held,
            last_seq=self.last,
            first_ts=now - timedelta(seconds=self.oldest_s),
            at=now,
        )

    async def newest(self) -> Newest:
        self.asked += 1
        if self.fault is not None:
            raise self.fault
        return Newest(self.last, "in.r", self.last)

    async def lasts_of(self, subjects: Sequence[str], newest: Newest) -> dict[str, int]:
        self.looks += 1
        if self.fault is not None:
            raise self.fault
        await asyncio.sleep(0)  # on its way
        return {subject: max(self.stored) for subject in subjects if self.stored}

    async def last_of(self, _subject: str) -> tuple[int, int]:
        return max(self.stored, default=0), self.last

    async def last_seq(self) -> int:
        if self.fault is not None:
            raise self.fault
        return self.last


AWAY = Unavailable("away")
