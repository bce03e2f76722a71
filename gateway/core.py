"""The parts of one gateway, put together once and shared by all its connections."""

import secrets
import time
from typing import Protocol

from gateway.auth.authenticator import Authenticator
from gateway.auth.tickets import TicketStore
from gateway.delivery.fanout import Member
from gateway.delivery.history import History
from gateway.delivery.inbox import Inboxes
from gateway.delivery.logs import Logs
from gateway.delivery.publisher import Publisher
from gateway.delivery.rooms import Rooms
from gateway.delivery.traffic import Traffic
from gateway.feeds.everyone import Everyone
from gateway.feeds.logs import LogsFeed
from gateway.feeds.metrics import MetricsFeed
from gateway.presence.link import Announced, PresenceLink
from gateway.presence.views import Views
from gateway.reporting import Reporter
from services.bus.client import Bus
from services.settings import Settings
from services.tasks import TaskSet
from services.wire.codes import CloseCode
from services.wire.events import ControlEvent
from services.wire.records import GatewayStats


class Client(Member, Announced, Protocol):
    """A connection as the gateway's parts see it: it receives, it is announced, it can be sent away."""

    def end(self, code: CloseCode, *, retry_after_ms: int | None = None) -> None:
        """Say `disconnect` and close."""

    def abort(self) -> None:
        """End at once, with nothing more sent."""


def now_ms() -> int:
    """Return the time as it stands on the wire: ms since 1970."""
    return time.time_ns() // 1_000_000


class Gateway:
    """What every connection of this process uses."""

    def __init__(
        self,
        bus: Bus,
        settings: Settings,
        instance: str,
        authenticator: Authenticator,
        tickets: TicketStore,
    ) -> None:
        self.bus = bus
        self.settings = settings
        self.instance = instance
        self.boot = secrets.token_hex(8)
        self.started_at = now_ms()
        self.subjects = settings.subjects
        self.authenticator = authenticator
        self.tickets = tickets
        self.now_ms = now_ms
        self.draining = False
        self.tasks = TaskSet()
        self.traffic = Traffic()
        self.clients: dict[str, Client] = {}
        self.logs = Logs(bus, settings)
        self.rooms = Rooms(bus, self.logs, settings, self.tasks, self.traffic)
        self.inboxes = Inboxes(bus, self.logs, settings, self.tasks, self.traffic)
        self.history = History(self.logs, settings)
        self.publisher = Publisher(bus, self.logs, settings, now_ms)
        self.presence = PresenceLink(bus, settings, instance, self.boot, self.clients.values)
        self.views = Views(bus, settings, self.tasks, self.traffic)
        self.metrics = MetricsFeed(bus, settings, self.tasks, self.traffic)
        self.log_lines = LogsFeed(bus, settings, self.traffic)
        self.everyone = Everyone(bus, settings, self.traffic, self._on_control)
        self.reporter = Reporter(self)
        self.presence.on_applied = self.views.on_applied
        bus.on_reconnect(self._on_bus_return)

    async def open(self) -> None:
        """Open the durable logs and start what runs in the background.

        Raises:
            BusError: the streams cannot be opened.
        """
        await self.logs.open()
        self.tasks.spawn(self.presence.run(), "presence link")

    def readiness(self) -> dict[str, bool]:
        """Return what a gateway needs to take new connections, and whether it is there."""
        return {"bus": self.bus.healthy, "streams": self.logs.is_open, "serving": not self.draining}

    def stats(self) -> GatewayStats:
        """Return how this gateway is doing."""
        return self.reporter.stats()

    async def close(self) -> None:
        """Tell presence what is left to tell, and stop."""
        await self.tasks.close()
        await self.presence.close()
        self.rooms.close()
        self.metrics.close()
        self.everyone.close()

    async def _on_bus_return(self) -> None:
        """Bring everything up to date: nobody can say what was missed while the bus was away."""
        await self.logs.open()
        self.rooms.resync()
        self.inboxes.resync()
        self.views.resync()
        self.metrics.resync()

    def _on_control(self, event: ControlEvent) -> None:
        for member in self.inboxes.connections_of(event.user_id):
            client = self.clients.get(member.connection_id)
            if client is not None:
                client.end(CloseCode.DISCONNECTED)
