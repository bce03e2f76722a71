"""What gateways ask each other about connections: every gateway answers for its own, by name.

An endpoint is asked of all gateways at once. A gateway announces itself with `ALIVE`, so that an answer can name those
that are silent.
"""

import msgspec

from services.wire.records import UNSET, Record, UnsetType
from services.wire.rpc import Message, RpcEndpoint

# What one page may have, and one connection may list.
MAX_PAGE = 1000
MAX_LISTED_ROOMS = 1000


class ConnectionInfo(Record, frozen=True, kw_only=True):
    """One connection. Times are ms since 1970; what the transport does not tell is absent.

    `messages_in` are messages of the client, `messages_out` those of its rooms, its inbox and broadcasts, without
    answers. `bytes_in` and `bytes_out` are of the TCP connection, of a stream those of its events. `buffered_bytes` wait
    in the gateway. `last_seen` is when anything last came from the client.
    """

    connection_id: str
    user_id: str
    username: str
    gateway: str
    dialect: str
    transport: str
    since: int
    address: str
    rooms: list[str]
    channels: list[str]
    messages_in: int
    messages_out: int
    bytes_in: int | UnsetType = UNSET
    bytes_out: int | UnsetType = UNSET
    buffered_bytes: int
    last_seen: int


class FromGateway(Message, frozen=True, kw_only=True):
    """Base of the answers: the name of the gateway."""

    gateway: str


class Alive(FromGateway, frozen=True, kw_only=True):
    """A gateway is there, or (with `leaving`) soon not any more."""

    leaving: bool = False


class ConnectionQuery(Message, frozen=True, kw_only=True):
    """Connections that fit all that is given, by id, after the id `after`."""

    id: str = ""
    user: str = ""
    room: str = ""
    gateway: str = ""
    after: str = ""
    limit: int = 1


class ConnectionPage(FromGateway, frozen=True, kw_only=True):
    """Connections by id. With `more` the page ends before `limit`, because it would not fit a message."""

    connections: list[ConnectionInfo] = msgspec.field(default_factory=list)
    more: bool = False


class EndConnection(Message, frozen=True, kw_only=True):
    """Disconnect one connection. `by` is who asked, for the log."""

    id: str
    reason: str = ""
    by: str = ""


class ConnectionEnded(FromGateway, frozen=True, kw_only=True):
    """Whether it was here, and whose it was."""

    found: bool = False
    user_id: str = ""


class MembershipOrder(Message, frozen=True, kw_only=True):
    """Join all connections of a user to a room, or (with `member` false) remove them."""

    user_id: str
    room: str
    member: bool
    by: str = ""


class MembershipDone(FromGateway, frozen=True, kw_only=True):
    """Connections of the user here; those joined or removed; codes of what others were refused with."""

    found: int = 0
    done: int = 0
    refused: list[str] = msgspec.field(default_factory=list)


GATEWAY_ALIVE = RpcEndpoint("gateway", "alive", Alive, Alive, timeout_s=1.0)
CONNECTIONS_LIST = RpcEndpoint("gateway", "connections", ConnectionQuery, ConnectionPage, timeout_s=2.0)
CONNECTION_END = RpcEndpoint("gateway", "disconnect", EndConnection, ConnectionEnded, timeout_s=2.0)
MEMBERSHIP = RpcEndpoint("gateway", "membership", MembershipOrder, MembershipDone, timeout_s=4.0)
