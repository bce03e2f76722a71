"""`/ws/echo`: every message comes back as it came. For connection checks and conformance suites."""

from collections.abc import Callable

from gateway.ws.protocol import WebSocketProtocol
from services.wire.codes import CloseCode


class Echo:
    """The handler of one echo connection."""

    __slots__ = ("_link", "_on_end", "write")

    def __init__(self, link: WebSocketProtocol, on_end: Callable[[], None]) -> None:
        self._link = link
        self._on_end = on_end
        self.write: Callable[[bytes], None] = link.write

    def on_message(self, data: bytes, binary: bool) -> None:
        """Send it back."""
        self._link.send_message(data, binary)

    def on_slow(self) -> None:
        """Close: a client that sends without reading would have us keep everything it sent."""
        self._link.close(CloseCode.SLOW_CLIENT)

    def disconnect_frame(self, code: CloseCode) -> bytes:  # noqa: ARG002  # the close code says it all
        """Say nothing: only what came goes back."""
        return b""

    def on_close(self, code: int, *, by_client: bool) -> None:  # noqa: ARG002  # however it ended
        """Give up the place among the connections from there; nothing else was kept."""
        self._on_end()
