"""Finds, changes and ends connections on all gateways, for the server API."""

import asyncio
import heapq

import structlog

from gateway.connections import Client, Connections
from gateway.control.listing import ConnectionListing
from gateway.control.peers import Peers
from services.bus.client import Bus
from services.bus.rpc import Service
from services.settings import Settings
from services.telemetry import MetricName, counter
from services.wire.codes import CloseCode, ErrorCode
from services.wire.control import (
    CONNECTION_END,
    CONNECTIONS_LIST,
    GATEWAY_ALIVE,
    MEMBERSHIP,
    ConnectionEnded,
    ConnectionInfo,
    ConnectionQuery,
    EndConnection,
    MembershipDone,
    MembershipOrder,
)

log = structlog.get_logger(__name__)

_JOIN_WAIT_S = 3.0
_ORDERS = counter(MetricName.GATEWAY_CONTROL_ORDERS)


class Control:
    """This gateway's part: it asks all gateways, and answers for its own connections."""

    def __init__(
        self,
        bus: Bus,
        settings: Settings,
        instance: str,
        connections: Connections,
        listing: ConnectionListing,
    ) -> None:
        self.peers = Peers(bus, settings.subjects, instance)
        self._instance = instance
        self._connections = connections
        self._listing = listing

    def serve(self, service: Service) -> None:
        """Declare what is answered to other gateways."""
        service.endpoint(GATEWAY_ALIVE, self.peers.on_alive, queue=False)
        service.endpoint(CONNECTIONS_LIST, self._listing.answer, queue=False)
        service.endpoint(CONNECTION_END, self._end, queue=False)
        service.endpoint(MEMBERSHIP, self._move, queue=False)

    # --- the list ---

    async def page(self, query: ConnectionQuery) -> tuple[list[ConnectionInfo], str, list[str]]:
        """Return connections of all gateways by id, where to go on (empty: nowhere), and the silent gateways."""
        answers = await self.peers.ask(CONNECTIONS_LIST, query, only=query.gateway)
        # Beyond the end of a page that was cut, that gateway may have more.
        cut = [reply.connections[-1].connection_id for reply in answers.replies if reply.more]
        last = min(cut, default="")
        found = heapq.merge(
            *(reply.connections for reply in answers.replies), key=lambda each: each.connection_id
        )
        known = [each for each in found if not cut or each.connection_id <= last]
        page = known[: query.limit]
        full = (
            len(known) > len(page)
            or bool(cut)
            or any(len(reply.connections) >= query.limit for reply in answers.replies)
        )
        return page, page[-1].connection_id if page and full else "", answers.silent

    # --- one connection ---

    async def disconnect(self, order: EndConnection) -> tuple[ConnectionEnded | None, list[str]]:
        """End one connection wherever it is. Return who had it (None: no gateway), and the silent gateways."""
        answers = await self.peers.ask(CONNECTION_END, order)
        ended = next((reply for reply in answers.replies if reply.found), None)
        if ended is not None:
            _ORDERS.labels("disconnect").inc()
        return ended, answers.silent

    async def _end(self, order: EndConnection) -> ConnectionEnded:
        client = self._connections.get(order.id)
        if client is None:
            return ConnectionEnded(gateway=self._instance)
        log.info("connection ended by the server API", connection=order.id, user=client.user_id, by=order.by)
        client.disconnect(CloseCode.DISCONNECTED, reason=order.reason)
        return ConnectionEnded(gateway=self._instance, found=True, user_id=client.user_id)

    # --- membership ---

    async def move(self, order: MembershipOrder) -> tuple[list[MembershipDone], list[str]]:
        """Join a user's connections to a room, or remove them. Return the answers of gateways, and the silent ones."""
        answers = await self.peers.ask(MEMBERSHIP, order)
        _ORDERS.labels("join" if order.member else "remove").inc()
        return answers.replies, answers.silent

    async def _move(self, order: MembershipOrder) -> MembershipDone:
        clients = self._connections.of_user(order.user_id)
        if not clients:
            return MembershipDone(gateway=self._instance)
        refused: list[str] = []
        if order.member:
            outcomes = await asyncio.gather(*(_joined(client, order.room) for client in clients))
            refused = sorted({code.code for code in outcomes if code is not None})
            done = outcomes.count(None)
        else:
            done = sum(client.remove_from_room(order.room) for client in clients)
        what = (
            "user joined to a room by the server API"
            if order.member
            else "user removed from a room by the server API"
        )
        log.info(what, user=order.user_id, room=order.room, connections=done, by=order.by)
        return MembershipDone(gateway=self._instance, found=len(clients), done=done, refused=refused)


async def _joined(client: Client, room: str) -> ErrorCode | None:
    """Join a connection to a room; return why it is no member, or None."""
    done: asyncio.Future[ErrorCode | None] = asyncio.get_running_loop().create_future()

    def on_done(refusal: ErrorCode | None) -> None:
        if not done.done():
            done.set_result(refusal)

    client.add_to_room(room, on_done)
    try:
        return await asyncio.wait_for(done, _JOIN_WAIT_S)
    except TimeoutError:
        return ErrorCode.UNAVAILABLE
