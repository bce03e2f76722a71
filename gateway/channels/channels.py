"""The channels of a gateway, subscribed to by name: the same for WebSocket connections and SSE streams.

The inbox is not here: it belongs to one user, and every connection of that user receives it.
"""

from collections.abc import Collection, Iterator

import msgspec
import structlog

from gateway.channels.channel_names import ALERTS, LOGS, METRICS, presence_room
from gateway.channels.metrics import MetricsChannel
from gateway.channels.presence import PresenceChannels
from gateway.delivery.counters import Counters
from gateway.delivery.encoded_message import EncodedMessage
from gateway.delivery.fanout import Fanout, Member
from gateway.service_client import ServiceClient
from services.bus.client import Bus, BusMessage, Subscription
from services.settings import Settings
from services.tasks import TaskSet
from services.wire import server
from services.wire.events import LogReport

log = structlog.get_logger(__name__)

_decode = msgspec.json.Decoder(LogReport).decode


class Channels:
    """All channels of a gateway."""

    def __init__(
        self, bus: Bus, service_client: ServiceClient, settings: Settings, tasks: TaskSet, counters: Counters
    ) -> None:
        self.presence = PresenceChannels(bus, service_client, settings, tasks, counters)
        self.metrics = MetricsChannel(bus, service_client, settings, tasks, counters)
        self.logs = LogsChannel(bus, settings, counters)

    def follow(self, member: Member, names: Collection[str]) -> None:
        """Send the snapshots of these channels and every later event."""
        if feeds := {METRICS, ALERTS}.intersection(names):  # one snapshot for both
            self.metrics.follow(member, feeds)
        if LOGS in names:
            self.logs.follow(member)
        for room in _presence_rooms(names):
            self.presence.follow(member, room)

    def unfollow(self, connection_id: str, names: Collection[str]) -> None:
        """Stop sending these channels, as far as they are followed."""
        if feeds := {METRICS, ALERTS}.intersection(names):
            self.metrics.unfollow(connection_id, feeds)
        if LOGS in names:
            self.logs.unfollow(connection_id)
        for room in _presence_rooms(names):
            self.presence.unfollow(connection_id, room)

    def resync(self) -> None:
        """Fetch the snapshots again: events may have been missed."""
        self.presence.resync()
        self.metrics.resync()

    def close(self) -> None:
        self.presence.close()
        self.metrics.close()
        self.logs.close()


def _presence_rooms(names: Collection[str]) -> Iterator[str]:
    return (room for name in names if (room := presence_room(name)) is not None)


class LogsChannel:
    """Followers of the log stream. The gateway subscribes to it only while there are any."""

    def __init__(self, bus: Bus, settings: Settings, counters: Counters) -> None:
        self._fanout = Fanout(counters)
        self._bus = bus
        self._subject = settings.subjects.logs_feed
        self._subscription: Subscription | None = None

    def follow(self, member: Member) -> None:
        """Send every line from now on."""
        if self._subscription is None:
            self._subscription = self._bus.subscribe(self._subject, self._on_report)
        self._fanout.add(member)

    def unfollow(self, connection_id: str) -> None:
        """Stop sending; the last follower ends the subscription."""
        self._fanout.discard(connection_id)
        if not len(self._fanout):
            self.close()

    def close(self) -> None:
        if self._subscription is not None:
            self._subscription.close()
            self._subscription = None

    def _on_report(self, message: BusMessage) -> None:
        try:
            report = _decode(message.data)
        except (msgspec.DecodeError, RecursionError) as fault:
            log.error("log report is not readable", reason=str(fault))
            return
        for entry in report.entries:
            self._fanout.send(EncodedMessage(server.Log(data=entry)))
