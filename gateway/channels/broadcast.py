"""Broadcasts to every connection, and orders to all gateways."""

from collections.abc import Callable

import msgspec
import structlog

from gateway.delivery.counters import Counters
from gateway.delivery.encoded_message import EncodedMessage
from gateway.delivery.fanout import Fanout
from services.bus.client import Bus, BusMessage
from services.settings import Settings
from services.wire import server
from services.wire.events import BroadcastPublished, ControlEvent

log = structlog.get_logger(__name__)

_decode_broadcast = msgspec.json.Decoder(BroadcastPublished).decode
_decode_control = msgspec.json.Decoder(ControlEvent).decode


class Broadcasts:
    """The fan-out to all connections of this gateway, and the subscription to orders."""

    def __init__(
        self,
        bus: Bus,
        settings: Settings,
        counters: Counters,
        on_control: Callable[[ControlEvent, str], None],
    ) -> None:
        self.fanout = Fanout(counters, counts=True)
        self._on_order = on_control
        self._subscriptions = [
            bus.subscribe(settings.subjects.broadcast, self._on_broadcast),
            bus.subscribe(settings.subjects.control, self._on_control),
        ]

    def close(self) -> None:
        for subscription in self._subscriptions:
            subscription.close()

    def _on_broadcast(self, message: BusMessage) -> None:
        try:
            event = _decode_broadcast(message.data)
        except (msgspec.DecodeError, RecursionError) as fault:
            log.error("broadcast is not readable", reason=str(fault))
            return
        outbound = EncodedMessage(
            server.Broadcast(
                user_id=event.user_id,
                username=event.username,
                content=event.content,
                timestamp=event.timestamp,
            )
        )
        if event.exclude:
            self.fanout.send(outbound, event.exclude, None)
        else:
            self.fanout.send(outbound, "" if event.echo else event.origin, event.user_id)

    def _on_control(self, message: BusMessage) -> None:
        try:
            event = _decode_control(message.data)
        except (msgspec.DecodeError, RecursionError) as fault:
            log.error("control event is not readable", reason=str(fault))
            return
        self._on_order(event, message.reply)
