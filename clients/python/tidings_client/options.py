"""Options of a client."""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypedDict

import httpx

from tidings_client.clock import Clock, SystemClock
from tidings_client.codec import CodecName
from tidings_client.connection.backoff import Backoff
from tidings_client.connection.fallback import TransportKind
from tidings_client.transport.socket import Connect, connect


@dataclass(frozen=True, slots=True)
class CredentialRequest:
    """A request for a token or ticket. `refresh`: the last one was refused or expired, do not answer from a cache."""

    refresh: bool


CredentialCallback = Callable[[CredentialRequest], Awaitable[str] | str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """Options of a client. All times are seconds."""

    username: str | None = None
    """Display name, under `TIDINGS_AUTH=open`. It proves nothing."""
    token: str | CredentialCallback | None = None
    """A token (JWT), or a callback that returns one, called again when the last one expired or was refused. An API key
    allows requests to the HTTP API only: it cannot connect."""
    ticket: CredentialCallback | None = None
    """A callback that returns a one-time ticket, where another process keeps the token. Called for each connection."""
    session: str | None = None
    """The `session` of an earlier client, to be the same user again under `TIDINGS_AUTH=open`."""
    transports: Sequence[TransportKind] = ("websocket", "sse")
    """Transports in order of preference."""
    last_transport: TransportKind | None = None
    """The `status.transport` of an earlier client, for the first attempt, if it is among `transports`."""
    codec: CodecName = "json"
    """Encoding of WebSocket frames."""
    ack_timeout: float = 10.0
    """Time limit of an answer, after which the message is sent again or AckTimeout is raised."""
    tries: int = 5
    """Number of times a message is sent at most."""
    queue_limit: int = 100
    """Number of messages that may wait for a connection."""
    connect_timeout: float = 10.0
    """Time limit for opening a connection."""
    close_timeout: float = 2.0
    """Time that `close` may wait for the server's close frame."""
    backoff: Backoff = field(default_factory=Backoff)
    """Longest wait before the first reconnect (doubled each time), and before any."""
    history_limit: int = 300
    """Number of metrics records that are kept."""
    http: httpx.AsyncClient | None = None
    """HTTP client to use, for a proxy or certificates of your own. Tidings does not close it."""
    websocket: Mapping[str, Any] = field(default_factory=dict)
    """More arguments for `websockets.connect`: `ssl`, `proxy`, `additional_headers`."""
    connect: Connect = connect
    """Opens a WebSocket: for another implementation, or for tests."""
    clock: Clock = field(default_factory=SystemClock)
    """Time and random numbers, for tests."""

    def __post_init__(self) -> None:
        given = list(self.transports)
        if not given or not set(given) <= {"websocket", "sse"} or len(set(given)) < len(given):
            text = '`transports` are "websocket", "sse", or both in the order to try'
            raise ValueError(f"{text}; {given} are not")
        if self.codec not in ("json", "msgpack"):
            raise ValueError('`codec` is "json" or "msgpack"')
        if self.token is not None and self.ticket is not None:
            raise ValueError(
                "give `token` or `ticket`, not both: a ticket replaces a token that another process keeps"
            )
        if self.tries < 1 or self.queue_limit < 0:
            raise ValueError("`tries` is at least 1, `queue_limit` at least 0")


class OptionsDict(TypedDict, total=False):
    """The fields of `Options` as keyword arguments; a test compares them."""

    username: str | None
    token: str | CredentialCallback | None
    ticket: CredentialCallback | None
    session: str | None
    transports: Sequence[TransportKind]
    last_transport: TransportKind | None
    codec: CodecName
    ack_timeout: float
    tries: int
    queue_limit: int
    connect_timeout: float
    close_timeout: float
    backoff: Backoff
    history_limit: int
    http: httpx.AsyncClient | None
    websocket: Mapping[str, Any]
    connect: Connect
    clock: Clock
