"""Limit of one user's connections on all gateways together.

No gateway knows another, and none keeps the count. A gateway with a new connection asks all gateways for the user's
connections, and the oldest beyond the limit are closed wherever they are. This costs one message to every gateway for
each new connection; without a limit nothing is asked. While the bus is away the limit holds for each gateway alone.
"""

from collections.abc import Callable, Mapping

import msgspec
import structlog

from services.bus.client import Bus, BusMessage
from services.bus.errors import BusError
from services.settings import Settings
from services.tasks import TaskSet
from services.wire.events import CloseConnections, RosterQuery, UserConnections

log = structlog.get_logger(__name__)

_ASK_S = 0.5
_STALL_S = 0.2  # gateways answer at once; which of them have such a user is not known

_encode = msgspec.json.Encoder().encode
_decode_query = msgspec.json.Decoder(RosterQuery).decode
_decode_roster = msgspec.json.Decoder(UserConnections).decode


def surplus(connections: Mapping[str, int], limit: int) -> list[str]:
    """Return all connections but the newest `limit`, oldest first. Values are opening times."""
    by_age = sorted(connections, key=lambda id: (connections[id], id))
    return by_age[: max(0, len(by_age) - limit)]


class UserLimit:
    """Counts this gateway's connections by user. `close` closes one of them."""

    def __init__(
        self,
        bus: Bus,
        settings: Settings,
        instance: str,
        tasks: TaskSet,
        close: Callable[[str], None],
    ) -> None:
        self._bus = bus
        self._subjects = settings.subjects
        self._limit = settings.connections_per_user
        self._instance = instance
        self._tasks = tasks
        self._close = close
        self._by_user: dict[str, dict[str, int]] = {}
        self._checking: dict[str, bool] = {}  # users being asked about; True: ask once more afterwards
        self._subscription = bus.subscribe(self._subjects.roster, self._on_query) if self._limit else None

    def add(self, user_id: str, connection_id: str, opened_at: int) -> None:
        """Count a connection, opened at that time (ms), and see that the user has no more than allowed."""
        if not self._limit or not user_id:
            return
        self._by_user.setdefault(user_id, {})[connection_id] = opened_at
        for oldest in surplus(self._by_user[user_id], self._limit):
            self.close_surplus(user_id, oldest)
        if user_id in self._checking:
            self._checking[user_id] = True
        else:
            self._checking[user_id] = False
            self._tasks.spawn(self._check(user_id), "connections of a user")

    def discard(self, user_id: str, connection_id: str) -> bool:
        """Stop counting a connection. True: it was counted."""
        connections = self._by_user.get(user_id)
        if connections is None or connections.pop(connection_id, None) is None:
            return False
        if not connections:
            del self._by_user[user_id]
        return True

    def close_surplus(self, user_id: str, connection_id: str) -> None:
        """Close a connection that a gateway found to be surplus."""
        if self.discard(user_id, connection_id):
            self._close(connection_id)

    def close(self) -> None:
        """End the subscription."""
        if self._subscription is not None:
            self._subscription.close()

    async def _check(self, user_id: str) -> None:
        try:
            while True:
                self._checking[user_id] = False
                await self._ask(user_id)
                if not self._checking[user_id]:
                    return
        finally:
            del self._checking[user_id]

    async def _ask(self, user_id: str) -> None:
        query = _encode(RosterQuery(user_id=user_id))
        try:
            answers = await self._bus.request_many(
                self._subjects.roster, query, timeout_s=_ASK_S, stall_s=_STALL_S
            )
            everywhere = dict(self._by_user.get(user_id, {}))
            for answer in answers:
                everywhere |= _decode_roster(answer.data).connections
            if found := surplus(everywhere, self._limit):
                self._bus.publish(self._subjects.control, _encode(CloseConnections(connection_ids=found)))
        except (BusError, msgspec.DecodeError) as fault:
            log.info("connections of a user are counted on this gateway alone", reason=str(fault))

    def _on_query(self, message: BusMessage) -> None:
        try:
            query = _decode_query(message.data)
        except (msgspec.DecodeError, RecursionError) as fault:
            log.error("roster query is not readable", reason=str(fault))
            return
        connections = self._by_user.get(query.user_id)
        if connections and message.reply:
            roster = UserConnections(gateway=self._instance, connections=connections)
            try:
                self._bus.publish(message.reply, _encode(roster))
            except BusError as fault:
                log.debug("roster not sent", reason=str(fault))
