"""Following one log (a room, an inbox): live messages in order, gaps filled, members caught up.

A subscription subscribes to the republished subject first and then learns its position, so that nothing falls between.
Ephemeral logs have no stream: their messages are delivered as they come.
"""

import asyncio
import re
from collections.abc import Callable
from dataclasses import dataclass, field

import msgspec
import structlog

from gateway.delivery.counters import Counters
from gateway.delivery.encoded_message import EncodedMessage
from gateway.delivery.fanout import Fanout
from gateway.delivery.reads import Reads
from gateway.delivery.recovery import Kept, RecoveryVerdict, has_anchor, is_contiguous, recovery_verdict
from gateway.delivery.sequencer import Sequencer
from services.backoff import Backoff
from services.bus.client import Bus, BusMessage
from services.bus.errors import BusError, Unavailable
from services.bus.streams import Batch, DurableLog
from services.tasks import TaskSet
from services.wire.records import Position
from services.wire.subjects import stored_subject

log = structlog.get_logger(__name__)

_FILL_BATCH = 256
_FILL_RETRY_S = 0.1
_FILL_RETRY_MAX_S = 2.0
_FRUITLESS_FILLS = 3  # a replica may lag; what is not there after so many looks is gone
_FILL_WAIT_S = 3.0
_CATCH_UP_S = 5.0  # for several requests with limits of their own: a join is answered within 10 s


# The sequences of a republished message, in its headers.
_SEQUENCES = re.compile(rb"\r\nNats-(Last-)?Sequence: (\d+)(?=\r\n)").findall


class Delivery(msgspec.Struct, frozen=True, eq=False):
    """A message for the members, but for one connection, if that is one of the user `sender`."""

    message: EncodedMessage
    skip_connection: str = ""
    sender: str = ""


# Turns a stored or republished payload and its sequence (0: none) into a delivery.
Decode = Callable[[bytes, int], Delivery]

# What to tell members when messages before this position are lost to them; they are in the stream no more.
OnGap = Callable[[Position], EncodedMessage]


@dataclass(slots=True)
class CatchUp:
    """What a returning member missed: everything up to the subscription's position, or nothing and why."""

    verdict: RecoveryVerdict
    missed: list[EncodedMessage] = field(default_factory=list)
    size: int = 0  # bytes that were read for it


