"""The durable logs: one stream per durable namespace, one for the inboxes.

Streams are per namespace because their limits are: history size and age hold for every room of a namespace.
"""

from services.bus.client import Bus
from services.bus.errors import Unavailable
from services.bus.streams import DurableLog, StreamSpec
from services.settings import Settings

# A direct message waits for its user as long as a room's message waits for its members.
INBOX_SIZE = 100
INBOX_TTL_S = 600


class Logs:
    """Opens the streams and finds the one for a room."""

    def __init__(self, bus: Bus, settings: Settings) -> None:
        self.is_open = False
        subjects = settings.subjects
        self._by_namespace = {
            name: DurableLog(
                bus,
                StreamSpec(
                    name=subjects.rooms_stream(name),
                    captured=subjects.rooms_captured(name),
                    republished=subjects.rooms_republished(name),
                    max_per_subject=namespace.history_size,
                    max_age_s=namespace.history_ttl_s,
                    duplicate_window_s=settings.duplicate_window_s,
                    replicas=settings.replicas,
                ),
                publish_timeout_s=settings.publish_timeout_s,
            )
            for name, namespace in settings.namespaces.items()
            if namespace.durable
        }
        self.inbox = DurableLog(
            bus,
            StreamSpec(
                name=subjects.inbox_stream,
                captured=subjects.inboxes_captured,
                republished=subjects.inboxes_republished,
                max_per_subject=INBOX_SIZE,
                max_age_s=INBOX_TTL_S,
                duplicate_window_s=settings.duplicate_window_s,
                replicas=settings.replicas,
            ),
            publish_timeout_s=settings.publish_timeout_s,
        )

    async def open(self) -> None:
        """Create or update all streams and learn their epochs; again after each reconnect.

        Raises:
            BusError: a stream cannot be opened.
        """
        for durable_log in (*self._by_namespace.values(), self.inbox):
            await durable_log.open()
        self.is_open = True

    def lost(self) -> None:
        """Note that the bus is away: until `open` the streams may be others than those that were opened."""
        self.is_open = False

    def require_open(self) -> None:
        """Let pass while positions mean something.

        Raises:
            Unavailable: the streams are not open, or not open again yet.
        """
        if not self.is_open:
            raise Unavailable("the streams are not open again yet")

    def of_namespace(self, namespace: str) -> DurableLog | None:
        """Return the log of a namespace, or None where it is ephemeral."""
        return self._by_namespace.get(namespace)
