"""The interface of transports, and of what they report to."""

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from tidings_client.connection.fallback import TransportKind
from tidings_client.errors import TidingsError
from tidings_client.generated.wire import ClientJoinRoom, ClientMessage, Position, ServerMessage


@dataclass(frozen=True, slots=True)
class End:
    """Why a transport ended, and whether to reconnect."""

    reason: str
    reconnect: bool = True
    code: int | None = None
    retry_after: float | None = None
    """Seconds."""
    error: TidingsError | None = None
    """Set where credentials or the request were refused."""


@dataclass(frozen=True, slots=True)
class Interest:
    """The client's rooms, channels and inbox position: an SSE stream requests them when it opens."""

    rooms: Mapping[str, ClientJoinRoom]
    channels: Sequence[str]
    inbox: Position | None


class TransportEvents(Protocol):
    """Callbacks of a transport. None is called after `ended` or `close`."""

    def message(self, message: ServerMessage) -> None: ...

    def heard(self) -> None:
        """Something arrived: the server is alive."""
        ...

    def inbox_at(self, position: Position) -> None:
        """The inbox's position, from an SSE stream."""
        ...

    def ended(self, end: End) -> None: ...


class Transport(Protocol):
    """One connection to a server, from its opening to its end. The constructor starts opening it."""

    kind: TransportKind
    probes: bool
    """Whether `heartbeat` can be sent as a probe."""

    def send(self, message: ClientMessage) -> None:
        """Send, or raise a TidingsError for what the server would not accept."""
        ...

    def settled(self) -> "asyncio.Future[Any] | None":
        """Return a future that is done when all that was sent is answered; None if nothing is open."""
        ...

    def close(self, *, left: bool) -> None:
        """Close it. `left`: the user is gone; otherwise the user may reconnect within the grace."""
        ...

    async def closed(self) -> None:
        """Wait until its tasks have ended."""
        ...


def end_of(fault: BaseException) -> End:
    """Return the End for an error while opening: a refusal is final, any other error is retried."""
    reason = str(fault) or type(fault).__name__
    if isinstance(fault, TidingsError):
        return End(reason, fault.retryable, retry_after=fault.retry_after, error=fault)
    return End(reason)