class StreamSubscription:
    """The live end of one log on this gateway, and the members who receive it."""

    __slots__ = (
        "_away_since",
        "_bus",
        "_catch_up_buffers",
        "_counters",
        "_decode",
        "_epoch",
        "_fill_task",
        "_live_subject",
        "_log",
        "_on_gap",
        "_paused",
        "_reads",
        "_sequencer",
        "_stored_last",
        "_subscription",
        "_tasks",
        "fanout",
        "is_open",
    )  # fmt: skip

    def __init__(
        self,
        bus: Bus,
        durable_log: DurableLog | None,
        *,
        live_subject: str,
        decode: Decode,
        tasks: TaskSet,
        counters: Counters,
        reads: Reads,
        on_gap: OnGap | None = None,
    ) -> None:
        self._bus = bus
        self._log = durable_log
        self._live_subject = live_subject
        self._decode = decode
        self._tasks = tasks
        self._counters = counters
        self._reads = reads
        self._stored_last = 0  # what the stream is known to have stored: a replica that lags is waited for
        self._on_gap = on_gap
        self._epoch = ""
        # Until the position is known everything waits, as in a gap.
        self._sequencer: Sequencer[Delivery | None] = Sequencer(0, filling=True)
        self._catch_up_buffers: list[list[tuple[int, EncodedMessage]]] | None = (
            None  # made for the first to catch up
        )
        self._fill_task: asyncio.Task[None] | None = None
        self._paused = False
        self._away_since: float | None = None  # loop time since when messages may be missing unseen
        self.fanout = Fanout(counters)
        self.is_open = False
        self._subscription = bus.subscribe(live_subject, self)

    @property
    def stored_subject(self) -> str:
        """The subject under which the stream keeps this log."""
        return stored_subject(self._live_subject)

    @property
    def durable_log(self) -> DurableLog | None:
        """The stream, None for ephemeral logs."""
        return self._log

    @property
    def position(self) -> Position | None:
        """Where members stand: everything up to here was sent to them. None for ephemeral logs."""
        return None if self._log is None else Position(self._epoch, self._sequencer.position)

    def open_at(self, seq: int) -> None:
        """Start delivering what came after `seq`."""
        self.is_open = True
        if self._log is not None:
            self._epoch = self._log.epoch
            self._sequencer.position = seq
            self._deliver_all(self._sequencer.on_filled([], complete=True))
            self._fill_if_needed()

    def close(self) -> None:
        """Stop following."""
        self.is_open = False
        self._subscription.close()
        self._stop_filling()

    def pause(self) -> None:
        """Deliver nothing until `resync`: the bus is away, and what it carries first may be another stream's."""
        if self._log is not None:
            self._paused = True
            if self._away_since is None:
                self._away_since = asyncio.get_running_loop().time()
            self._sequencer.mark_gap()
            self._stop_filling()

    # --- looking for messages that were lost unseen (`gateway.delivery.resync`) ---

    def resume(self) -> None:
        """Go on after the bus was away or the stream has got another leader; the log is open again.

        A message that follows the last one delivered without a gap shows that nothing was lost, and goes out. What
        shows a gap is read from the stream. Else the log is `unsure`, and its last message has to be looked at.
        """
        self._paused = False
        if self._log is None or not self.is_open:
            return
        if self._log.epoch != self._epoch:
            self._begin_epoch(self._log.epoch)
            return
        if self._is_filling:  # what it has read may be older than what was lost
            self._stop_filling()
            self._sequencer.mark_gap()
        else:
            self._deliver_all(self._sequencer.resume())
        self._fill_if_needed()

    @property
    def unsure(self) -> bool:
        """Whether messages may have been lost unseen, and nobody is reading them."""
        if not self.is_open or self._paused:
            return False
        sequencer = self._sequencer
        return sequencer.unsure or (sequencer.filling and not self._is_filling)

    def look(self, last: int) -> bool:
        """Take in that `last` is the log's last message in the stream (0: it has none).

        Return whether that settles it; else what the stream keeps has to be looked at, and `settle` called.
        """
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
        """Take in that nothing is stored after the position, and what the stream keeps."""
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

    async def catch_up(self, since: Position, *, cap: int, max_bytes: int, packed: bool = False) -> CatchUp:
        """Read what came after `since`, at most `cap` and `max_bytes`, up to the subscription's position at the return.

        `packed`: what was read is MessagePack already then, one message in each turn of the loop.

        The caller adds the member before it awaits anything else: what is delivered later then reaches it live.

        Raises:
            BusError: the stream could not be read.
        """
        try:
            async with asyncio.timeout(_CATCH_UP_S):
                return await self._catch_up(since, cap, max_bytes, packed=packed)
        except TimeoutError:
            raise Unavailable("the stream could not be read in time") from None

    async def _catch_up(self, since: Position, cap: int, max_bytes: int, *, packed: bool) -> CatchUp:
        durable_log = self._log
        if durable_log is None or since.epoch != durable_log.epoch:
            return CatchUp(RecoveryVerdict.OTHER_EPOCH)
        buffer: list[tuple[int, EncodedMessage]] = []
        buffers = self._catch_up_buffers = [] if self._catch_up_buffers is None else self._catch_up_buffers
        buffers.append(buffer)
        found: dict[int, EncodedMessage] = {}
        try:
            batch = await durable_log.read_from(self.stored_subject, since.seq, cap + 2, max_bytes)
            verdict = await self._verdict_on(durable_log, since.seq, batch, cap)
            if verdict is RecoveryVerdict.RECOVERED:
                await self._advance_to(since.seq)
                found = await self._read_back(batch, since.seq, packed=packed)
        finally:
            buffers[:] = [other for other in buffers if other is not buffer]
        size = sum(len(message.data) for message in batch.messages)
        if since.epoch != self._epoch:
            return CatchUp(RecoveryVerdict.OTHER_EPOCH, size=size)
        if verdict is not RecoveryVerdict.RECOVERED:
            return CatchUp(verdict, size=size)
        missed = {seq: message for seq, message in found.items() if seq <= self._sequencer.position}
        missed.update((seq, message) for seq, message in buffer if seq > since.seq)
        return CatchUp(verdict, [missed[seq] for seq in sorted(missed)], size)

    async def _read_back(self, batch: Batch, since: int, *, packed: bool) -> dict[int, EncodedMessage]:
        found: dict[int, EncodedMessage] = {}
        for message in batch.messages:
            if message.seq > since and (delivery := self._decoded(message.data, message.seq)) is not None:
                found[message.seq] = delivery.message
                if packed:
                    await self._reads.pack(delivery.message)
        return found

    async def _verdict_on(
        self, durable_log: DurableLog, since: int, batch: Batch, cap: int
    ) -> RecoveryVerdict:
        found = [message.seq for message in batch.messages]
        first = 0
        if not has_anchor(since, found) and since < batch.last_seq:
            first = (await durable_log.state()).first_held
        return recovery_verdict(
            since,
            found,
            complete=batch.complete,
            stream_first=first,
            stream_last=batch.last_seq,
            log_size=durable_log.max_per_subject,
            cap=cap,
        )

    async def _advance_to(self, seq: int) -> None:
        """Come to where a member already is: it was on another gateway, which was ahead of this one.

        Otherwise what it has seen there would reach it here again, live.
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

    # --- live messages ---

    def __call__(self, message: BusMessage) -> None:
        """Take a live message: what the subscription calls, without a bound method for each subscription."""
        seq = last_seq = 0
        for last, digits in _SEQUENCES(message.headers_raw):
            if last:
                last_seq = last_seq or int(digits)
            else:
                seq = seq or int(digits)
        if seq == 0 and self._log is not None:
            # What no stream stored was published past it: clients could not tell it from a message that was.
            self._counters.unexpected += 1
            log.error("message without a sequence in a durable log dropped", subject=self._live_subject)
            return
        delivery: Delivery | None = None
        try:
            delivery = self._decode(message.data, seq)
        except (msgspec.DecodeError, RecursionError) as fault:
            self._log_unreadable(seq, fault)
        if self._log is None:
            self._deliver_all([delivery])
            return
        # One that cannot be decoded still has a place in the order: without it a gap would never close.
        self._deliver_all(self._sequencer.on_live(seq, last_seq, delivery))
        if self._sequencer.filling:
            self._fill_if_needed()

    def _decoded(self, data: bytes, seq: int) -> Delivery | None:
        try:
            return self._decode(data, seq)
        except (msgspec.DecodeError, RecursionError) as fault:
            self._log_unreadable(seq, fault)
            return None

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
        if not self._sequencer.filling or self._paused or not self.is_open or self._log is None:
            return
        if not self._is_filling:
            self._fill_task = self._tasks.spawn(self._fill(self._log), f"fill {self._live_subject}")

    @property
    def _is_filling(self) -> bool:
        return self._fill_task is not None and not self._fill_task.done()

    def _stop_filling(self) -> None:
        if self._fill_task is not None:
            self._fill_task.cancel()
            self._fill_task = None

    async def _fill(self, durable_log: DurableLog) -> None:
        """Read from the stream until no gap is left; wait longer each time the stream cannot be read."""
        backoff, fruitless = Backoff(_FILL_RETRY_S, _FILL_RETRY_MAX_S), 0
        while self._sequencer.filling:
            before = self._sequencer.position
            try:
                async with self._reads.fills:
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
                    self._give_up()
            if self._sequencer.filling:
                await backoff.wait()

    async def _fill_once(self, durable_log: DurableLog) -> None:
        """Read on from the position, and tell members if what was stored since then is not all there."""
        if durable_log.epoch != self._epoch:
            self._begin_epoch(durable_log.epoch)
        # From the position itself: as long as its message is there, nothing after it was evicted.
        stored_last = max(self._stored_last, self._sequencer.newest_held)
        batch = await durable_log.read_from(
            self.stored_subject, self._sequencer.position, _FILL_BATCH, stored_last=stored_last
        )
        if not await self._is_contiguous(batch, durable_log):
            self._sequencer.position = batch.messages[0].seq - 1 if batch.messages else batch.last_seq
            self._notify_gap()
        stored = [(message.seq, self._decoded(message.data, message.seq)) for message in batch.messages]
        self._deliver_all(self._sequencer.on_filled(stored, complete=batch.complete))
        if not self._sequencer.filling:
            self._away_since = None
            self._stored_last = 0

    def _begin_epoch(self, epoch: str) -> None:
        """Follow another life of the stream from its beginning.

        Members are notified before anything is awaited: a read that fails must not leave them in the old epoch. A member
        that joins meanwhile learns of it from its own answer.
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

    def _give_up(self) -> None:
        self._sequencer.skip_gap()
        self._notify_gap()
        self._deliver_all(self._sequencer.on_filled([], complete=True))

    def _notify_gap(self) -> None:
        position = Position(self._epoch, self._sequencer.position)
        log.warning("messages are lost", subject=self._live_subject, epoch=position.epoch, seq=position.seq)
        if self._on_gap is not None:
            self.fanout.send(self._on_gap(position))


async def kept_by(durable_log: DurableLog) -> Kept:
    """Ask what a stream keeps. Raises BusError."""
    state = await durable_log.state()
    return Kept(
        first=state.first_held,
        last=state.last_seq,
        oldest_s=state.oldest_s,
        log_size=durable_log.max_per_subject,
        max_age_s=durable_log.max_age_s,
        least_until_full=durable_log.least_until_full,
    )
