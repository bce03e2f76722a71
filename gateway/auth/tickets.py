"""One-time tickets: how a browser brings a token's rights to a WebSocket or an EventSource.

Neither can send an `Authorization` header, and a token in a URL ends up in logs and histories. So the page gets a ticket
over HTTP with the token, and connects with `?ticket=`. A ticket is 256 random bits, valid for some seconds, once, on any
gateway, for one user, and for pages of the origin that requested it. Only its SHA-256 is stored.
"""

import hashlib
import re
import secrets
import time
from typing import Any

import msgspec

from gateway.auth.bucket import Bucket
from gateway.auth.identity import Identity
from gateway.limits import KeyedBuckets
from services.bus.client import Bus
from services.bus.specs import ticket_spec
from services.settings import Settings
from services.wire.grants import Grants

_TICKET_BYTES = 32
_TICKET = re.compile(r"[A-Za-z0-9_-]{43}")  # 32 bytes in base64url

# A ticket in the store: an array of these. Gateways of two versions share the store while a deployment is upgraded.
_StoredTicket: Any = msgspec.defstruct(
    "_StoredTicket",
    [
        ("user_id", str),
        ("username", str),
        ("origin", str),
        ("expires_at", float),
        ("identity_expires_at", float | None),
        ("session", str),
        *((name, Any) for name in Grants.__struct_fields__),
        ("token_id", str, ""),
        ("issued_at", float | None, None),
    ],
    frozen=True,
    array_like=True,
)
_decode = msgspec.json.Decoder(_StoredTicket).decode


class TicketStore:
    """Tickets in a JetStream bucket, which every gateway of the deployment reaches."""

    def __init__(self, bus: Bus, settings: Settings) -> None:
        self._ttl_s = settings.ticket_ttl_s
        self._bucket = Bucket(bus, ticket_spec(settings))
        self._rates = KeyedBuckets(settings.ticket_rate, time.monotonic())

    def wait_s(self, user_id: str) -> float:
        """Return 0.0 for a user who may have another ticket, else the seconds until then."""
        return self._rates.consume(user_id, time.monotonic())

    async def issue(self, identity: Identity, origin: str) -> tuple[str, float]:
        """Return a new ticket and its expiry, in seconds since 1970. Raises BusError."""
        ticket = secrets.token_urlsafe(_TICKET_BYTES)
        expires_at = time.time() + self._ttl_s
        if identity.expires_at is not None:
            expires_at = min(expires_at, identity.expires_at)
        stored = _StoredTicket(
            user_id=identity.user_id,
            username=identity.username,
            origin=origin,
            expires_at=expires_at,
            identity_expires_at=identity.expires_at,
            session=identity.session,
            **identity.grants.to_dict(),
            token_id=identity.token_id,
            issued_at=identity.issued_at,
        )
        await self._bucket.create(_key(ticket), msgspec.json.encode(stored))
        return ticket, expires_at

    async def redeem(self, ticket: str, origin: str | None) -> Identity | None:
        """Use a ticket up and return its identity; None if it is unknown, used, expired or of another origin.

        An absent `origin` passes: a browser omits it on requests to the page's own host, and a program that is no
        browser could send any. Raises BusError.
        """
        if not _TICKET.fullmatch(ticket):
            return None
        key = _key(ticket)
        entry = await self._bucket.get(key)
        # Taken before anything is decided about it: a ticket shown by the wrong page is spent too.
        if entry is None or not await self._bucket.consume(key, entry.seq):
            return None
        stored = _decode(entry.data)
        of_another_origin = stored.origin and origin is not None and origin != stored.origin
        if stored.expires_at <= time.time() or of_another_origin:
            return None
        return Identity(
            stored.user_id,
            stored.username,
            Grants.parse({name: getattr(stored, name) for name in Grants.__struct_fields__}),
            session=stored.session,
            expires_at=stored.identity_expires_at,
            token_id=stored.token_id,
            issued_at=stored.issued_at,
        )


def _key(ticket: str) -> str:
    return hashlib.sha256(ticket.encode()).hexdigest()
