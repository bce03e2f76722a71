"""Posting events of presence to applications' servers: signed, in order, until they are taken.

Events wait in the store (see `hooks`). Of all replicas one at a time delivers to a target; when it dies, another one
goes on from the last event that was taken. What was posted but not confirmed is posted again: at least once, and
every event has an id by which a repeat is recognised.
"""

import asyncio
import hashlib
import secrets
from urllib.parse import urlsplit

import msgspec
import structlog

from presence_svc.hooks import HookEvent, HookKind, HookTurn
from presence_svc.policy import HookQueue, StoreUnavailable
from services.backoff import Backoff
from services.settings import Settings
from services.telemetry import MetricName, counter
from services.webhooks import NotTaken, WebhookSender
from services.wire.records import UNSET, Record, UnsetType

log = structlog.get_logger(__name__)

EVENTS_PER_POST = 100
TURN_MS = 15_000  # three times what a post may take, so that two replicas do not post the same
LOOK_EVERY_S = 0.5
RETRY_S = 0.5
RETRY_MAX_S = 60.0


class WebhookEvent(Record, frozen=True, kw_only=True, omit_defaults=True):
    """One event on the wire. `id` stays the same however often it is posted; `timestamp` is when it happened (ms)."""

    id: str
    type: str
    timestamp: int
    user_id: str | UnsetType = UNSET
    username: str | UnsetType = UNSET
    room: str | UnsetType = UNSET


class WebhookBody(Record, frozen=True, kw_only=True):
    """What is posted: events in the order in which they happened.

    A new `epoch` says that the store lost data: who was online before may be said to come online again, and who
    left meanwhile is not mentioned. `dropped` events before these were given up, because too many waited.
    """

    epoch: str
    dropped: int
    events: list[WebhookEvent]


def body_of(turn: HookTurn) -> bytes:
    """Return the JSON text of what one turn delivers."""
    body = WebhookBody(epoch=turn.epoch, dropped=turn.lost, events=[_event(event) for event in turn.events])
    return msgspec.json.encode(body)


def event_id(event: HookEvent) -> str:
    """Return an id that no other event ever has.

    The number alone is not enough: a Redis that lost its last writes gives numbers again.
    """
    said = msgspec.json.encode((event.number, int(event.kind), event.about, event.username, event.at_ms))
    return f"{hashlib.sha256(said).hexdigest()[:16]}-{event.number}"


def _event(event: HookEvent) -> WebhookEvent:
    about_room = event.kind in (HookKind.ROOM_OCCUPIED, HookKind.ROOM_VACATED)
    return WebhookEvent(
        id=event_id(event),
        type=str(event.kind.name).lower(),
        timestamp=event.at_ms,
        user_id=UNSET if about_room else event.about,
        username=UNSET if about_room else event.username,
        room=event.about if about_room else UNSET,
    )


class Courier:
    """Delivers to one target. `target` is how logs name it: a URL's path and query may hold secrets."""

    def __init__(self, queue: HookQueue, sender: WebhookSender, url: str) -> None:
        self.target = urlsplit(url).netloc.rpartition("@")[2]
        self._queue = queue
        self._sender = sender
        self._url = url
        self._key = target_key(url)
        self._holder = secrets.token_hex(8)
        self._limit = EVENTS_PER_POST
        self._failing = False

    async def run(self) -> None:
        """Deliver until cancelled, each time as soon as something is there; after a failure later and later."""
        backoff = Backoff(RETRY_S, RETRY_MAX_S, jitter=0.9)
        while True:
            try:
                found = await self.deliver()
            except StoreUnavailable as fault:
                log.debug("webhook events cannot be read", reason=str(fault))
                found = False
            except NotTaken as fault:
                await asyncio.sleep(max(fault.after_s, backoff.next_s()))
                continue
            backoff.reset()
            if not found:
                await asyncio.sleep(LOOK_EVERY_S)

    async def deliver(self) -> bool:
        """Post what waits. Returns whether there was anything for us.

        Raises:
            NotTaken: the receiver did not take it, and may do so later.
            StoreUnavailable: the events cannot be read, or their delivery not noted; they will be posted again.
        """
        turn = await self._queue.take_hooks(self._key, self._holder, TURN_MS, self._limit)
        if not turn.events:
            return False
        try:
            await self._sender.post(self._url, body_of(turn))
        except NotTaken as fault:
            counter(MetricName.PRESENCE_HOOK_FAULTS).labels(fault.reason).inc()
            if not fault.retry:
                await self._refused(turn, fault)
                return True
            if not self._failing:
                log.warning(
                    "webhook does not take events; will keep trying", target=self.target, reason=str(fault)
                )
            self._failing = True
            if fault.after_s:  # the receiver asked all of us to wait, not this replica alone
                await self._queue.take_hooks(
                    self._key, self._holder, round(fault.after_s * 1000) + TURN_MS, 0
                )
            raise
        if self._failing:
            log.info("webhook takes events again", target=self.target)
        self._failing = False
        self._limit = min(2 * self._limit, EVENTS_PER_POST)
        await self._done(turn, "delivered")
        return True

    async def _refused(self, turn: HookTurn, fault: NotTaken) -> None:
        """Find the event that the receiver refuses by posting fewer, and drop that one: the others wait behind it."""
        if len(turn.events) > 1:
            self._limit = len(turn.events) // 2
            return
        log.error(
            "webhook refused an event; dropped",
            target=self.target,
            reason=str(fault),
            id=event_id(turn.events[0]),
        )
        await self._done(turn, "refused")

    async def _done(self, turn: HookTurn, outcome: str) -> None:
        counter(MetricName.PRESENCE_HOOKS).labels(outcome).inc(len(turn.events))
        counter(MetricName.PRESENCE_HOOKS).labels("dropped").inc(turn.lost)
        await self._queue.hooks_delivered(self._key, turn.events[-1])

    async def give_up_turn(self) -> None:
        """Let another replica deliver at once."""
        try:
            await self._queue.give_up_hooks(self._key, self._holder)
        except StoreUnavailable as fault:
            log.debug("webhook turn not given up; it runs out by itself", reason=str(fault))


def target_key(url: str) -> str:
    """Return what the store knows a target by: URLs may hold passwords."""
    return hashlib.sha256(url.encode()).hexdigest()[:16]


class Webhooks:
    """All targets of the configuration."""

    def __init__(self, queue: HookQueue, settings: Settings) -> None:
        urls = list(dict.fromkeys(settings.presence_webhook_urls))
        secret_keys = [one.get_secret_value() for one in settings.presence_webhook_secrets]
        self._sender = WebhookSender(secret_keys)
        self.couriers = [Courier(queue, self._sender, url) for url in urls]

    async def close(self) -> None:
        """Give up the turns, and the connections."""
        for courier in self.couriers:
            await courier.give_up_turn()
        await self._sender.close()
