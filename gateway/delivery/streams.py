"""The durable logs: one stream per durable namespace, one for the inboxes.

Streams are per namespace because their limits are: history size and age hold for every room of a namespace.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache, partial

from services.bus.client import Bus
from services.bus.errors import Unavailable
from services.bus.specs import inbox_spec, room_specs
from services.bus.streams import DurableLog
from services.settings import Settings
from services.settings_values import Namespace

_ROUTES = 16_384  # with more rooms in use, routes are resolved repeatedly


@dataclass(frozen=True, slots=True)
class RoomRoute:
    """Where messages of a room go: resolved once, and kept by each connection in the room."""

    room: str
    namespace: str
    options: Namespace
    stream: DurableLog | None  # None where the namespace is ephemeral
    subject: str


def route_of(settings: Settings, streams: Mapping[str, DurableLog], room: str) -> RoomRoute:
    """Resolve the namespace, options, stream and subject of a room."""
    namespace = settings.namespace_of(room)
    stream = streams.get(namespace)
    subject_of = settings.subjects.room_out if stream is None else settings.subjects.room_in
    return RoomRoute(room, namespace, settings.namespaces[namespace], stream, subject_of(namespace, room))


class Streams:
    """Opens the streams and finds the one for a room."""

    def __init__(self, bus: Bus, settings: Settings) -> None:
        self.is_open = False
        timeout_s = settings.publish_timeout_s
        by_namespace = {name: DurableLog(bus, spec, timeout_s) for name, spec in room_specs(settings).items()}
        self.route = lru_cache(_ROUTES)(partial(route_of, settings, by_namespace))
        self.inbox = DurableLog(bus, inbox_spec(settings), timeout_s)
        self.all = [*by_namespace.values(), self.inbox]

    async def open(self) -> None:
        """Create or enlarge all streams and learn their epochs; again after each reconnect.

        Raises:
            BusError: a stream cannot be opened.
        """
        for durable_log in self.all:
            await durable_log.open()
        self.is_open = True

    def lost(self) -> None:
        """Note that the bus is away: until the next `open` the streams may be others."""
        self.is_open = False

    def close(self) -> None:
        """Stop waiting for acknowledgements."""
        self.is_open = False
        for durable_log in self.all:
            durable_log.close()

    def require_open(self) -> None:
        """Raise Unavailable unless the streams are open, so that positions are valid."""
        if not self.is_open:
            raise Unavailable("the streams are not open again yet")
