"""Finding out what was lost unseen, for all rooms and inboxes at once.

After every bus reconnect, and after a stream has got another leader, each durable log may have a message that nobody heard
of. Most show by themselves that they have none (`StreamSubscription.resume`); of the others the last sequence is asked for, a thousand
in one question, and only what has news is read. So the questions of a gateway are bounded, however many rooms it has.
"""

import asyncio
import random
from collections.abc import Iterable, Iterator, Sequence

import structlog

from gateway.delivery.reads import Reads
from gateway.delivery.stream_subscription import StreamSubscription, kept_by
from services.backoff import Backoff
from services.bus.errors import BusError
from services.bus.streams import MAX_SUBJECTS, DurableLog

log = structlog.get_logger(__name__)

# All gateways hear of a returned server, or of an election, at once.
_SPREAD_S = 0.2
_RETRY_S = 0.1
_RETRY_MAX_S = 2.0


def resume_all(subscriptions: Iterable[StreamSubscription]) -> dict[DurableLog, list[StreamSubscription]]:
    """Let all go on, and return by stream those that did not show that nothing was lost."""
    unsure: dict[DurableLog, list[StreamSubscription]] = {}
    for subscription in subscriptions:
        subscription.resume()
        if subscription.unsure and subscription.durable_log is not None:
            unsure.setdefault(subscription.durable_log, []).append(subscription)
    return unsure


async def look_at_all(
    durable_log: DurableLog, subscriptions: Sequence[StreamSubscription], reads: Reads, max_bytes: int
) -> None:
    """Ask a stream until each of its logs is known to be whole, or is being read.

    `max_bytes` is how large one question may be.
    """
    await asyncio.sleep(random.uniform(0, _SPREAD_S))
    backoff = Backoff(_RETRY_S, _RETRY_MAX_S)
    while subscriptions := [subscription for subscription in subscriptions if subscription.unsure]:
        try:
            await _look_once(durable_log, subscriptions, reads, max_bytes)
        except BusError as fault:
            log.warning(
                "rooms not looked at yet",
                stream=durable_log.spec.name,
                rooms=len(subscriptions),
                reason=str(fault),
            )
            await backoff.wait()
        else:
            return


async def _look_once(
    durable_log: DurableLog, subscriptions: Sequence[StreamSubscription], reads: Reads, max_bytes: int
) -> None:
    newest = await durable_log.newest()
    left: list[StreamSubscription] = []
    for group in _groups(subscriptions, max_bytes):
        async with reads.fills:
            lasts = await durable_log.lasts_of(
                [subscription.stored_subject for subscription in group], newest
            )
        left += [
            subscription
            for subscription in group
            if not subscription.look(lasts.get(subscription.stored_subject, 0))
        ]
    if left:
        kept = await kept_by(durable_log)
        for subscription in left:
            subscription.settle(kept)


def _groups(
    subscriptions: Sequence[StreamSubscription], max_bytes: int
) -> Iterator[list[StreamSubscription]]:
    """Yield those that are still unsure, as many at a time as one question takes."""
    group: list[StreamSubscription] = []
    size = 0
    for subscription in subscriptions:
        if not subscription.unsure:
            continue
        length = len(subscription.stored_subject) + 3
        if group and (len(group) >= MAX_SUBJECTS or size + length > max_bytes):
            yield group
            group, size = [], 0
        group.append(subscription)
        size += length
    if group:
        yield group
