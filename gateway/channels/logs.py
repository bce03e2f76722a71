"""The `logs` channel: subscribed to on the bus only while it has followers."""

import msgspec
import structlog

from gateway.delivery.counters import Counters
from gateway.delivery.encoded_message import EncodedMessage
from gateway.delivery.fanout import Fanout, Member
from services.bus.client import Bus, BusMessage, Subscription
from services.settings import Settings
from services.wire import server
from services.wire.events import LogReport

log = structlog.get_logger(__name__)

_decode = msgspec.json.Decoder(LogReport).decode


class LogsChannel:
    """Followers of the log stream."""

    def __init__(self, bus: Bus, settings: Settings, counters: Counters) -> None:
        self.fanout = Fanout(counters)
        self._bus = bus
        self._subject = settings.subjects.logs_feed
        self._subscription: Subscription | None = None

    def follow(self, member: Member) -> None:
        """Send every line from now on."""
        if self._subscription is None:
            self._subscription = self._bus.subscribe(self._subject, self._on_report)
        self.fanout.add(member)

    def unfollow(self, connection_id: str) -> None:
        """Stop sending; the last follower ends the subscription."""
        self.fanout.discard(connection_id)
        if not len(self.fanout):
            self.close()

    def close(self) -> None:
        """End the subscription."""
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
            self.fanout.send(EncodedMessage(server.Log(data=entry)))
