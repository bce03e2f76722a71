"""What a connection holds for as long as it stays: its place in the limits, and credentials that end.

The same for WebSocket connections and streams. Made when the client is let in, and ended once, whatever the reason.
"""

from typing import Protocol

from gateway.auth.expiry import CredentialTimer, to_ms
from gateway.auth.identity import Identity
from gateway.http.client_address import AddressLimit
from gateway.user_limit import UserLimit
from services.clock import now_ms
from services.settings import Settings
from services.wire import server
from services.wire.codes import CloseCode


class House(Protocol):
    """The gateway, as far as those who stay concern it."""

    settings: Settings
    users: UserLimit
    addresses: AddressLimit


class Guest(Protocol):
    """A connection, as far as its stay concerns it."""

    connection_id: str

    def notify(self, message: server.ServerMessage) -> None:
        """Send a message."""

    def end(self, code: CloseCode) -> None:
        """Say `disconnect` and close."""


class Stay:
    """One connection's stay."""

    __slots__ = ("_expiry", "_gateway", "_guest", "_place", "identity", "origin", "renewing")

    def __init__(
        self,
        gateway: House,
        guest: Guest,
        identity: Identity,
        place: str,
        origin: str | None = None,
    ) -> None:
        self.identity = identity
        self.origin = origin  # of the page that opened the connection
        self.renewing = False
        self._gateway = gateway
        self._guest = guest
        self._place = place
        self._expiry: CredentialTimer | None = None

    def begin(self) -> None:
        """Count the connection among its user's, and watch its credentials."""
        gateway = self._gateway
        gateway.users.add(self.identity.user_id, self._guest.connection_id, now_ms())
        self.renew(self.identity)

    def renew(self, identity: Identity) -> None:
        """Go on with these credentials."""
        self.identity = identity
        if self._expiry is None:
            if identity.expires_at is None:
                return
            self._expiry = CredentialTimer(self._gateway.settings.expiry_notice_s, self._warn, self._expire)
        self._expiry.start(identity.expires_at)

    def end(self) -> None:
        """Give up everything. Idempotent."""
        if self._expiry is not None:
            self._expiry.cancel()
        self._gateway.users.discard(self.identity.user_id, self._guest.connection_id)
        self._gateway.addresses.leave(self._place)
        self._place = ""

    def _warn(self, expires_at: float) -> None:
        self._guest.notify(server.TokenExpiring(expires_at=to_ms(expires_at)))

    def _expire(self) -> None:
        self._guest.end(CloseCode.TOKEN_EXPIRED)
