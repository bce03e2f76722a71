"""What the client needs of a transport, and what a transport tells it."""

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from tidings_client.connection.fallback import TransportKind
from tidings_client.errors import TidingsError
from tidings_client.generated.wire import ClientMessage, Position, ServerMessage


@dataclass(frozen=True, slots=True)
class End:
    """Why a transport ended, and what that means for the next attempt."""

    reason: str
    reconnect: bool = True
    code: int | None = None
    retry_after: float | None = None
    """Seconds."""
    error: TidingsError | None = None
    """Set where credentials or the request were refused."""


@dataclass(frozen=True, slots=True)
class Interest:
    """What a client is in and follows now: a stream has to ask for it when it opens."""

    rooms: Mapping[str, Position | None]
    channels: Sequence[str]
    inbox: Position | None


class TransportEvents(Protocol):
    """What a transport reports. Nothing comes after `ended`, nor after it was closed."""

    def message(self, message: ServerMessage) -> None: ...

    def heard(self) -> None:
        """Anything arrived: the other side lives."""
        ...

    def inbox_at(self, position: Position) -> None:
        """A stream said where the user's inbox stands."""
        ...

    def ended(self, end: End) -> None: ...


class Transport(Protocol):
    """One connection to a server, from its opening to its end. It begins to open when it is made."""

    kind: TransportKind
    probes: bool
    """Whether `heartbeat` can be sent to see if the other side lives."""

    def send(self, message: ClientMessage) -> None:
        """Send, or raise a TidingsError for what the server would not take."""
        ...

    def settled(self) -> "asyncio.Future[None] | None":
        """Return what waits for the answers that matter before another transport takes over; None if nothing is open."""
        ...

    def close(self, *, left: bool) -> None:
        """End it. With `left` the user is gone; otherwise they may be back in a moment."""
        ...

    async def closed(self) -> None:
        """Wait until nothing of it is left."""
        ...


def end_of(fault: BaseException) -> End:
    """Return what a fault while opening means: refused credentials end everything, anything else may pass."""
    reason = str(fault) or type(fault).__name__
    if isinstance(fault, TidingsError):
        return End(reason, fault.retryable, retry_after=fault.retry_after, error=fault)
    return End(reason)
