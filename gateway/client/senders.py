"""The sessions of users who send over HTTP, where no connection has one."""

from collections.abc import Callable

from gateway.auth.identity import Identity
from gateway.client.commands import ClientState
from gateway.limits import Limit, Recent, refill_s
from services.settings import Settings


class HttpSenders:
    """A session for each user who sent something lately: the rules of a connection, and its rates, by user.

    A user without one gets one whose rates are unused, so a session is kept until they would be again.
    """

    def __init__(self, settings: Settings, on_limit: Callable[[Limit], object], now: float) -> None:
        self._settings = settings
        self._on_limit = on_limit
        rates = [
            settings.message_rate,
            settings.presence_rate,
            *(each.message_rate for each in settings.namespaces.values()),
        ]
        self._sessions: Recent[ClientState] = Recent(max(map(refill_s, rates)), now)

    def __len__(self) -> int:
        return len(self._sessions)

    def session(self, identity: Identity, rooms: set[str], now: float) -> ClientState:
        """Return the user's session, with what these credentials allow, as a member of these rooms."""
        session = self._sessions.get(
            identity.user_id, now, lambda: ClientState(identity, self._settings, now, self._on_limit)
        )
        session.identity = identity
        session.rooms = rooms
        return session
