"""Posting events of presence to applications' servers: signed, in order, until they are taken.

Events wait in the store (see `hooks`). Of all replicas one at a time delivers to a target; when it dies, another one
goes on from the last event that was taken. What was posted but not confirmed is posted again: at least once, and
every event has an id by which a repeat is recognised.
"""

import asyncio
import hashlib
import hmac
import random
import secrets
import time
from collections.abc import Sequence
from urllib.parse import urlsplit

import httpx
import msgspec
import structlog

from presence_svc.hooks import HookEvent, HookKind, HookTurn
from presence_svc.store import HookQueue, StoreUnavailable
from services.lifecycle import CannotStart
from services.settings import Settings
from services.telemetry import MetricName, counter
from services.wire.records import UNSET, Record, UnsetType

log = structlog.get_logger(__name__)

TIMESTAMP_HEADER = "Tidings-Timestamp"
SIGNATURE_HEADER = "Tidings-Signature"
EVENTS_PER_POST = 100
POST_TIMEOUT_S = 5.0
TURN_MS = 15_000  # well over a post's time limit, so that two replicas do not post the same
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

    A new `epoch` says that the store lost its data: who was online before may be said to come online again, and who
    left meanwhile is not mentioned. `dropped` events before these were given up, because too many waited.
    """

    epoch: str
    dropped: int
    events: list[WebhookEvent]


def body_of(turn: HookTurn) -> bytes:
    """Return the JSON text of what one turn delivers."""
    body = WebhookBody(
        epoch=turn.epoch, dropped=turn.lost, events=[_event(turn.epoch, event) for event in turn.events]
    )
    return msgspec.json.encode(body)


def _event(epoch: str, event: HookEvent) -> WebhookEvent:
    about_room = event.kind in (HookKind.ROOM_OCCUPIED, HookKind.ROOM_VACATED)
    return WebhookEvent(
        id=f"{epoch}-{event.number}",
        type=str(event.kind.name).lower(),
        timestamp=event.at_ms,
        user_id=UNSET if about_room else event.about,
        username=UNSET if about_room else event.username,
        room=event.about if about_room else UNSET,
    )


def signature(secret_keys: Sequence[str], timestamp: int, body: bytes) -> str:
    """Return the signature header: `v1=HEX` of HMAC-SHA256 over `TIMESTAMP.BODY`, one for each secret."""
    signed = str(timestamp).encode() + b"." + body
    return ",".join(f"v1={hmac.new(key.encode(), signed, hashlib.sha256).hexdigest()}" for key in secret_keys)


class Courier:
    """Delivers to one target. `target` is how logs name it: a URL's path and query may hold secrets."""

    def __init__(
        self,
        queue: HookQueue,
        client: httpx.AsyncClient,
        url: str,
        all_targets: list[str],
        secret_keys: list[str],
    ) -> None:
        self.target = urlsplit(url).netloc.rpartition("@")[2]
        self._queue = queue
        self._client = client
        self._url = url
        self._key = target_key(url)
        self._all_targets = all_targets
        self._secret_keys = secret_keys
        self._holder = secrets.token_hex(8)
        self._failing = False

    async def run(self) -> None:
        """Deliver until cancelled, each time as soon as something is there; after a failure later and later."""
        delay_s = RETRY_S
        while True:
            try:
                delivered = await self.deliver()
            except StoreUnavailable as fault:
                log.debug("webhook events cannot be read", reason=str(fault))
                delivered = None
            if delivered is False:
                # Full jitter, and the time grows: a receiver that comes back is not overrun.
                await asyncio.sleep(random.uniform(RETRY_S / 2, delay_s))  # noqa: S311  # jitter, no secret
                delay_s = min(2 * delay_s, RETRY_MAX_S)
                continue
            delay_s = RETRY_S
            if delivered is None:
                await asyncio.sleep(LOOK_EVERY_S)

    async def deliver(self) -> bool | None:
        """Post what waits: True if it was taken, False if not, None if there was nothing, or not for us.

        Raises:
            StoreUnavailable: the events cannot be read, or their delivery not noted; they will be posted again.
        """
        turn = await self._queue.take_hooks(self._key, self._holder, TURN_MS, EVENTS_PER_POST)
        if not turn.events:
            return None
        reason = await self._post(body_of(turn))
        if reason is not None:
            counter(MetricName.PRESENCE_HOOK_FAULTS).labels(reason).inc()
            if not self._failing:
                log.warning(
                    "webhook does not take events; will keep trying", target=self.target, reason=reason
                )
            self._failing = True
            return False
        if self._failing:
            log.info("webhook takes events again", target=self.target)
        self._failing = False
        counter(MetricName.PRESENCE_HOOKS).labels("delivered").inc(len(turn.events))
        counter(MetricName.PRESENCE_HOOKS).labels("dropped").inc(turn.lost)
        await self._queue.hooks_delivered(self._key, self._holder, turn.events[-1].number, self._all_targets)
        return True

    async def give_up_turn(self) -> None:
        """Let another replica deliver at once."""
        try:
            await self._queue.hooks_delivered(self._key, self._holder, 0, self._all_targets)
        except StoreUnavailable as fault:
            log.debug("webhook turn not given up; it runs out by itself", reason=str(fault))

    async def _post(self, body: bytes) -> str | None:
        """Return None if the events were taken, else why not, in one word of few."""
        timestamp = int(time.time())
        headers = {
            "Content-Type": "application/json",
            TIMESTAMP_HEADER: str(timestamp),
            SIGNATURE_HEADER: signature(self._secret_keys, timestamp, body),
        }
        try:
            answer = await self._client.post(self._url, content=body, headers=headers)
        except httpx.TimeoutException:
            return "timeout"
        except (httpx.HTTPError, httpx.InvalidURL):
            return "unreachable"
        return None if answer.is_success else f"{answer.status_code // 100}xx"


def target_key(url: str) -> str:
    """Return what the store knows a target by: URLs may hold passwords."""
    return hashlib.sha256(url.encode()).hexdigest()[:16]


class Webhooks:
    """All targets of the configuration."""

    def __init__(self, queue: HookQueue, settings: Settings) -> None:
        """Raises CannotStart: a URL that is none, or no secret to sign with."""
        urls = list(dict.fromkeys(settings.presence_webhook_urls))
        secret_keys = [one.get_secret_value() for one in settings.presence_webhook_secrets]
        if not all(secret_keys) or not secret_keys:
            raise CannotStart(
                "TIDINGS_PRESENCE_WEBHOOK_URLS needs TIDINGS_PRESENCE_WEBHOOK_SECRETS to sign with"
            )
        for url in urls:
            parts = urlsplit(url)
            if parts.scheme not in ("http", "https") or not parts.hostname:
                raise CannotStart("TIDINGS_PRESENCE_WEBHOOK_URLS: expected http:// or https:// addresses")
        # Redirects are not followed: a receiver that moved is reconfigured, not guessed.
        self._client = httpx.AsyncClient(timeout=POST_TIMEOUT_S, follow_redirects=False)
        targets = [target_key(url) for url in urls]
        self.couriers = [Courier(queue, self._client, url, targets, secret_keys) for url in urls]

    async def close(self) -> None:
        """Give up the turns, and the connections."""
        for courier in self.couriers:
            await courier.give_up_turn()
        await self._client.aclose()
