"""Following one log (a room, an inbox): live messages in order, gaps filled, members caught up.

A follower subscribes to the republished subject first and then learns its position, so that nothing falls between.
Ephemeral logs have no stream: their messages are delivered as they come.
"""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field

import msgspec
import structlog

from gateway.delivery.fanout import Fanout
from gateway.delivery.outbound import Outbound
from gateway.delivery.recovery import Verdict, judge
from gateway.delivery.sequencer import Sequencer
from gateway.delivery.traffic import Traffic
from services.bus.client import Bus, BusMessage
from services.bus.errors import BusError
from services.bus.streams import DurableLog
from services.tasks import TaskSet
from services.wire.records import Position

log = structlog.get_logger(__name__)

_FILL_BATCH = 256
_FILL_RETRY_S = 0.1
_FILL_RETRY_MAX_S = 2.0


@dataclass(frozen=True, slots=True)
class Delivery:
    """A message for the members, and who among them shall not get it: one connection, or one user."""

    message: Outbound
    skip_connection: str = ""
    skip_user: str = ""


# Turns a stored or republished payload and its sequence (0: none) into a delivery.
Decode = Callable[[bytes, int], Delivery]


@dataclass(slots=True)
class CatchUp:
    """What a returning member missed: everything up to the follower's position, or nothing and why."""

    verdict: Verdict
    missed: list[Outbound] = field(default_factory=list)


class Follower:
    """The live end of one log on this gateway, and the members who receive it."""

    __slots__ = (
        "_bus", "_decode", "_fill_task", "_live_subject", "_log", "_sequencer", "_stored_subject",
        "_subscription", "_tails", "_tasks", "fanout", "is_open",
    )  # fmt: skip

    def __init__(
        self,
        bus: Bus,
        durable_log: DurableLog | None,
        *,
        live_subject: str,
        stored_subject: str,
        decode: Decode,
        tasks: TaskSet,
        traffic: Traffic,
    ) -> None:
        self._bus = bus
        self._log = durable_log
        self._live_subject = live_subject
        self._stored_subject = stored_subject
        self._decode = decode
        self._tasks = tasks
        # Until the position is known everything waits, as in a gap.
        self._sequencer: Sequencer[Delivery | None] = Sequencer(0, filling=True)
        self._tails: list[list[tuple[int, Outbound]]] = []
        self._fill_task: asyncio.Task[None] | None = None
        self.fanout = Fanout(traffic)
        self.is_open = False
        self._subscription = bus.subscribe(live_subject, self._on_message)

    @property
    def position(self) -> Position | None:
        """Where members stand: everything up to here was sent to them. None for ephemeral logs."""
        return None if self._log is None else Position(self._log.epoch, self._sequencer.position)

    def open_at(self, seq: int) -> None:
        """Start delivering what came after `seq`."""
        self.is_open = True
        if self._log is not None:
            self._sequencer.position = seq
            self._deliver_all(self._sequencer.filled([], complete=True))
            self._fill_if_needed()

    def close(self) -> None:
        """Stop following."""
        self.is_open = False
        self._subscription.close()
        if self._fill_task is not None:
            self._fill_task.cancel()

    def resync(self) -> None:
        """Look for messages that were lost unseen while the bus was away."""
        if self._log is not None and self.is_open:
            self._sequencer.suspect()
            self._fill_if_needed()

    async def catch_up(self, since: Position, *, log_size: int, cap: int) -> CatchUp:
        """Read what came after `since`, up to the follower's position at the moment of return.

        The caller adds the member before it awaits anything else: what is delivered later then reaches it live.

        Raises:
            BusError: the stream could not be read.
        """
        durable_log = self._log
        if durable_log is None or since.epoch != durable_log.epoch:
            return CatchUp(Verdict.OTHER_EPOCH)
        tail: list[tuple[int, Outbound]] = []
        self._tails.append(tail)
        try:
            batch = await durable_log.read_from(self._stored_subject, since.seq, cap + 2)
            found = [message.seq for message in batch.messages]
            first = 0
            if not (found and found[0] == since.seq) and since.seq < batch.last_seq:
                first = await durable_log.first_seq()
        finally:
            self._tails.remove(tail)
        verdict = judge(
            since.seq,
            found,
            complete=batch.complete,
            stream_first=first,
            stream_last=batch.last_seq,
            log_size=log_size,
            cap=cap,
        )
        if verdict is not Verdict.RECOVERED:
            return CatchUp(verdict)
        missed: dict[int, Outbound] = {}
        for message in batch.messages:
            if since.seq < message.seq <= self._sequencer.position:
                delivery = self._decoded(message.data, message.seq)
                if delivery is not None:
                    missed[message.seq] = delivery.message
        missed.update((seq, message) for seq, message in tail if seq > since.seq)
        return CatchUp(verdict, [missed[seq] for seq in sorted(missed)])

    def _on_message(self, message: BusMessage) -> None:
        seq = message.seq
        delivery = self._decoded(message.data, seq)
        if seq == 0 or self._log is None:
            if delivery is not None:
                self._deliver(delivery)
            return
        # One that cannot be decoded still has a place in the order: without it a gap would never close.
        for ready in self._sequencer.live(seq, message.last_seq, delivery):
            if ready is not None:
                self._deliver(ready)
        if self._sequencer.filling and self.is_open:
            self._fill_if_needed()

    def _decoded(self, data: bytes, seq: int) -> Delivery | None:
        try:
            return self._decode(data, seq)
        except (msgspec.DecodeError, RecursionError) as fault:
            log.error(
                "message on the bus is not readable", subject=self._live_subject, seq=seq, reason=str(fault)
            )
            return None

    def _deliver_all(self, ready: list[Delivery | None]) -> None:
        for delivery in ready:
            if delivery is not None:
                self._deliver(delivery)

    def _deliver(self, delivery: Delivery) -> None:
        message = delivery.message
        if self._tails and message.seq:
            for tail in self._tails:
                tail.append((message.seq, message))
        if delivery.skip_user:
            self.fanout.send_except_user(message, delivery.skip_user)
        else:
            self.fanout.send(message, delivery.skip_connection)

    def _fill_if_needed(self) -> None:
        if self._sequencer.filling and (self._fill_task is None or self._fill_task.done()):
            self._fill_task = self._tasks.spawn(self._fill(), f"fill {self._live_subject}")

    async def _fill(self) -> None:
        """Read from the stream until no gap is left; wait longer each time the stream cannot be read."""
        durable_log = self._log
        delay_s = _FILL_RETRY_S
        while durable_log is not None and self._sequencer.filling:
            before = self._sequencer.position
            try:
                batch = await durable_log.read_from(self._stored_subject, before + 1, _FILL_BATCH)
            except BusError as fault:
                log.warning("gap not filled yet", subject=self._live_subject, reason=str(fault))
            else:
                stored = [(m.seq, self._decoded(m.data, m.seq)) for m in batch.messages]
                self._deliver_all(self._sequencer.filled(stored, complete=batch.complete))
                if self._sequencer.position > before:
                    delay_s = _FILL_RETRY_S
                    continue
            if self._sequencer.filling:
                await asyncio.sleep(delay_s)
                delay_s = min(2 * delay_s, _FILL_RETRY_MAX_S)
