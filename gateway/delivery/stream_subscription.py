"""Subscription to one log (a room, an inbox): live messages in order, with gaps filled from the stream.

The subscription to the republished subject exists before the position is known, so that no message falls between.
Ephemeral logs have no stream: their messages are delivered as they arrive.
"""

import asyncio
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import msgspec
import structlog

from gateway.delivery.counters import Counters
from gateway.delivery.encoded_message import EncodedMessage
from gateway.delivery.fanout import Fanout
from gateway.delivery.reads import Reads
from gateway.delivery.recovery import Kept, has_anchor, is_contiguous
from gateway.delivery.sequencer import Sequencer
from gateway.delivery.streams import Streams
from services.backoff import Backoff
from services.bus.client import Bus, BusMessage
from services.bus.errors import BusError, Unavailable
from services.bus.streams import Batch, DurableLog
from services.settings import Settings
from services.tasks import TaskSet
from services.wire.records import Position
from services.wire.subjects import stored_subject

log = structlog.get_logger(__name__)

_FILL_BATCH = 256
_FILL_RETRY_S = 0.1
_FILL_RETRY_MAX_S = 2.0
_FRUITLESS_FILLS = 3  # a replica may lag; what so many reads do not find is gone
_FILL_WAIT_S = 3.0

# The sequences of a republished message, in its headers.
_SEQUENCES = re.compile(rb"\r\nNats-(Last-)?Sequence: (\d+)(?=\r\n)").findall


class Delivery(msgspec.Struct, frozen=True, eq=False):
    """A message for all members but the connection `skip_connection`, if that is one of the user `sender` (None: of any)."""

    message: EncodedMessage
    skip_connection: str = ""
    sender: str | None = ""


# Turns a stored or republished payload and its sequence (0: none) into a delivery.
Decode = Callable[[bytes, int], Delivery]

# Returns the notice to members that messages before this position are lost: the stream has them no more.
OnGap = Callable[[Position], EncodedMessage]


@dataclass(frozen=True, slots=True)
class DeliveryParts:
    """The parts of a gateway that its rooms, inboxes and their subscriptions share."""

    bus: Bus
    streams: Streams
    settings: Settings
    tasks: TaskSet
    counters: Counters
    reads: Reads


