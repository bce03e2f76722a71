"""Composition root: the parts of one gateway, shared by all its connections."""

import asyncio
import secrets
import time
from collections.abc import Callable

import msgspec
import structlog

from gateway.auth.authenticator import Authenticator
from gateway.auth.revocation_log import RevocationLog
from gateway.auth.tickets import TicketStore
from gateway.channels import channel_names
from gateway.channels.broadcast import Broadcasts
from gateway.channels.logs import LogsChannel
from gateway.channels.metrics import MetricsChannel
from gateway.channels.presence import PresenceChannels
from gateway.client.commands import HttpSenders
from gateway.connections import Client, Connections
from gateway.delivery.counters import Counters
from gateway.delivery.history import History
from gateway.delivery.inbox import Inboxes
from gateway.delivery.publisher import Publisher
from gateway.delivery.reads import Reads
from gateway.delivery.resync import LeaderWatch, check_all, resume_all
from gateway.delivery.rooms import Rooms
from gateway.delivery.stream_subscription import DeliveryParts, StreamSubscription
from gateway.delivery.streams import Streams
from gateway.http.client_address import TrustedProxies
from gateway.limits import AcceptRateLimiter, KeyedBuckets, Limit
from gateway.metrics import MetricsReporter
from gateway.presence.online import OnlineLookup
from gateway.presence.reporter import PresenceReporter
from gateway.service_client import ServiceClient
from services.backoff import Backoff
from services.bus.client import Bus
from services.bus.errors import BusError, NoAnswer, Unavailable
from services.bus.streams import DurableLog
from services.settings import Settings
from services.tasks import TaskSet
from services.wire.codes import CloseCode
from services.wire.events import CloseConnections, ControlEvent, Revoked, SetPresence
from services.wire.grants import Grants
from services.wire.records import UNSET, GatewayStats, Status, UnsetType

log = structlog.get_logger(__name__)

_REOPEN_S = 1.0
_FIRST_READ_S = 15.0
_ORDER_TIMEOUT_S = 1.0  # for a gateway that has such a connection to say so


