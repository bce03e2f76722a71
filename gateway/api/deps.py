"""What the HTTP handlers need from the rest of the gateway."""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Protocol

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from gateway.auth.authenticator import Authenticator
from gateway.auth.tickets import TicketStore
from gateway.client.senders import HttpSenders
from gateway.delivery.publisher import Sender
from gateway.limits import Limit
from gateway.service_client import Asking
from services.bus.client import Bus
from services.settings import Settings
from services.wire import server
from services.wire.events import Revoked, SetPresence
from services.wire.grants import Grants
from services.wire.records import UNSET, GatewayStats, UnsetType
from services.wire.subjects import Subjects

Handler = Callable[[Request], Awaitable[Response]]


class Publisher(Protocol):
    """Where messages go in. Every method raises PublishRefused or BusError.

    Messages with an equal `id`, of one sender to one room or user, are stored once.
    """

    async def publish_room(
        self,
        sender: Sender,
        room: str,
        content: msgspec.Raw,
        id: str | UnsetType = UNSET,
        *,
        echo: bool = False,
    ) -> server.Ack:
        """Publish to a room and wait until it is stored; with `echo` the sender's connection gets a copy too."""

    async def publish_user(
        self, sender: Sender, user_id: str, content: msgspec.Raw, id: str | UnsetType = UNSET
    ) -> server.Ack:
        """Publish to a user's inbox and wait until it is stored."""

    async def broadcast(
        self, sender: Sender, content: msgspec.Raw, id: str | UnsetType = UNSET
    ) -> server.Ack:
        """Publish to every connection there is."""


class RoomHistory(Protocol):
    """A piece of a room's past, oldest first, and the position the room has reached."""

    @property
    def epoch(self) -> str: ...

    @property
    def last_seq(self) -> int: ...

    @property
    def messages(self) -> Sequence[server.RoomMessage]: ...


class History(Protocol):
    """Reads what rooms keep."""

    async def room_history(
        self, room: str, *, limit: int, before: int | None, since: int | None
    ) -> RoomHistory:
        """Return at most `limit` messages: the newest, the newest before `before`, or those after `since`.

        Raises:
            BusError: the room's log cannot be read.
        """


class RevocationPublisher(Protocol):
    """Where revocations go in, for all gateways."""

    async def publish(self, revoked: Revoked) -> None:
        """Store a revocation. Raises BusError."""


class ApiDeps(Protocol):
    """All of it."""

    @property
    def settings(self) -> Settings: ...

    @property
    def bus(self) -> Bus: ...

    @property
    def subjects(self) -> Subjects: ...

    @property
    def asking(self) -> Asking: ...

    @property
    def authenticator(self) -> Authenticator: ...

    @property
    def revocation_log(self) -> RevocationPublisher: ...

    @property
    def tickets(self) -> TicketStore: ...

    @property
    def publisher(self) -> Publisher: ...

    @property
    def history(self) -> History: ...

    @property
    def senders(self) -> HttpSenders: ...

    @property
    def on_limit(self) -> Callable[[Limit], object]: ...

    def owner_of(self, connection_id: str) -> str | None:
        """Return whose connection this is; None where this gateway has none of that id."""

    def note_message(self, user_id: str) -> None:
        """Count a message that a user sent over HTTP."""

    async def is_online(self, user_id: str, asker: Grants) -> bool | UnsetType:
        """Whether a user has a connection anywhere; unset where presence cannot say."""

    async def set_presence(self, order: SetPresence) -> bool:
        """Carry out what a user chose, on whatever gateway; False where they have no such connection.

        Raises BusError.
        """

    def ticket_wait_s(self, user_id: str) -> float:
        """Return 0.0 where a user may have another ticket now, else the seconds until then."""

    def readiness(self) -> dict[str, bool]:
        """Return each thing this gateway needs to serve, and whether it is there."""

    def details(self) -> Mapping[str, object]:
        """Return what else a reader of `/readyz` may want to know; none of it makes the gateway unready."""

    def stats(self) -> GatewayStats:
        """Return what this gateway says of itself."""
