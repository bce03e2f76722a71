"""What can be chosen when a client is made."""

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
    """Asks for a token or ticket. `refresh`: the last one was refused or ran out, do not answer from a cache."""

    refresh: bool


CredentialCallback = Callable[[CredentialRequest], Awaitable[str] | str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """How a client behaves. All times are seconds."""

    username: str | None = None
    """Display name, where the server lets anyone in. It proves nothing."""
    token: str | CredentialCallback | None = None
    """A token (JWT), or who gives one: asked again when the last one ran out or was refused. With an API key there are
    requests to the server's API alone: it cannot connect."""
    ticket: CredentialCallback | None = None
    """Who gives one-time tickets, where somebody else keeps the token. Called for every connection."""
    session: str | None = None
    """The `session` of an earlier client: this is that user again, where the server lets anyone in."""
    transports: Sequence[TransportKind] = ("websocket", "sse")
    """In which order to try."""
    last_transport: TransportKind | None = None
    """The `status.transport` of an earlier client: the first attempt goes that way, if it is among `transports`."""
    codec: CodecName = "json"
    """How messages become frames."""
    ack_timeout: float = 10.0
    """How long an answer may take before the message is sent again, or given up."""
    tries: int = 5
    """How often a message is sent at most."""
    queue_limit: int = 100
    """How many messages may wait for a connection."""
    connect_timeout: float = 10.0
    """How long a connection may take to be made."""
    close_timeout: float = 2.0
    """How long `close` may wait for the server to say goodbye."""
    backoff: Backoff = field(default_factory=Backoff)
    """Limits of the wait before the first attempt to reconnect, and before any."""
    history_limit: int = 300
    """How many metrics records are kept."""
    http: httpx.AsyncClient | None = None
    """What HTTP goes through, for a proxy or certificates of your own. It is not closed by the client."""
    websocket: Mapping[str, Any] = field(default_factory=dict)
    """More arguments for `websockets.connect`: `ssl`, `proxy`, `additional_headers`."""
    connect: Connect = connect
    """Opens a WebSocket: another implementation, or a test's."""
    clock: Clock = field(default_factory=SystemClock)
    """Time and chance, for tests."""

    def __post_init__(self) -> None:
        given = list(self.transports)
        if not given or not set(given) <= {"websocket", "sse"} or len(set(given)) < len(given):
            text = '`transports` are "websocket", "sse", or both in the order to try'
            raise ValueError(f"{text}; {given} are not")
        if self.codec not in ("json", "msgpack"):
            raise ValueError('`codec` is "json" or "msgpack"')
        if self.token is not None and self.ticket is not None:
            raise ValueError(
                "give `token` or `ticket`: a ticket stands for the token that somebody else keeps"
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
