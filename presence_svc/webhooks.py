"""Posting events of presence to applications' servers: signed, in order, until they are accepted.

Events wait in the store, written by the step that caused them. Of all replicas one at a time delivers to a target;
when it dies, another one continues after the last event that was acknowledged. What was posted but not acknowledged
is posted again: at least once, and every event has an id by which a repeat is recognised.
"""

import asyncio
import hashlib
import secrets
from urllib.parse import urlsplit

import msgspec
import structlog

from presence_svc.changes import DeliveryLease, EventKind, PresenceStoreUnavailable, QueuedEvent
from presence_svc.store import PresenceStore
from services.backoff import Backoff
from services.settings import Settings
from services.telemetry import MetricName, counter
from services.webhooks import NotTaken, WebhookSender
from services.wire.records import UNSET, Record, UnsetType

log = structlog.get_logger(__name__)

EVENTS_PER_POST = 100
LEASE_MS = 15_000  # three times what a post may take, so that two replicas do not post the same
POLL_EVERY_S = 0.5
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
    """The body of a post: events in the order in which they happened.

    A new `epoch` means that the store lost data: users online before may be reported as coming online again, and
    users who left meanwhile are not reported. `dropped` events before these were given up, because too many waited.
    """

    epoch: str
    dropped: int
    events: list[WebhookEvent]


def body_of(lease: DeliveryLease) -> bytes:
    """Return the JSON text of one post."""
    events = [_event(event) for event in lease.events]
    return msgspec.json.encode(WebhookBody(epoch=lease.epoch, dropped=lease.dropped, events=events))


def event_id(event: QueuedEvent) -> str:
    """Return an id that no other event ever has.

    The number alone is not enough: a Redis that lost its last writes gives numbers again.
    """
    fields = [event.number, event.kind, event.subject, event.username, event.at_ms]
    if event.room:  # events without one have had their ids before there were others
        fields.append(event.room)
    return f"{hashlib.sha256(msgspec.json.encode(fields)).hexdigest()[:16]}-{event.number}"


def _event(event: QueuedEvent) -> WebhookEvent:
    about_room = event.kind in (EventKind.ROOM_OCCUPIED, EventKind.ROOM_VACATED)
    return WebhookEvent(
        id=event_id(event),
        type=str(event.kind.name).lower(),
        timestamp=event.at_ms,
        user_id=UNSET if about_room else event.subject,
        username=UNSET if about_room else event.username,
        room=event.subject if about_room else event.room or UNSET,
    )


class WebhookDelivery:
    """Delivers to one target. `target` is its name in logs: a URL's path and query may hold secrets."""

    def __init__(self, store: PresenceStore, sender: WebhookSender, url: str) -> None:
        self.target = urlsplit(url).netloc.rpartition("@")[2]
        self._store = store
        self._sender = sender
        self._url = url
        self._key = target_key(url)
        self._owner = secrets.token_hex(8)
        self._limit = EVENTS_PER_POST
        self._failing = False

    async def run(self) -> None:
        """Deliver until cancelled, as soon as there are events; back off after a failure."""
        backoff = Backoff(RETRY_S, RETRY_MAX_S, jitter=0.9)
        while True:
            try:
                found = await self.deliver()
            except PresenceStoreUnavailable as fault:
                log.debug("webhook events cannot be read", reason=str(fault))
                found = False
            except NotTaken as fault:
                await asyncio.sleep(max(fault.after_s, backoff.next_s()))
                continue
            backoff.reset()
            if not found:
                await asyncio.sleep(POLL_EVERY_S)

    async def deliver(self) -> bool:
        """Post the next events. Returns whether there were any for us.

        Raises:
            NotTaken: the receiver did not accept them, and may do so later.
            PresenceStoreUnavailable: the events cannot be read, or not acknowledged; they will be posted again.
        """
        lease = await self._store.claim_events(self._key, self._owner, LEASE_MS, self._limit)
        if not lease.events:
            return False
        try:
            await self._sender.post(self._url, body_of(lease))
        except NotTaken as fault:
            counter(MetricName.PRESENCE_HOOK_FAULTS).labels(fault.reason).inc()
            if not fault.retry:
                await self._refused(lease, fault)
                return True
            if not self._failing:
                log.warning(
                    "webhook does not accept events; will keep trying", target=self.target, reason=str(fault)
                )
            self._failing = True
            if fault.after_s:  # the receiver asked all of us to wait, not this replica alone
                extended_ms = round(fault.after_s * 1000) + LEASE_MS
                await self._store.claim_events(self._key, self._owner, extended_ms, 0)
            raise
        if self._failing:
            log.info("webhook accepts events again", target=self.target)
        self._failing = False
        self._limit = min(2 * self._limit, EVENTS_PER_POST)
        await self._ack(lease, "delivered")
        return True

    async def _refused(self, lease: DeliveryLease, fault: NotTaken) -> None:
        """Find the event that the receiver refuses by posting fewer, and drop that one: the others wait behind it."""
        if len(lease.events) > 1:
            self._limit = len(lease.events) // 2
            return
        event = event_id(lease.events[0])
        log.error("webhook refused an event; dropped", target=self.target, reason=str(fault), id=event)
        await self._ack(lease, "refused")

    async def _ack(self, lease: DeliveryLease, outcome: str) -> None:
        counter(MetricName.PRESENCE_HOOKS).labels(outcome).inc(len(lease.events))
        counter(MetricName.PRESENCE_HOOKS).labels("dropped").inc(lease.dropped)
        await self._store.ack_events(self._key, lease.events[-1])

    async def release(self) -> None:
        """Let another replica deliver at once."""
        try:
            await self._store.release_events(self._key, self._owner)
        except PresenceStoreUnavailable as fault:
            log.debug("webhook lease not released; it expires by itself", reason=str(fault))


def target_key(url: str) -> str:
    """Return the store's name of a target: URLs may hold passwords."""
    return hashlib.sha256(url.encode()).hexdigest()[:16]


class Webhooks:
    """Deliveries to all configured targets."""

    def __init__(self, store: PresenceStore, settings: Settings) -> None:
        self._sender = WebhookSender([one.get_secret_value() for one in settings.presence_webhook_secrets])
        urls = dict.fromkeys(settings.presence_webhook_urls)
        self.deliveries = [WebhookDelivery(store, self._sender, url) for url in urls]

    async def close(self) -> None:
        for delivery in self.deliveries:
            await delivery.release()
        await self._sender.close()
