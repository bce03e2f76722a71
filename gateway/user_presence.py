"""Presence as users set it and look it up: status and custom data by connection or over HTTP, and who is online."""

import time

import msgspec
import structlog

from gateway.channels import channel_names
from gateway.connections import Client, Connections
from gateway.delivery.inbox import Inboxes
from gateway.presence.online import OnlineLookup
from gateway.presence.reporter import PresenceReporter
from services.bus.client import Bus
from services.bus.errors import BusError, NoAnswer
from services.settings import Settings
from services.wire.events import SetPresence
from services.wire.grants import Grants
from services.wire.records import UNSET, Status, UnsetType
from services.wire.rpc import DataSet, StatusSet

log = structlog.get_logger(__name__)

_ORDER_TIMEOUT_S = 1.0  # for a gateway that has such a connection to confirm it


class UserPresence:
    """Sets the presence of users on any gateway, and looks it up."""

    def __init__(
        self,
        bus: Bus,
        settings: Settings,
        connections: Connections,
        inboxes: Inboxes,
        reporter: PresenceReporter,
        online: OnlineLookup,
    ) -> None:
        self._bus = bus
        self._subject = settings.subjects.control
        self._connections = connections
        self._inboxes = inboxes
        self._reporter = reporter
        self._online = online

    async def is_online(self, user_id: str, asker: Grants) -> bool | UnsetType:
        """Whether a user has a connection anywhere; unset if presence cannot answer, or the asker may not know."""
        if not asker.may_follow(channel_names.PRESENCE):
            return UNSET
        return True if user_id in self._inboxes else await self._online.ask(user_id)

    def choose(
        self, client: Client, *, status: Status | UnsetType = UNSET, custom_data: object = UNSET
    ) -> bool:
        """Set the status or custom data of a connection; False if presence does not know the connection."""
        chosen = client.chosen()
        if chosen is None:
            return False
        if status is not UNSET:
            chosen.status = status
            self._reporter.report(StatusSet(connection_id=client.connection_id, status=status))
        if custom_data is not UNSET:
            chosen.custom_data, chosen.custom_data_at = custom_data, time.monotonic()
            self._reporter.report(DataSet(connection_id=client.connection_id, custom_data=custom_data))
        return True

    async def order(self, order: SetPresence) -> bool:
        """Carry out an order on the gateways that have the connections; False if none has one.

        Raises:
            BusError: the other gateways cannot be asked.
        """
        found = self._carry_out(order)
        if found and order.connection_id:
            return True
        payload = msgspec.json.encode(order)
        if found:
            self._bus.publish(self._subject, payload)
            return True
        try:
            await self._bus.request(self._subject, payload, timeout_s=_ORDER_TIMEOUT_S)
        except NoAnswer:
            return False
        return True

    def on_order(self, order: SetPresence, reply: str) -> None:
        """Carry out an order of another gateway, and confirm it if such a connection is here."""
        if self._carry_out(order) and reply:
            try:
                self._bus.publish(reply, b"")
            except BusError as fault:
                log.debug("order not confirmed", reason=str(fault))

    def _carry_out(self, order: SetPresence) -> bool:
        clients = self._connections.of_user(order.user_id)
        if order.connection_id:
            clients = [client for client in clients if client.connection_id == order.connection_id]
        done = [self.choose(client, status=order.status, custom_data=order.custom_data) for client in clients]
        return any(done)