class Gateway:
    """The parts of one gateway, and the orders that concern all of it."""

    def __init__(
        self,
        bus: Bus,
        settings: Settings,
        instance: str,
        authenticator: Authenticator,
        tickets: TicketStore,
        on_failure: Callable[[BaseException], object],
    ) -> None:
        self.bus = bus
        self.settings = settings
        self.instance = instance
        self.boot = secrets.token_hex(8)
        self.subjects = settings.subjects
        self.authenticator = authenticator
        self.tickets = tickets
        self.draining = False
        self.tasks = TaskSet(on_failure)
        self.counters = Counters()
        self.accept_rate = AcceptRateLimiter(settings.accept_rate, time.monotonic())
        self.on_limit = self.counters.limit_hit  # one bound method for all sessions
        self.proxies = TrustedProxies(settings.trusted_proxies, settings.proxy_header)
        self._tickets_by_user = KeyedBuckets(settings.ticket_rate, time.monotonic())
        self.connections = Connections(bus, settings, instance, self.tasks, self.counters, self.proxies)
        self.streams = Streams(bus, settings)
        self.senders = HttpSenders(settings, self.streams.route, self.on_limit, time.monotonic())
        reads = Reads(self.counters.limit_hit)
        parts = DeliveryParts(bus, self.streams, settings, self.tasks, self.counters, reads)
        self.rooms = Rooms(parts)
        self.inboxes = Inboxes(parts)
        self.history = History(parts)
        self.publisher = Publisher(bus, self.streams, settings, self.counters.limit_hit)
        self.service_client = ServiceClient(bus, self.subjects)
        self._online = OnlineLookup(self.service_client, self.tasks)
        self.presence = PresenceReporter(
            self.service_client, settings, instance, self.boot, lambda: self.connections
        )
        self.presence_channels = PresenceChannels(
            bus, self.service_client, settings, self.tasks, self.counters
        )
        self.metrics_channel = MetricsChannel(bus, self.service_client, settings, self.tasks, self.counters)
        self.logs_channel = LogsChannel(bus, settings, self.counters)
        self.broadcasts = Broadcasts(bus, settings, self.counters, self._on_control)
        self.revocation_log = RevocationLog(
            bus, settings, authenticator.revocations, time.time, self._on_revoked
        )
        self.reporter = MetricsReporter(
            bus,
            settings,
            instance,
            self.boot,
            self.counters,
            rooms=self.rooms,
            users=self.inboxes,
            streams=lambda: self.durable_logs,
            draining=lambda: self.draining,
        )
        self.presence.on_applied = self.presence_channels.on_applied
        self._returns = 0
        self._closed = False
        self._elections = LeaderWatch(bus, settings, self._on_elected)
        bus.on_disconnect(self._on_bus_lost)
        bus.on_reconnect(self._on_bus_return)

    def accept_wait_s(self) -> float:
        """Return 0.0 for a connection within the accept rate, else the seconds to wait (and count it as met)."""
        wait_s = self.accept_rate.retry_after_s(time.monotonic())
        if wait_s:
            self.counters.request_failed(Limit.ACCEPT_RATE, our_fault=False)
            self.counters.limit_hit(Limit.ACCEPT_RATE)
        return wait_s

    def ticket_wait_s(self, user_id: str) -> float:
        """Return 0.0 where a user may have another ticket, else the seconds until then (and count it as met)."""
        wait_s = self._tickets_by_user.consume(user_id, time.monotonic())
        if wait_s:
            self.counters.limit_hit(Limit.TICKET_RATE)
        return wait_s

    # --- what users do, over a connection or over HTTP ---

    def owner_of(self, connection_id: str) -> str | None:
        """Return the user of a connection; None where this gateway has no such connection."""
        client = self.connections.get(connection_id)
        return None if client is None else client.user_id

    def note_message(self, user_id: str) -> None:
        """Count a message that a user sent over HTTP."""
        self.counters.messages_in += 1
        self.presence.active(user_id)

    async def is_online(self, user_id: str, asker: Grants) -> bool | UnsetType:
        """Whether a user has a connection anywhere; unset where presence cannot say, or the asker may not know."""
        if not asker.may_follow(channel_names.PRESENCE):
            return UNSET
        return True if user_id in self.inboxes else await self._online.ask(user_id)

    def choose(
        self, client: Client, *, status: Status | UnsetType = UNSET, custom_data: object = UNSET
    ) -> bool:
        """Show a status or custom data by a connection; False where presence knows nothing of it."""
        chosen = client.chosen()
        if chosen is None:
            return False
        if status is not UNSET:
            chosen.status = status
            self.presence.status(client.connection_id, status)
        if custom_data is not UNSET:
            chosen.custom_data, chosen.custom_data_at = custom_data, time.monotonic()
            self.presence.custom_data(client.connection_id, custom_data)
        return True

    async def set_presence(self, order: SetPresence) -> bool:
        """Carry out what a user chose over HTTP, wherever the connection is; False where no gateway has one.

        Raises:
            BusError: the other gateways cannot be asked.
        """
        found = self._set_presence_here(order)
        if found and order.connection_id:
            return True
        payload = msgspec.json.encode(order)
        if found:
            self.bus.publish(self.subjects.control, payload)
            return True
        try:
            await self.bus.request(self.subjects.control, payload, timeout_s=_ORDER_TIMEOUT_S)
        except NoAnswer:
            return False
        return True

    def _set_presence_here(self, order: SetPresence) -> bool:
        if order.connection_id:
            one = self.connections.get(order.connection_id)
            clients = [one] if one is not None and one.user_id == order.user_id else []
        else:
            clients = self.connections.of_user(order.user_id)
        done = [self.choose(client, status=order.status, custom_data=order.custom_data) for client in clients]
        return any(done)

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

    @property
    def durable_logs(self) -> list[DurableLog]:
        """All streams that are read and written here."""
        return [*self.streams.all, self.revocation_log.durable_log]

    def readiness(self) -> dict[str, bool]:
        """Return the checks that a gateway must pass to accept connections, with their results."""
        return {
            "bus": self.bus.healthy,
            "streams": self.streams.is_open and self.authenticator.revocations.current,
            "serving": not self.draining,
        }

    def details(self) -> dict[str, object]:
        """Return further details for `/readyz`."""
        return {"breakers": self.service_client.breaker_states()}

    def stats(self) -> GatewayStats:
        """Return this gateway's current figures."""
        return self.reporter.stats()

    async def close(self) -> None:
        """Send presence its last reports, and stop. Idempotent."""
        if self._closed:
            return
        self._closed = True
        await self.tasks.close()
        await self.presence.close()
        for part in (
            self.rooms,
            self.inboxes,
            self.presence_channels,
            self.metrics_channel,
            self.logs_channel,
            self.broadcasts,
            self.connections,
            self._elections,
            self.revocation_log,
            self.streams,
        ):
            part.close()

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
        self.presence_channels.resync()
        self.metrics_channel.resync()
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
        if isinstance(event, CloseConnections):
            self.connections.close_surplus(event.connection_ids)
            return
        if isinstance(event, SetPresence):
            if self._set_presence_here(event) and reply:
                self._confirm(reply)
            return
        for client in self.connections.of_user(event.user_id):
            client.end(CloseCode.DISCONNECTED, reason=event.reason)

    def _confirm(self, reply: str) -> None:
        try:
            self.bus.publish(reply, b"")
        except BusError as fault:
            log.debug("order not confirmed", reason=str(fault))

    def _on_revoked(self, revoked: Revoked) -> None:
        for client in self.connections.concerned_by(revoked):
            client.end(CloseCode.BAD_TOKEN)
