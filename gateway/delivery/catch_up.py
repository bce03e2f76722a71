"""Catching up: the messages that a member missed, from its own position up to the subscription's.

Live messages that arrive during the read are copied, so that nothing falls between the read and the membership.
"""

import asyncio
from dataclasses import dataclass, field

from gateway.delivery.encoded_message import EncodedMessage
from gateway.delivery.fanout import Member
from gateway.delivery.recovery import RecoveryVerdict, has_anchor, recovery_verdict
from gateway.delivery.stream_subscription import StreamSubscription
from services.bus.errors import Unavailable
from services.bus.streams import Batch, DurableLog
from services.wire.records import Position

_TIMEOUT_S = 5.0  # of several requests with timeouts of their own: a join is answered within 10 s


@dataclass(slots=True)
class CatchUp:
    """What a returning member missed: everything up to the subscription's position, or nothing and why."""

    verdict: RecoveryVerdict
    missed: list[EncodedMessage] = field(default_factory=list)
    size: int = 0  # bytes read for it


async def recover(subscription: StreamSubscription, member: Member, since: Position) -> CatchUp:
    """Read what `member` missed since a position, within the limits of the gateway, and count the verdict.

    The caller adds the member before it awaits anything else: later messages then reach it live.

    Raises:
        BusError: no slot for the read in time, or the stream could not be read.
    """
    parts = subscription.parts
    async with parts.reads.recovery():
        parts.streams.require_open()
        if not subscription.is_open:
            raise Unavailable("the last member has left meanwhile")
        try:
            async with asyncio.timeout(_TIMEOUT_S):
                found = await catch_up(
                    subscription,
                    since,
                    cap=parts.settings.recovery_limit,
                    max_bytes=parts.settings.recovery_max_bytes,
                    packed=member.encoding.packed,
                )
        except TimeoutError:
            raise Unavailable("the stream could not be read in time") from None
    parts.counters.recoveries[found.verdict] += 1
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
            for stored in batch.messages:
                delivery = subscription.decoded(stored.data, stored.seq) if stored.seq > since.seq else None
                if delivery is not None:
                    found[stored.seq] = delivery.message
                    if packed:
                        await subscription.parts.reads.pack(delivery.message)
    size = sum(len(message.data) for message in batch.messages)
    position = subscription.position
    if position is None or since.epoch != position.epoch:
        return CatchUp(RecoveryVerdict.OTHER_EPOCH, size=size)
    if verdict is not RecoveryVerdict.RECOVERED:
        return CatchUp(verdict, size=size)
    missed = {seq: message for seq, message in found.items() if seq <= position.seq}
    missed.update((seq, message) for seq, message in live if seq > since.seq)
    return CatchUp(verdict, [missed[seq] for seq in sorted(missed)], size)


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
