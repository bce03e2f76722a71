"""Registry of the open connections and streams of this gateway: by id, by user, by token, with their limits.

Orders reach every gateway: disconnect a user, revoke a token, close a surplus connection. Each is a look-up here, so it
costs nothing on a gateway that it does not concern, however many connections that has.
"""

import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Protocol

import msgspec
import structlog

from gateway.auth.expiry import CredentialTimer, to_ms
from gateway.auth.identity import Identity
from gateway.auth.revocations import applies_to
from gateway.delivery.counters import Counters
from gateway.delivery.fanout import Member
from gateway.http.client_address import TrustedProxies, ip_key_of
from gateway.limits import AcceptRateLimiter, Limit
from gateway.presence.batch_queue import Announced, Chosen
from services.bus.client import Bus, BusMessage
from services.bus.errors import BusError
from services.clock import now_ms
from services.settings import Settings
from services.tasks import TaskSet
from services.wire import server
from services.wire.codes import CloseCode, ErrorCode
from services.wire.events import CloseConnections, Revoked, RosterQuery, UserConnections
from services.wire.records import UNSET, UnsetType

log = structlog.get_logger(__name__)

_ASK_S = 0.5
_STALL_S = 0.2  # gateways answer at once; which of them have such a user is not known

_encode = msgspec.json.Encoder().encode
_decode_query = msgspec.json.Decoder(RosterQuery).decode
_decode_roster = msgspec.json.Decoder(UserConnections).decode


def disconnect_message(
    code: CloseCode, retry_after_ms: int | None = None, reason: str = ""
) -> server.Disconnect:
    """Return the last message of a connection, with that reason or the code's own."""
    return server.Disconnect(
        code=code.number,
        reason=reason or code.value.reason,
        reconnect=code.value.reconnect,
        retry_after_ms=UNSET if retry_after_ms is None else retry_after_ms,
    )


@dataclass(frozen=True, slots=True)
class Figures:
    """What a connection knows of itself. Times are seconds of the monotonic clock; UNSET is not known."""

    transport: str
    opened_at: float
    seen_at: float
    address: str
    channels: Collection[str]
    messages_in: int
    bytes_in: int | UnsetType
    bytes_out: int | UnsetType


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

    def end_room_tokens(self, revoked: Revoked) -> None:
        """Leave the rooms whose tokens were revoked."""

    def disconnect(self, code: CloseCode, *, retry_after_ms: int | None = None, reason: str = "") -> None:
        """Send `disconnect`, with that reason or the code's own, and close."""

    def abort(self) -> None:
        """Close at once, with nothing more sent."""

    def add_to_room(self, room: str, on_done: Callable[[ErrorCode | None], None]) -> None:
        """Join a room, whatever the grants say, and send `joined_room`. `on_done` gets None, or why it was refused."""

    def remove_from_room(self, room: str) -> bool:
        """Leave a room, and send `left_room`; return whether it was in it. The client may join again."""

    def figures(self) -> Figures:
        """Return what it knows of itself."""

    def chosen(self) -> Chosen | None:
        """Return the status and custom data set by this connection; None where presence does not know it."""


class Connections:
    """Every accepted WebSocket connection, event stream and metrics stream, until it is gone.

    A stream opened with an API key, or anonymously under `open`, has no user: its user id is empty.
    """

    def __init__(
        self, bus: Bus, settings: Settings, instance: str, tasks: TaskSet, counters: Counters
    ) -> None:
        self.draining = False
        self.proxies = TrustedProxies(settings.trusted_proxies, settings.proxy_header)
        self._by_id: dict[str, Client] = {}
        self._by_user = _Index()
        self._by_token = _Index()
        self._by_room_token = _Index()
        self._counters = counters
        self._accept_rate = AcceptRateLimiter(settings.accept_rate, time.monotonic())
        self._expiry_notice_s = settings.expiry_notice_s
        self._ip_limit = settings.connections_per_address  # 0: none
        self._by_ip: dict[str, int] = {}
        self._per_user = UserLimit(bus, settings, instance, tasks, self._replace)

    def __len__(self) -> int:
        return len(self._by_id)

    def __iter__(self) -> Iterator[Client]:
        return iter(list(self._by_id.values()))

    def __contains__(self, connection_id: str) -> bool:
        return connection_id in self._by_id

    @property
    def ids(self) -> Collection[str]:
        """The ids of all connections."""
        return self._by_id.keys()

    def get(self, connection_id: str) -> Client | None:
        """Return a connection, if it is here."""
        return self._by_id.get(connection_id)

    def accept_wait_s(self) -> float:
        """Return 0.0 for a connection within the accept rate, else the seconds to wait (and count the hit)."""
        wait_s = self._accept_rate.retry_after_s(time.monotonic())
        if wait_s:
            self._counters.request_failed(Limit.ACCEPT_RATE, our_fault=False)
            self._counters.limit_hit(Limit.ACCEPT_RATE)
        return wait_s

    def drain(self) -> None:
        """Accept no more connections: this gateway stops, and another one will accept them."""
        self.draining = True
        self._accept_rate.close()

    def reserve_ip(self, peer: str, header_lines: Callable[[str], list[str]]) -> str | None:
        """Reserve a per-IP slot. Return the IP key, or None if the limit is reached (and count the hit).

        `peer` is the address of the socket's other end, `header_lines` returns the lines of a header. The key becomes
        the client's `ip_key`, or goes to `release_ip`.
        """
        if not self._ip_limit:
            return ""
        ip_key = ip_key_of(self.proxies.client_ip(peer, header_lines(self.proxies.header)))
        count = self._by_ip.get(ip_key, 0)
        if count >= self._ip_limit:
            self._counters.request_failed(Limit.ADDRESS_CONNECTIONS, our_fault=False)
            self._counters.limit_hit(Limit.ADDRESS_CONNECTIONS)
            return None
        self._by_ip[ip_key] = count + 1
        return ip_key

    def release_ip(self, ip_key: str) -> None:
        """Release a per-IP slot; the empty key holds none."""
        left = self._by_ip.get(ip_key, 0) - 1
        if left > 0:
            self._by_ip[ip_key] = left
        else:  # addresses without connections are not remembered
            self._by_ip.pop(ip_key, None)

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
        self.release_ip(client.ip_key)
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

    def watch_token(self, token_id: str, client: Client) -> None:
        """Note that a room token of this client may be revoked."""
        self._by_room_token.add(token_id, client)

    def unwatch_token(self, token_id: str, client: Client) -> None:
        """Forget a room token of this client."""
        self._by_room_token.discard(token_id, client.connection_id)

    def end_room_tokens(self, revoked: Revoked) -> None:
        """End the memberships whose tokens were revoked."""
        near = self._by_room_token.of(revoked.token_id) if revoked.token_id else self.of_user(revoked.user_id)
        for client in near:
            client.end_room_tokens(revoked)

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
            client.disconnect(CloseCode.REPLACED)

    def _watch_expiry(self, client: Client, identity: Identity) -> None:
        if client.expiry is None:
            if identity.expires_at is None:
                return
            client.expiry = CredentialTimer(
                self._expiry_notice_s,
                lambda expires_at: client.notify(server.TokenExpiring(expires_at=to_ms(expires_at))),
                partial(client.disconnect, CloseCode.TOKEN_EXPIRED),
            )
        client.expiry.start(identity.expires_at)


