"""One-time tickets: how a browser brings a token's rights to a WebSocket or an EventSource.

Neither can send an `Authorization` header, and a token in a URL ends up in logs and histories. So the page
asks for a ticket over HTTP with the token, and opens the connection with `?ticket=`. A ticket is 256 random
bits, good for some seconds, once, on any gateway, for one user, and for pages of the origin it was asked
from. Only its SHA-256 is stored: who reads the store holds no tickets.
"""

import hashlib
import re
import secrets
import time
from typing import Protocol

import msgspec

from gateway.auth.grants import Grants, Patterns
from gateway.auth.identity import Identity
from services.bus.client import Bus
from services.bus.kv import Bucket, BucketSpec
from services.settings import Settings

_TICKET_BYTES = 32
_TICKET = re.compile(r"[A-Za-z0-9_-]{43}")  # 32 bytes in base64url
# The most that `ticket_ttl_s` may be: the store forgets after that, whatever the setting.
_LONGEST_LIFE_S = 300
# Some 100,000 tickets; beyond, new ones are refused rather than old ones lost.
_STORE_BYTES = 64 * 1024 * 1024


class TicketStore(Protocol):
    """Where tickets wait to be used."""

    async def issue(self, identity: Identity, origin: str) -> tuple[str, float]:
        """Return a new ticket and when it expires, in seconds since 1970. Raises BusError."""

    async def redeem(self, ticket: str, origin: str | None) -> Identity | None:
        """Use a ticket up and return whose it is; None if it is unknown, used, expired or another origin's.

        An absent `origin` passes: a browser omits it on requests to the page's own host, and what is no
        browser could send any. Raises BusError.
        """


class _Kept(msgspec.Struct, frozen=True, array_like=True):
    """A ticket in the store. Grants travel as their patterns."""

    user_id: str
    username: str
    origin: str
    expires_at: float
    identity_expires_at: float | None
    session: str
    join: tuple[str, ...]
    publish: tuple[str, ...]
    channels: tuple[str, ...]
    broadcast: bool
    direct: bool
    admin: bool
    token_id: str = ""
    issued_at: float | None = None


class BusTicketStore:
    """Tickets in a JetStream bucket, which every gateway of the deployment reaches."""

    def __init__(self, bus: Bus, settings: Settings) -> None:
        subjects = settings.subjects
        self._ttl_s = settings.ticket_ttl_s
        self._bucket = Bucket(
            bus,
            BucketSpec(
                stream=subjects.tickets_stream,
                subject=subjects.tickets,
                max_age_s=_LONGEST_LIFE_S,
                max_bytes=_STORE_BYTES,
                replicas=settings.replicas,
            ),
        )

    async def issue(self, identity: Identity, origin: str) -> tuple[str, float]:
        ticket = secrets.token_urlsafe(_TICKET_BYTES)
        expires_at = time.time() + self._ttl_s
        if identity.expires_at is not None:
            expires_at = min(expires_at, identity.expires_at)
        await self._bucket.create(_key(ticket), msgspec.json.encode(_keep(identity, origin, expires_at)))
        return ticket, expires_at

    async def redeem(self, ticket: str, origin: str | None) -> Identity | None:
        if not _TICKET.fullmatch(ticket):
            return None
        key = _key(ticket)
        entry = await self._bucket.get(key)
        # Taken before anything is decided about it: a ticket shown by the wrong page is spent too.
        if entry is None or not await self._bucket.take(key, entry.revision):
            return None
        kept = msgspec.json.decode(entry.value, type=_Kept)
        if kept.expires_at <= time.time():
            return None
        if kept.origin and origin is not None and origin != kept.origin:
            return None
        return _restore(kept)


def _key(ticket: str) -> str:
    return hashlib.sha256(ticket.encode()).hexdigest()


def _keep(identity: Identity, origin: str, expires_at: float) -> _Kept:
    grants = identity.grants
    return _Kept(
        user_id=identity.user_id,
        username=identity.username,
        origin=origin,
        expires_at=expires_at,
        identity_expires_at=identity.expires_at,
        session=identity.session,
        join=grants.join.texts,
        publish=grants.publish.texts,
        channels=grants.channels.texts,
        broadcast=grants.broadcast,
        direct=grants.direct,
        admin=grants.admin,
        token_id=identity.token_id,
        issued_at=identity.issued_at,
    )


def _restore(kept: _Kept) -> Identity:
    grants = Grants(
        join=Patterns(kept.join),
        publish=Patterns(kept.publish),
        channels=Patterns(kept.channels),
        broadcast=kept.broadcast,
        direct=kept.direct,
        admin=kept.admin,
    )
    return Identity(
        kept.user_id,
        kept.username,
        grants,
        session=kept.session,
        expires_at=kept.identity_expires_at,
        token_id=kept.token_id,
        issued_at=kept.issued_at,
    )
