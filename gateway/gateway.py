"""Composition root: the parts of one gateway, shared by all its connections."""

import asyncio
import secrets
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

import structlog

from gateway.auth.authenticator import Authenticator
from gateway.auth.revocation_log import RevocationLog
from gateway.auth.tickets import TicketStore
from gateway.calls import Calls
from gateway.channels.broadcast import Broadcasts
from gateway.channels.channels import Channels
from gateway.client.commands import HttpSenders
from gateway.connections import Connections
from gateway.control.control import Control
from gateway.control.listing import ConnectionListing
from gateway.delivery.counters import Counters
from gateway.delivery.history import History
from gateway.delivery.inbox import Inboxes
from gateway.delivery.publisher import Publisher, Sender
from gateway.delivery.reads import Reads
from gateway.delivery.resync import LeaderWatch, check_all, resume_all
from gateway.delivery.rooms import Rooms
from gateway.delivery.stream_subscription import DeliveryParts, StreamSubscription
from gateway.delivery.streams import Streams
from gateway.hooks.admission import Admitter
from gateway.metrics import MetricsReporter
from gateway.presence.online import OnlineLookup
from gateway.presence.reporter import PresenceReporter
from gateway.service_client import ServiceClient
from gateway.user_presence import UserPresence
from services.backoff import Backoff
from services.bus.client import Bus
from services.bus.errors import BusError, Unavailable
from services.settings import Settings
from services.tasks import TaskSet
from services.wire.codes import CloseCode
from services.wire.events import CloseConnections, ControlEvent, Revoked, SetPresence

if TYPE_CHECKING:
    from gateway.hooks.hooks import Hooks

log = structlog.get_logger(__name__)

_REOPEN_S = 1.0
_FIRST_READ_S = 15.0


