"""Registry of the open connections and streams of this gateway: by id, by user, by token, with their limits.

Orders reach every gateway: disconnect a user, revoke a token, close a surplus connection. Each is a look-up here, so it
costs nothing on a gateway that it does not concern, however many connections that has.
"""

from collections.abc import Callable, Collection, Iterable, Iterator
from functools import partial
from typing import Protocol

from gateway.auth.expiry import CredentialTimer, to_ms
from gateway.auth.identity import Identity
from gateway.auth.revocations import applies_to
from gateway.delivery.counters import Counters
from gateway.delivery.fanout import Member
from gateway.http.client_address import TrustedProxies, ip_key_of
from gateway.limits import Limit
from gateway.presence.batch_queue import Announced, Chosen
from gateway.user_limit import UserLimit
from services.bus.client import Bus
from services.clock import now_ms
from services.settings import Settings
from services.tasks import TaskSet
from services.wire import server
from services.wire.codes import CloseCode
from services.wire.events import Revoked


class Client(Member, Announced, Protocol):
    """A connection as the gateway's parts see it."""

    identity: Identity
    ip_key: str  # of its slot in the per-IP limit; empty where none is held
    expiry: CredentialTimer | None  # of its credentials, once it is registered

    @property
    def rooms(self) -> Collection[str]:
        """The rooms it is in, or is about to join."""

    def notify(self, message: server.ServerMessage) -> None:
        """Send a message."""

    def end(self, code: CloseCode, *, retry_after_ms: int | None = None, reason: str = "") -> None:
        """Send `disconnect`, with that reason or the code's own, and close."""

    def abort(self) -> None:
        """Close at once, with nothing more sent."""

    def chosen(self) -> Chosen | None:
        """Return the status and custom data set by this connection; None where presence does not know it."""


class Connections:
    """Every accepted WebSocket connection, event stream and metrics stream, until it is gone.

    A stream opened with an API key, or anonymously under `open`, has no user: its user id is empty.
    """

    def __init__(
        self,
        bus: Bus,
        settings: Settings,
        instance: str,
        tasks: TaskSet,
        counters: Counters,
        proxies: TrustedProxies,
    ) -> None:
        self._by_id: dict[str, Client] = {}
        self._by_user = _Index()
        self._by_token = _Index()
        self._counters = counters
        self._proxies = proxies
        self._expiry_notice_s = settings.expiry_notice_s
        self._per_ip = PerIPLimit(settings.connections_per_address)
        self._per_user = UserLimit(bus, settings, instance, tasks, self._replace)

    def __len__(self) -> int:
        return len(self._by_id)

    def __iter__(self) -> Iterator[Client]:
        return iter(list(self._by_id.values()))

    def __contains__(self, connection_id: str) -> bool:
        return connection_id in self._by_id

    def get(self, connection_id: str) -> Client | None:
        """Return a connection, if it is here."""
        return self._by_id.get(connection_id)

    def reserve_ip(self, peer: str, header_lines: Callable[[str], list[str]]) -> str | None:
        """Reserve a per-IP slot. Return the IP key, or None if the limit is reached (and count the hit).

        `peer` is the address of the socket's other end, `header_lines` returns the lines of a header. The key becomes
        its client's `ip_key`, or goes to `release_ip`.
        """
        if not self._per_ip.limit:
            return ""
        ip_key = ip_key_of(self._proxies.client_ip(peer, header_lines(self._proxies.header)))
        if self._per_ip.reserve(ip_key):
            return ip_key
        self._counters.request_failed(Limit.ADDRESS_CONNECTIONS, our_fault=False)
        self._counters.limit_hit(Limit.ADDRESS_CONNECTIONS)
        return None

    def release_ip(self, ip_key: str) -> None:
        """Release a per-IP slot."""
        self._per_ip.release(ip_key)

    def add(self, client: Client) -> None:
        """Register an accepted connection: it counts among its user's, and its credentials expire."""
        identity = client.identity
        self._by_id[client.connection_id] = client
        self._by_user.add(client.user_id, client)
        self._by_token.add(identity.token_id, client)
        self._per_user.add(client.user_id, client.connection_id, now_ms())
        self._watch_expiry(client, identity)

    def discard(self, client: Client) -> None:
        """Forget a connection, and release its slots. Idempotent, and also for one that was never registered."""
        if self._by_id.pop(client.connection_id, None) is not None:
            self._by_user.discard(client.user_id, client.connection_id)
            self._by_token.discard(client.identity.token_id, client.connection_id)
            self._per_user.discard(client.user_id, client.connection_id)
        if client.expiry is not None:
            client.expiry.cancel()
        self._per_ip.release(client.ip_key)
        client.ip_key = ""

    def renew(self, client: Client, identity: Identity) -> None:
        """Replace a connection's credentials by others of the same user."""
        self._by_token.discard(client.identity.token_id, client.connection_id)
        client.identity = identity
        self._by_token.add(identity.token_id, client)
        self._watch_expiry(client, identity)

    def of_user(self, user_id: str) -> list[Client]:
        """Return the connections of a user."""
        return self._by_user.of(user_id)

    def rooms_of_user(self, user_id: str) -> int:
        """Return the number of rooms of a user's connections together: how often a change of theirs is sent."""
        return sum(len(client.rooms) for client in self.of_user(user_id))

    def concerned_by(self, revoked: Revoked) -> list[Client]:
        """Return the connections whose credentials were revoked."""
        near = self._by_token.of(revoked.token_id) if revoked.token_id else self.of_user(revoked.user_id)
        return [client for client in near if applies_to(revoked, client.identity)]

    def close_surplus(self, connection_ids: Iterable[str]) -> None:
        """Close connections that a gateway found to be too many for their user."""
        for connection_id in connection_ids:
            if (client := self._by_id.get(connection_id)) is not None:
                self._per_user.close_surplus(client.user_id, connection_id)

    def close(self) -> None:
        """End the subscription of the per-user limit."""
        self._per_user.close()

    def _replace(self, connection_id: str) -> None:
        if (client := self._by_id.get(connection_id)) is not None:
            self._counters.limit_hit(Limit.USER_CONNECTIONS)
            client.end(CloseCode.REPLACED)

    def _watch_expiry(self, client: Client, identity: Identity) -> None:
        if client.expiry is None:
            if identity.expires_at is None:
                return
            client.expiry = CredentialTimer(
                self._expiry_notice_s,
                lambda expires_at: client.notify(server.TokenExpiring(expires_at=to_ms(expires_at))),
                partial(client.end, CloseCode.TOKEN_EXPIRED),
            )
        client.expiry.start(identity.expires_at)


class PerIPLimit:
    """Per-IP connection limit. Addresses without connections are not remembered."""

    def __init__(self, limit: int) -> None:
        self.limit = limit  # 0: none
        self._open: dict[str, int] = {}

    def __len__(self) -> int:
        return len(self._open)

    def reserve(self, ip_key: str) -> bool:
        """Take a slot, if there is one."""
        count = self._open.get(ip_key, 0)
        if count >= self.limit:
            return False
        self._open[ip_key] = count + 1
        return True

    def release(self, ip_key: str) -> None:
        """Give a slot back; the empty key holds none."""
        left = self._open.get(ip_key, 0) - 1
        if left > 0:
            self._open[ip_key] = left
        else:
            self._open.pop(ip_key, None)


class _Index:
    """Connections by a key that several may share. The empty key stands for none, and is not kept.

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
