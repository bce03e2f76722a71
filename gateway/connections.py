"""The open connections and streams of this gateway, by id, by user and by token.

Orders reach every gateway: a user is to be disconnected, a token was revoked, a connection is one too many. Each is a
look-up here, so that it costs nothing on a gateway that it does not concern, however many connections that has.
"""

from collections.abc import Collection, Iterator
from typing import Protocol

from gateway.auth.identity import Identity
from gateway.auth.revocations import applies_to
from gateway.delivery.fanout import Member
from gateway.presence.batch_queue import Announced, Chosen
from gateway.stay import Stay
from services.wire.codes import CloseCode
from services.wire.events import Revoked


class Client(Member, Announced, Protocol):
    """A connection as the gateway's parts see it: it receives, it is announced, it can be sent away."""

    stay: Stay

    @property
    def rooms(self) -> Collection[str]:
        """The rooms it is in, or is about to join."""

    def end(self, code: CloseCode, *, retry_after_ms: int | None = None, reason: str = "") -> None:
        """Say `disconnect`, with that reason or the code's own, and close."""

    def abort(self) -> None:
        """End at once, with nothing more sent."""

    def chosen(self) -> Chosen | None:
        """Return what its user chose to show by it; None where presence knows nothing of this connection."""


class Connections:
    """Every WebSocket connection, event stream and metrics stream that was let in, until it is gone.

    A stream opened with an API key, or under `open` by nobody in particular, has no user: its user id is empty.
    """

    def __init__(self) -> None:
        self._by_id: dict[str, Client] = {}
        self._by_user = _Index()
        self._by_token = _Index()

    def __len__(self) -> int:
        return len(self._by_id)

    def __iter__(self) -> Iterator[Client]:
        return iter(list(self._by_id.values()))

    def __contains__(self, connection_id: str) -> bool:
        return connection_id in self._by_id

    def get(self, connection_id: str) -> Client | None:
        """Return a connection, if it is here."""
        return self._by_id.get(connection_id)

    def add(self, client: Client) -> None:
        """Take in a connection that was let in."""
        self._by_id[client.connection_id] = client
        self._by_user.add(client.user_id, client)
        self._by_token.add(client.stay.identity.token_id, client)

    def discard(self, connection_id: str) -> None:
        """Forget a connection, if it is here."""
        client = self._by_id.pop(connection_id, None)
        if client is not None:
            self._by_user.discard(client.user_id, connection_id)
            self._by_token.discard(client.stay.identity.token_id, connection_id)

    def renew(self, client: Client, identity: Identity) -> None:
        """Go on with other credentials of the same user."""
        self._by_token.discard(client.stay.identity.token_id, client.connection_id)
        client.stay.renew(identity)
        self._by_token.add(identity.token_id, client)

    def of_user(self, user_id: str) -> list[Client]:
        """Return the connections of a user."""
        return self._by_user.of(user_id)

    def rooms_of_user(self, user_id: str) -> int:
        """Return how many rooms a user's connections are in, together: how often a change of theirs is told."""
        return sum(len(client.rooms) for client in self.of_user(user_id))

    def concerned_by(self, revoked: Revoked) -> list[Client]:
        """Return the connections whose credentials a revocation is about."""
        near = self._by_token.of(revoked.token_id) if revoked.token_id else self.of_user(revoked.user_id)
        return [client for client in near if applies_to(revoked, client.stay.identity)]


class _Index:
    """Connections by something that several may share. The empty key stands for none, and is not kept.

    Nearly every user and token has one connection, which is kept as it is: a table for each would be 180 bytes.
    """

    def __init__(self) -> None:
        self._clients: dict[str, Client | dict[str, Client]] = {}

    def add(self, key: str, client: Client) -> None:
        if not key:
            return
        there = self._clients.setdefault(key, client)
        if isinstance(there, dict):
            there[client.connection_id] = client
        elif there is not client:
            self._clients[key] = {one.connection_id: one for one in (there, client)}

    def discard(self, key: str, connection_id: str) -> None:
        there = self._clients.get(key)
        if isinstance(there, dict):
            there.pop(connection_id, None)
            if not there:
                del self._clients[key]
        elif there is not None and there.connection_id == connection_id:
            del self._clients[key]

    def of(self, key: str) -> list[Client]:
        there = self._clients.get(key)
        if there is None:
            return []
        return list(there.values()) if isinstance(there, dict) else [there]