class StreamSubscription:
    """The live end of one log on this gateway, and its members."""

    __slots__ = (
        "_away_since",
        "_catch_up_buffers",
        "_decode",
        "_epoch",
        "_fill_task",
        "_live_subject",
        "_on_gap",
        "_paused",
        "_sequencer",
        "_stored_last",
        "_subscription",
        "durable_log",
        "fanout",
        "is_open",
        "parts",
    )  # fmt: skip

    def __init__(
        self,
        parts: DeliveryParts,
        durable_log: DurableLog | None,
        live_subject: str,
        decode: Decode,
        on_gap: OnGap | None = None,
    ) -> None:
        self.parts = parts
        self.durable_log = durable_log  # None for ephemeral logs
        self._live_subject = live_subject
        self._decode = decode
        self._stored_last = 0  # known to be stored: a read waits for a replica that lags behind it
        self._on_gap = on_gap
        self._epoch = ""
        # Until the position is known all messages are held, as in a gap.
        self._sequencer: Sequencer[Delivery | None] = Sequencer(0, filling=True)
        # Made for the first member that catches up.
        self._catch_up_buffers: list[list[tuple[int, EncodedMessage]]] | None = None
        self._fill_task: asyncio.Task[None] | None = None
        self._paused = False
        self._away_since: float | None = None  # loop time since when messages may be missing unnoticed
        self.fanout = Fanout(parts.counters, counts=True)
        self.is_open = False
        self._subscription = parts.bus.subscribe(live_subject, self)

    @property
    def stored_subject(self) -> str:
        """The subject under which the stream keeps this log."""
        return stored_subject(self._live_subject)

    @property
    def position(self) -> Position | None:
        """Everything up to here was sent to the members. None for ephemeral logs."""
        return None if self.durable_log is None else Position(self._epoch, self._sequencer.position)

    def open_at(self, seq: int) -> None:
        """Start delivering the messages after `seq`."""
        self.is_open = True
        if self.durable_log is not None:
            self._epoch = self.durable_log.epoch
            self._sequencer.position = seq
            self._deliver_all(self._sequencer.on_filled([], complete=True))
            self._fill_if_needed()

    def close(self) -> None:
        self.is_open = False
        self._subscription.close()
        self._stop_filling()

    def pause(self) -> None:
        """Deliver nothing until `resume`: the bus is away, and may return with another stream."""
        if self.durable_log is not None:
            self._paused = True
            if self._away_since is None:
                self._away_since = asyncio.get_running_loop().time()
            self._sequencer.mark_gap()
            self._stop_filling()

    # --- search for messages that were lost unnoticed (`gateway.delivery.resync`) ---

    def resume(self) -> None:
        """Continue after the bus was away or the stream changed its leader; the log is open again.

        A message that directly follows the last delivered one proves that nothing was lost, and is delivered. A
        message behind a gap starts a fill. Without either the log is `unsure`, until its last message was checked.
        """
        self._paused = False
        if self.durable_log is None or not self.is_open:
            return
        if self.durable_log.epoch != self._epoch:
            self._start_epoch(self.durable_log.epoch)
            return
        if self._is_filling:  # its read may be older than the loss
            self._stop_filling()
            self._sequencer.mark_gap()
        else:
            self._deliver_all(self._sequencer.resume())
        self._fill_if_needed()

    @property
    def unsure(self) -> bool:
        """Whether messages may have been lost unnoticed, and no fill reads them."""
        if not self.is_open or self._paused:
            return False
        sequencer = self._sequencer
        return sequencer.unsure or (sequencer.filling and not self._is_filling)

    def check_last(self, last: int) -> bool:
        """Compare with the log's last sequence in the stream (0: none); False if only `settle` can decide."""
        if not self.unsure:
            return True
        if last > self._sequencer.position:
            self._stored_last = last
            self._sequencer.mark_gap()
            self._fill_if_needed()
        elif last and last == self._sequencer.position:
            self._settled()
        else:
            return False
        return True

    def settle(self, kept: Kept) -> None:
        """Decide by what the stream keeps; it has nothing of this log after the position."""
        if not self.unsure:
            return
        if not is_contiguous(self._sequencer.position, [], pending=0, kept=kept, away_s=self._away_s):
            self._sequencer.position = kept.last
            self._notify_gap()
        self._settled()

    def _settled(self) -> None:
        self._deliver_all(self._sequencer.on_filled([], complete=True))
        self._away_since = None
        self._fill_if_needed()

    @property
    def _away_s(self) -> float:
        return 0.0 if self._away_since is None else asyncio.get_running_loop().time() - self._away_since

    # --- members that catch up (`gateway.delivery.catch_up`) ---

    @contextmanager
    def copying_live(self) -> Iterator[list[tuple[int, EncodedMessage]]]:
        """Copy what is delivered meanwhile, with its sequences, for a member that still reads older messages."""
        copies: list[tuple[int, EncodedMessage]] = []
        buffers = self._catch_up_buffers = self._catch_up_buffers or []
        buffers.append(copies)
        try:
            yield copies
        finally:
            buffers[:] = [other for other in buffers if other is not copies]

    async def advance_to(self, seq: int) -> None:
        """Advance to the position of a member whose last gateway was ahead of this one.

        Otherwise the member would receive messages again, live.

        Raises:
            Unavailable: the stream was not read up to there in time.
        """
        if self._sequencer.position >= seq:
            return
        self._sequencer.mark_gap()
        self._fill_if_needed()
        if self._fill_task is not None:
            await asyncio.wait((self._fill_task,), timeout=_FILL_WAIT_S)
        if self._sequencer.filling:
            raise Unavailable("this gateway has not read the stream up to there yet")
        # All of this log up to the stream's end was delivered: where it is quiet, its last message is older.
        self._sequencer.position = max(self._sequencer.position, seq)

    def decoded(self, data: bytes, seq: int) -> Delivery | None:
        """Decode a stored message; None, and a log line, for one that is not readable."""
        try:
            return self._decode(data, seq)
        except (msgspec.DecodeError, RecursionError) as fault:
            self._log_unreadable(seq, fault)
            return None

    # --- live messages ---

    def __call__(self, message: BusMessage) -> None:
        """Handle a live message. `bus.subscribe` gets the object itself: a bound method each would cost memory."""
        seq = last_seq = 0
        for last, digits in _SEQUENCES(message.headers_raw):
            if last:
                last_seq = last_seq or int(digits)
            else:
                seq = seq or int(digits)
        if seq == 0 and self.durable_log is not None:
            # Published past the stream, so not stored: clients could not distinguish it from a stored one.
            self.parts.counters.unexpected += 1
            log.error("message without a sequence in a durable log dropped", subject=self._live_subject)
            return
        delivery: Delivery | None = None
        try:
            delivery = self._decode(message.data, seq)
        except (msgspec.DecodeError, RecursionError) as fault:
            self._log_unreadable(seq, fault)
        if self.durable_log is None:
            self._deliver_all([delivery])
            return
        # An unreadable message counts in the order too: without it a gap would never close.
        self._deliver_all(self._sequencer.on_live(seq, last_seq, delivery))
        if self._sequencer.filling:
            self._fill_if_needed()

    def _log_unreadable(self, seq: int, fault: Exception) -> None:
        log.error(
            "message on the bus is not readable", subject=self._live_subject, seq=seq, reason=str(fault)
        )

    def _deliver_all(self, ready: list[Delivery | None]) -> None:
        for delivery in ready:
            if delivery is None:
                continue
            message = delivery.message
            if self._catch_up_buffers and message.seq:
                for buffer in self._catch_up_buffers:
                    buffer.append((message.seq, message))
            self.fanout.send(message, delivery.skip_connection, delivery.sender)

    # --- gaps ---

    def _fill_if_needed(self) -> None:
        if not self._sequencer.filling or self._paused or not self.is_open or self.durable_log is None:
            return
        if not self._is_filling:
            fill = self._fill(self.durable_log)
            self._fill_task = self.parts.tasks.spawn(fill, f"fill {self._live_subject}")

    @property
    def _is_filling(self) -> bool:
        return self._fill_task is not None and not self._fill_task.done()

    def _stop_filling(self) -> None:
        if self._fill_task is not None:
            self._fill_task.cancel()
            self._fill_task = None

    async def _fill(self, durable_log: DurableLog) -> None:
        """Read from the stream until no gap is left; with backoff while the stream cannot be read."""
        backoff, fruitless = Backoff(_FILL_RETRY_S, _FILL_RETRY_MAX_S), 0
        while self._sequencer.filling:
            before = self._sequencer.position
            try:
                async with self.parts.reads.fills:
                    await self._fill_once(durable_log)
            except BusError as fault:
                log.warning("gap not filled yet", subject=self._live_subject, reason=str(fault))
            else:
                if self._sequencer.position > before:
                    backoff.reset()
                    fruitless = 0
                    continue
                fruitless += 1
                if self._sequencer.filling and fruitless >= _FRUITLESS_FILLS:
                    self._sequencer.skip_gap()
                    self._notify_gap()
                    self._deliver_all(self._sequencer.on_filled([], complete=True))
            if self._sequencer.filling:
                await backoff.wait()

    async def _fill_once(self, durable_log: DurableLog) -> None:
        """Read on from the position, and notify members if messages since then are lost."""
        if durable_log.epoch != self._epoch:
            self._start_epoch(durable_log.epoch)
        # From the position itself: as long as its message is there, nothing after it was evicted.
        stored_last = max(self._stored_last, self._sequencer.newest_held)
        batch = await durable_log.read_from(
            self.stored_subject, self._sequencer.position, _FILL_BATCH, stored_last=stored_last
        )
        if not await self._is_contiguous(batch, durable_log):
            self._sequencer.position = batch.messages[0].seq - 1 if batch.messages else batch.last_seq
            self._notify_gap()
        stored = [(message.seq, self.decoded(message.data, message.seq)) for message in batch.messages]
        self._deliver_all(self._sequencer.on_filled(stored, complete=batch.complete))
        if not self._sequencer.filling:
            self._away_since = None
            self._stored_last = 0

    def _start_epoch(self, epoch: str) -> None:
        """Follow a new epoch of the stream from its start.

        Members are notified before anything is awaited: a failed read must not leave them in the old epoch. A member
        that joins meanwhile has the new epoch in its own answer.
        """
        self._epoch = epoch
        self._stored_last = 0
        self._sequencer.reset(0)
        self._notify_gap()

    async def _is_contiguous(self, batch: Batch, durable_log: DurableLog) -> bool:
        found = [message.seq for message in batch.messages]
        position = self._sequencer.position
        if has_anchor(position, found):
            return True
        return is_contiguous(
            position, found, pending=batch.pending, kept=await kept_by(durable_log), away_s=self._away_s
        )

    def _notify_gap(self) -> None:
        position = Position(self._epoch, self._sequencer.position)
        log.warning("messages are lost", subject=self._live_subject, epoch=position.epoch, seq=position.seq)
        if self._on_gap is not None:
            self.fanout.send(self._on_gap(position))


async def kept_by(durable_log: DurableLog) -> Kept:
    """Read what a stream keeps. Raises BusError."""
    state = await durable_log.state()
    return Kept(
        first=state.first_held,
        last=state.last_seq,
        oldest_s=state.oldest_s,
        log_size=durable_log.max_per_subject,
        max_age_s=durable_log.max_age_s,
        least_until_full=durable_log.least_until_full,
    )