class Gateway:
    """Makes the parts of one gateway, opens and closes them, and resumes them after an outage of the bus.

    Raises:
        ValueError: the settings of authentication do not fit (`Authenticator`).
    """

    def __init__(
        self, bus: Bus, settings: Settings, instance: str, on_failure: Callable[[BaseException], object]
    ) -> None:
        self.bus = bus
        self.settings = settings
        self.instance = instance
        self.tickets = TicketStore(bus, settings)
        self.authenticator = Authenticator(settings, self.tickets)
        self.hooks = _hooks(settings)
        self.admitter = Admitter(self.authenticator, self.hooks)
        self.tasks = tasks = TaskSet(on_failure)
        self.counters = counters = Counters()
        self.on_limit = counters.limit_hit  # one bound method for all connections
        self.connections = Connections(bus, settings, instance, tasks, counters)
        self.streams = streams = Streams(bus, settings)
        self.senders = HttpSenders(settings, streams.route, self.on_limit, time.monotonic())
        parts = DeliveryParts(bus, streams, settings, tasks, counters, Reads(self.on_limit))
        self.rooms = Rooms(parts)
        self.inboxes = Inboxes(parts)
        self.history = History(parts)
        self.set_publisher(Publisher(bus, streams, settings, self.on_limit))
        self.calls = Calls(bus, settings, tasks, counters, self.hooks)
        self.service_client = ServiceClient(bus, settings.subjects)
        boot = secrets.token_hex(8)
        self.presence = PresenceReporter(
            self.service_client, settings, instance, boot, lambda: self.connections
        )
        online = OnlineLookup(self.service_client, tasks)
        self.user_presence = UserPresence(
            bus, settings, self.connections, self.inboxes, self.presence, online
        )
        self.channels = Channels(bus, self.service_client, settings, tasks, counters)
        self.presence.on_applied = self.channels.presence.on_applied
        self.broadcasts = Broadcasts(bus, settings, counters, self._on_control)
        self.revocation_log = RevocationLog(
            bus, settings, self.authenticator.revocations, time.time, self._on_revoked
        )
        self.reporter = MetricsReporter(
            bus,
            settings,
            instance,
            boot,
            counters,
            rooms=self.rooms,
            users=self.inboxes,
            streams=lambda: [*streams.all, self.revocation_log.durable_log],
            draining=lambda: self.connections.draining,
        )
        listing = ConnectionListing(
            bus, instance, self.connections, self.rooms, self.inboxes, self.broadcasts
        )
        self.control = Control(bus, settings, instance, self.connections, listing)
        self._returns = 0
        self._closed = False
        self._elections = LeaderWatch(bus, settings, self._on_elected)
        bus.on_disconnect(self._on_bus_lost)
        bus.on_reconnect(self._on_bus_return)

    def set_publisher(self, publisher: Publisher) -> None:
        """Publish by it: `publisher` what servers send, `user_publisher` what the application may decide on."""
        self.publisher = self.user_publisher = publisher
        if self.hooks is not None and self.hooks.asks_publish:
            from gateway.hooks.publishing import HookedPublisher  # only where hooks are

            self.user_publisher = HookedPublisher(
                publisher, self.bus, self.streams, self.settings, self.on_limit, self.hooks, self.tasks
            )

    async def open(self) -> None:
        """Open the durable logs and start what runs in the background.

        Raises:
            BusError: the streams cannot be opened.
        """
        await self.streams.open()
        await self._read_revocations()
        self.tasks.spawn(self.presence.run(), "presence link", critical=True)

    async def _read_revocations(self) -> None:
        """Read them, and again while a stream that was made just now has no leader to read from."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + _FIRST_READ_S
        backoff = Backoff(_REOPEN_S, _REOPEN_S, jitter=0.9)
        while True:
            try:
                await self.revocation_log.open()
            except Unavailable as fault:
                if loop.time() > deadline:
                    raise
                log.info("revocations cannot be read yet", reason=str(fault))
                await backoff.wait()
            else:
                return

    def readiness(self) -> dict[str, bool]:
        """Return the checks that a gateway must pass to accept connections, with their results."""
        return {
            "bus": self.bus.healthy,
            "streams": self.streams.is_open and self.authenticator.revocations.current,
            "serving": not self.connections.draining,
        }

    async def close(self) -> None:
        """Send presence its last reports, and stop. Idempotent."""
        if self._closed:
            return
        self._closed = True
        await self.tasks.close()
        self.control.peers.leave()
        await self.presence.close()
        if self.hooks is not None:
            self.hooks.close()
        for part in (
            self.rooms,
            self.inboxes,
            self.channels,
            self.broadcasts,
            self.connections,
            self._elections,
            self.revocation_log,
            self.streams,
        ):
            part.close()

    async def require_join(self, sender: Sender, room: str) -> None:
        """Have the application decide whether a user may join a room, unless a connection of theirs here is in it.

        For what a user does to a room without joining it; servers with an API key have no user id, and may. Raises
        HookRefused, HookUnavailable.
        """
        if self.hooks is None or not self.hooks.asks_join or not sender.user_id:
            return
        connections = self.connections.of_user(sender.user_id)
        if not any(self.rooms.has(each.connection_id, room) for each in connections):
            await self.hooks.join(sender, room)

    def _on_bus_lost(self) -> None:
        self.streams.lost()
        self.revocation_log.lost()
        for subscription in self._subscriptions:
            subscription.pause()

    def _on_elected(self) -> None:
        if self.bus.connected:  # else the reconnect does it
            self.tasks.spawn(self._on_bus_return(), "after an election", critical=True)

    async def _on_bus_return(self) -> None:
        """Catch up: messages of any kind may have been missed while the bus was away.

        The durable logs may be others than before, or not ready yet; until they are open, rooms and inboxes wait.
        """
        self.control.peers.bus_returned()
        self.channels.resync()
        self._returns += 1
        this_return = self._returns
        backoff = Backoff(_REOPEN_S, _REOPEN_S, jitter=0.9)
        while this_return == self._returns:
            try:
                await self.streams.open()
                await self.revocation_log.open()
            except BusError as fault:
                log.warning("streams are not open again yet", reason=str(fault))
                await backoff.wait()
            else:
                self._resync()
                return

    def _resync(self) -> None:
        """Find the rooms and inboxes that miss messages. Two searches may overlap: the later one has less to check."""
        request_bytes = self.bus.max_payload // 2
        for durable_log, unsure in resume_all(self._subscriptions).items():
            check = check_all(durable_log, unsure, request_bytes)
            self.tasks.spawn(check, f"check {durable_log.spec.name}")

    @property
    def _subscriptions(self) -> list[StreamSubscription]:
        return [*self.rooms.subscriptions, *self.inboxes.subscriptions]

    def _on_control(self, event: ControlEvent, reply: str) -> None:
        match event:
            case CloseConnections():
                self.connections.close_surplus(event.connection_ids)
            case SetPresence():
                self.user_presence.on_order(event, reply)
            case _:
                for client in self.connections.of_user(event.user_id):
                    client.disconnect(CloseCode.DISCONNECTED, reason=event.reason)

    def _on_revoked(self, revoked: Revoked) -> None:
        for client in self.connections.concerned_by(revoked):
            client.disconnect(CloseCode.BAD_TOKEN)
        self.connections.end_room_tokens(revoked)


def _hooks(settings: Settings) -> "Hooks | None":
    if not settings.hooks:
        return None
    # Not at the top: a gateway without hooks needs no HTTP client.
    from gateway.hooks.caller import HookCaller
    from gateway.hooks.hooks import Hooks

    return Hooks(settings, HookCaller(settings))
