"""Catching up: the messages before a member's first live one. What it missed since its position, or the newest.

Live messages that arrive during the read are copied, so that nothing falls between the read and the membership.
"""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from gateway.delivery.encoded_message import EncodedMessage
from gateway.delivery.fanout import Member
from gateway.delivery.newest import MeasuredLog, read_newest
from gateway.delivery.recovery import RecoveryVerdict, has_anchor, recovery_verdict
from gateway.delivery.stream_subscription import StreamSubscription
from services.bus.errors import Unavailable
from services.bus.jsapi import StoredMessage
from services.bus.streams import Batch, DurableLog
from services.wire.records import Position

_TIMEOUT_S = 5.0  # of several requests with timeouts of their own: a join is answered within 10 s


@dataclass(slots=True)
class CatchUp:
    """What a returning member missed: everything up to the subscription's position, or nothing and why."""

    verdict: RecoveryVerdict
    missed: list[EncodedMessage] = field(default_factory=list)
    size: int = 0  # bytes read for it


@dataclass(frozen=True, slots=True)
class JoinHistory:
    """The newest stored messages, up to the subscription's position; `size` is the bytes read for them."""

    messages: list[EncodedMessage] = field(default_factory=list)
    size: int = 0


async def recover(subscription: StreamSubscription, member: Member, since: Position) -> CatchUp:
    """Read what `member` missed since a position, within the limits of the gateway, and count the verdict.

    The caller adds the member before it awaits anything else: later messages then reach it live.

    Raises:
        BusError: no slot for the read in time, or the stream could not be read.
    """
    parts = subscription.parts
    async with _reading(subscription):
        found = await catch_up(
            subscription,
            since,
            cap=parts.settings.recovery_limit,
            max_bytes=parts.settings.recovery_max_bytes,
            packed=member.encoding.packed,
        )
    parts.counters.recoveries[found.verdict] += 1
    return found


async def read_history(subscription: StreamSubscription, member: Member, limit: int) -> JoinHistory:
    """Read the newest messages for `member`, at most `limit`, within the limits of a recovery.

    Fewer if they are more than `recovery_max_bytes` together, but at least one. The caller adds the member before it
    awaits anything else: later messages then reach it live.

    Raises:
        BusError: no slot for the read in time, or the stream could not be read.
    """
    durable_log, parts = subscription.durable_log, subscription.parts
    if durable_log is None or not limit:
        return JoinHistory()
    async with _reading(subscription):
        measured, epoch = MeasuredLog(durable_log), durable_log.epoch
        with subscription.copying_live() as live:
            _, stored = await read_newest(
                measured, subscription.stored_subject, limit, None, parts.settings.recovery_max_bytes
            )
            found = await _decode(subscription, stored, packed=member.encoding.packed)
        position = subscription.position
        if position is None or position.epoch != epoch:
            raise Unavailable("the stream is another one since the read began")
        # What is stored beyond the position reaches the member live.
        found = {seq: message for seq, message in found.items() if seq <= position.seq} | dict(live)
        return JoinHistory([found[seq] for seq in sorted(found)[-limit:]], measured.size)


@asynccontextmanager
async def _reading(subscription: StreamSubscription) -> AsyncIterator[None]:
    """Hold a slot for reading the stream of an open subscription. Raises BusError."""
    parts = subscription.parts
    async with parts.reads.recovery():
        parts.streams.require_open()
        if not subscription.is_open:
            raise Unavailable("the last member has left meanwhile")
        try:
            async with asyncio.timeout(_TIMEOUT_S):
                yield
        except TimeoutError:
            raise Unavailable("the stream could not be read in time") from None


async def _decode(
    subscription: StreamSubscription, stored: Sequence[StoredMessage], *, packed: bool
) -> dict[int, EncodedMessage]:
    """Return the readable ones of stored messages, by sequence."""
    found: dict[int, EncodedMessage] = {}
    for each in stored:
        delivery = subscription.decoded(each.data, each.seq)
        if delivery is not None:
            found[each.seq] = delivery.message
            if packed:
                await subscription.parts.reads.pack(delivery.message)
    return found


async def catch_up(
    subscription: StreamSubscription, since: Position, *, cap: int, max_bytes: int, packed: bool = False
) -> CatchUp:
    """Read at most `cap` messages and `max_bytes` after `since`. Raises BusError.

    `packed`: they are encoded as MessagePack too, one message in each turn of the loop.
    """
    durable_log = subscription.durable_log
    if durable_log is None or since.epoch != durable_log.epoch:
        return CatchUp(RecoveryVerdict.OTHER_EPOCH)
    found: dict[int, EncodedMessage] = {}
    with subscription.copying_live() as live:
        batch = await durable_log.read_from(subscription.stored_subject, since.seq, cap + 2, max_bytes)
        verdict = await _verdict_on(durable_log, since.seq, batch, cap)
        if verdict is RecoveryVerdict.RECOVERED:
            await subscription.advance_to(since.seq)
            missed = [stored for stored in batch.messages if stored.seq > since.seq]
            found = await _decode(subscription, missed, packed=packed)
    size = sum(len(message.data) for message in batch.messages)
    position = subscription.position
    if position is None or since.epoch != position.epoch:
        return CatchUp(RecoveryVerdict.OTHER_EPOCH, size=size)
    if verdict is not RecoveryVerdict.RECOVERED:
        return CatchUp(verdict, size=size)
    found = {seq: message for seq, message in found.items() if seq <= position.seq}
    found.update((seq, message) for seq, message in live if seq > since.seq)
    return CatchUp(verdict, [found[seq] for seq in sorted(found)], size)


async def _verdict_on(durable_log: DurableLog, since: int, batch: Batch, cap: int) -> RecoveryVerdict:
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
