"""The `websockets` sans-IO core, as one connection uses it, and whether it has anything to remember."""

import logging

from websockets.frames import Frame
from websockets.protocol import Event, State
from websockets.server import ServerProtocol

from services.settings import Settings

# The core logs every frame when debugging; strangers' bytes do not belong into our log.
SILENT = logging.getLogger("tidings.websocket.core")
SILENT.disabled = True

_HEAD = 6  # two bytes and the mask (RFC 6455 §5.2)


class Core(ServerProtocol):
    """RFC 6455 for one connection."""

    def __init__(self, settings: Settings, state: State = State.OPEN) -> None:
        super().__init__(
            state=state,
            max_size=settings.max_message_bytes,
            logger=SILENT,
        )
        self._unread = 0  # bytes of the frame that is not whole yet

    def receive_data(self, data: bytes | bytearray) -> None:
        """See ServerProtocol."""
        self._unread += len(data)
        super().receive_data(data)

    def events_received(self) -> list[Event]:
        """See ServerProtocol."""
        events = super().events_received()
        for event in events:
            if isinstance(event, Frame):
                # A length that is not in its shortest form leaves something over: then this core is kept.
                size = len(event.data)
                self._unread -= size + _HEAD + (0 if size < 126 else 2 if size < 65_536 else 8)
        return events

    @property
    def is_between_frames(self) -> bool:
        """Whether the next byte begins a frame, of no message begun before, in which no extension has a say."""
        return (
            not self._unread
            and self.current_size is None
            and self.state is State.OPEN
            and not self.extensions
        )