def surplus(connections: Mapping[str, int], limit: int) -> list[str]:
    """Return all connections but the newest `limit`, oldest first. Values are opening times."""
    by_age = sorted(connections, key=lambda id: (connections[id], id))
    return by_age[: max(0, len(by_age) - limit)]


class UserLimit:
    """Limit of one user's connections on all gateways together. `close` closes one of this gateway.

    A gateway with a new connection asks all gateways for the user's connections, and the oldest beyond the limit are
    closed wherever they are: one message to every gateway for each new connection, none without a limit. While the bus
    is away the limit holds for each gateway alone.
    """

    def __init__(
        self,
        bus: Bus,
        settings: Settings,
        instance: str,
        tasks: TaskSet,
        close: Callable[[str], None],
    ) -> None:
        self._bus = bus
        self._subjects = settings.subjects
        self._limit = settings.connections_per_user
        self._instance = instance
        self._tasks = tasks
        self._close = close
        self._by_user: dict[str, dict[str, int]] = {}
        self._checking: dict[str, bool] = {}  # users being asked about; True: ask once more afterwards
        self._subscription = bus.subscribe(self._subjects.roster, self._on_query) if self._limit else None

    def add(self, user_id: str, connection_id: str, opened_at: int) -> None:
        """Count a connection, opened at that time (ms), and see that the user has no more than allowed."""
        if not self._limit or not user_id:
            return
        self._by_user.setdefault(user_id, {})[connection_id] = opened_at
        for oldest in surplus(self._by_user[user_id], self._limit):
            self.close_surplus(user_id, oldest)
        if user_id in self._checking:
            self._checking[user_id] = True
        else:
            self._checking[user_id] = False
            self._tasks.spawn(self._check(user_id), "connections of a user")

    def discard(self, user_id: str, connection_id: str) -> bool:
        """Stop counting a connection. True: it was counted."""
        connections = self._by_user.get(user_id)
        if connections is None or connections.pop(connection_id, None) is None:
            return False
        if not connections:
            del self._by_user[user_id]
        return True

    def close_surplus(self, user_id: str, connection_id: str) -> None:
        """Close a connection that a gateway found to be surplus."""
        if self.discard(user_id, connection_id):
            self._close(connection_id)

    def close(self) -> None:
        """End the subscription."""
        if self._subscription is not None:
            self._subscription.close()

    async def _check(self, user_id: str) -> None:
        try:
            while True:
                self._checking[user_id] = False
                await self._ask(user_id)
                if not self._checking[user_id]:
                    return
        finally:
            del self._checking[user_id]

    async def _ask(self, user_id: str) -> None:
        query = _encode(RosterQuery(user_id=user_id))
        try:
            answers = await self._bus.request_many(
                self._subjects.roster, query, timeout_s=_ASK_S, stall_s=_STALL_S
            )
            everywhere = dict(self._by_user.get(user_id, {}))
            for answer in answers:
                everywhere |= _decode_roster(answer.data).connections
            if found := surplus(everywhere, self._limit):
                self._bus.publish(self._subjects.control, _encode(CloseConnections(connection_ids=found)))
        except (BusError, msgspec.DecodeError) as fault:
            log.info("connections of a user are counted on this gateway alone", reason=str(fault))

    def _on_query(self, message: BusMessage) -> None:
        try:
            query = _decode_query(message.data)
        except (msgspec.DecodeError, RecursionError) as fault:
            log.error("roster query is not readable", reason=str(fault))
            return
        connections = self._by_user.get(query.user_id)
        if connections and message.reply:
            roster = UserConnections(gateway=self._instance, connections=connections)
            try:
                self._bus.publish(message.reply, _encode(roster))
            except BusError as fault:
                log.debug("roster not sent", reason=str(fault))


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
