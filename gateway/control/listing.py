"""The connections of this gateway as the server API shows them, from what is known anyway.

Nothing is counted for each message that is sent: messages are counted by room, inbox and broadcast (`Fanout.sent`), bytes
by the kernel.
"""

import asyncio
import heapq
import time
from collections.abc import Collection, Iterable

from gateway.channels.broadcast import Broadcasts
from gateway.connections import Client, Connections
from gateway.delivery.fanout import Fanout
from gateway.delivery.inbox import Inboxes
from gateway.delivery.rooms import Rooms
from services.bus.client import Bus
from services.clock import now_ms
from services.wire.control import MAX_LISTED_ROOMS, ConnectionInfo, ConnectionPage, ConnectionQuery

# So that no search holds the event loop for long.
_IDS_AT_ONCE = 5000
_DESCRIBED_AT_ONCE = 50


class ConnectionListing:
    """Finds and describes connections of one gateway."""

    def __init__(
        self,
        bus: Bus,
        instance: str,
        connections: Connections,
        rooms: Rooms,
        inboxes: Inboxes,
        broadcasts: Broadcasts,
    ) -> None:
        self._bus = bus
        self._instance = instance
        self._connections = connections
        self._rooms = rooms
        self._inboxes = inboxes
        self._broadcasts = broadcasts

    async def answer(self, query: ConnectionQuery) -> ConnectionPage:
        """Return the connections of this gateway that fit."""
        if query.gateway and query.gateway != self._instance:
            return ConnectionPage(gateway=self._instance)
        ids = await _smallest(self._candidates(query), query.after, query.limit)
        room_bytes = self._bus.max_payload // 2
        found: list[ConnectionInfo] = []
        for number, id in enumerate(ids):
            if number % _DESCRIBED_AT_ONCE == _DESCRIBED_AT_ONCE - 1:
                await asyncio.sleep(0)
            if (client := self._connections.get(id)) is None:
                continue  # it closed meanwhile
            info = self._info(client)
            room_bytes -= _size(info)
            if room_bytes < 0 and found:
                return ConnectionPage(gateway=self._instance, connections=found, more=True)
            found.append(info)
        return ConnectionPage(gateway=self._instance, connections=found)

    def _candidates(self, query: ConnectionQuery) -> Collection[str]:
        """Return the ids of connections that fit the query, but for the cursor."""
        connections = self._connections
        if query.id:
            clients: Iterable[Client | None] = [connections.get(query.id)]
        elif query.user:
            clients = connections.of_user(query.user)
        elif query.room:
            return self._rooms.member_ids(query.room)
        else:
            return connections.ids
        return [
            client.connection_id
            for client in clients
            if client is not None
            and (not query.user or client.user_id == query.user)
            and (not query.room or query.room in client.rooms)
        ]

    def _info(self, client: Client) -> ConnectionInfo:
        """Return what is known of a connection."""
        figures = client.figures()
        sent = sum(fanout.sent for fanout in self._fanouts(client)) - client.sent_before
        now, now_s = now_ms(), time.monotonic()
        return ConnectionInfo(
            connection_id=client.connection_id,
            user_id=client.user_id,
            username=client.identity.username,
            gateway=self._instance,
            dialect="tidings",
            transport=figures.transport,
            since=now - round(1000 * (now_s - figures.opened_at)),
            address=figures.address,
            rooms=sorted(client.rooms)[:MAX_LISTED_ROOMS],
            channels=sorted(figures.channels)[:MAX_LISTED_ROOMS],
            messages_in=figures.messages_in,
            messages_out=max(0, sent),
            bytes_in=figures.bytes_in,
            bytes_out=figures.bytes_out,
            buffered_bytes=client.backlog,
            last_seen=now - round(1000 * (now_s - figures.seen_at)),
        )

    def _fanouts(self, client: Client) -> list[Fanout]:
        """Return the fan-outs that have the connection and count for it."""
        id = client.connection_id
        found = [self._broadcasts.fanout, self._inboxes.fanout(client.user_id)]
        found += [self._rooms.fanout(room) for room in client.rooms]
        return [fanout for fanout in found if fanout is not None and id in fanout]


async def _smallest(ids: Collection[str], after: str, limit: int) -> list[str]:
    """Return the smallest ids after one, in order; other work has its turns meanwhile."""
    found: list[str] = []
    every = list(ids)
    for start in range(0, len(every), _IDS_AT_ONCE):
        if start:
            await asyncio.sleep(0)
        last = found[-1] if len(found) == limit else ""
        fit = [id for id in every[start : start + _IDS_AT_ONCE] if id > after and (not last or id < last)]
        found = heapq.nsmallest(limit, [*found, *fit])
    return found


def _size(info: ConnectionInfo) -> int:
    """Return about how many bytes a connection takes in an answer, and no less."""
    names = [*info.rooms, *info.channels, info.username, info.user_id]
    return 600 + sum(6 * len(name) + 3 for name in names)
