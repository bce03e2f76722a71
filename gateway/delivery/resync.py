"""The search for messages that were lost unnoticed, in all rooms and inboxes at once.

After a bus reconnect, or an election of a stream's leader, any durable log may have a message that was not delivered
here. Most logs prove that they have none (`StreamSubscription.resume`). For the others one request asks for up to a
thousand last sequences, and only logs with news are read. So the number of requests is bounded, however many rooms a
gateway has.
"""

import asyncio
import random
from collections.abc import Callable, Iterable, Iterator, Sequence

import structlog

from gateway.delivery.stream_subscription import StreamSubscription, kept_by
from services.backoff import Backoff
from services.bus.client import Bus, BusMessage
from services.bus.errors import BusError
from services.bus.specs import disk_specs
from services.bus.streams import MAX_SUBJECTS, DurableLog
from services.settings import Settings

log = structlog.get_logger(__name__)

# A server that dies leads several streams, and all gateways see its elections, or its return, at the same time.
_ELECTIONS_S = 0.5
_ELECTIONS_SPREAD_S = 1.0
_SPREAD_S = 0.2
_RETRY_S = 0.1
_RETRY_MAX_S = 2.0


class LeaderWatch:
    """Calls `on_change` shortly after streams of a NATS cluster elected other leaders, once for all of them.

    A leader republishes what it stores. If it dies between the two, a message is stored and acknowledged, but not
    delivered: the room's next message would show the gap, but a quiet room has none. This gateway's own connection may
    stay up meanwhile. So an election needs the same search as a reconnect.
    """

    def __init__(self, bus: Bus, settings: Settings, on_change: Callable[[], None]) -> None:
        self._on_change = on_change
        self._due: asyncio.TimerHandle | None = None
        self._subscriptions = [
            bus.subscribe(settings.subjects.leader_elected(spec.name), self._on_elected)
            for spec in disk_specs(settings)
        ]

    def close(self) -> None:
        for subscription in self._subscriptions:
            subscription.close()
        if self._due is not None:
            self._due.cancel()

    def _on_elected(self, message: BusMessage) -> None:
        log.info("a stream has another leader", stream=message.subject.rpartition(".")[2])
        if self._due is not None:
            self._due.cancel()
        delay_s = _ELECTIONS_S + random.uniform(0, _ELECTIONS_SPREAD_S)
        self._due = asyncio.get_running_loop().call_later(delay_s, self._on_change)


def resume_all(subscriptions: Iterable[StreamSubscription]) -> dict[DurableLog, list[StreamSubscription]]:
    """Resume all, and return by stream those that did not prove that nothing was lost."""
    unsure: dict[DurableLog, list[StreamSubscription]] = {}
    for subscription in subscriptions:
        subscription.resume()
        if subscription.unsure and subscription.durable_log is not None:
            unsure.setdefault(subscription.durable_log, []).append(subscription)
    return unsure


async def check_all(
    durable_log: DurableLog, subscriptions: Sequence[StreamSubscription], request_bytes: int
) -> None:
    """Check a stream until each of its logs is known to be complete, or is being filled."""
    await asyncio.sleep(random.uniform(0, _SPREAD_S))
    backoff = Backoff(_RETRY_S, _RETRY_MAX_S)
    while subscriptions := [subscription for subscription in subscriptions if subscription.unsure]:
        try:
            await _check_once(durable_log, subscriptions, request_bytes)
        except BusError as fault:
            log.warning(
                "rooms not checked yet",
                stream=durable_log.spec.name,
                rooms=len(subscriptions),
                reason=str(fault),
            )
            await backoff.wait()
        else:
            return


async def _check_once(
    durable_log: DurableLog, subscriptions: Sequence[StreamSubscription], request_bytes: int
) -> None:
    newest = await durable_log.newest()
    undecided: list[StreamSubscription] = []
    for group in _groups(subscriptions, request_bytes):
        subjects = [subscription.stored_subject for subscription in group]
        async with group[0].parts.reads.fills:
            lasts = await durable_log.lasts_of(subjects, newest)
        for subscription, subject in zip(group, subjects, strict=True):
            if not subscription.check_last(lasts.get(subject, 0)):
                undecided.append(subscription)
    if undecided:
        kept = await kept_by(durable_log)
        for subscription in undecided:
            subscription.settle(kept)


def _groups(
    subscriptions: Sequence[StreamSubscription], request_bytes: int
) -> Iterator[list[StreamSubscription]]:
    """Yield the subscriptions that are still unsure, as many at a time as fit one request."""
    group: list[StreamSubscription] = []
    size = 0
    for subscription in subscriptions:
        if not subscription.unsure:
            continue
        length = len(subscription.stored_subject) + 3
        if group and (len(group) >= MAX_SUBJECTS or size + length > request_bytes):
            yield group
            group, size = [], 0
        group.append(subscription)
        size += length
    if group:
        yield group
