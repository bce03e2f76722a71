"""`/ws/echo`: every message comes back unchanged. For connection checks and conformance suites."""

from collections.abc import Callable

from gateway.ws.protocol import WebSocketProtocol, discard
from services.wire.codes import CloseCode


class Echo:
    """The handler of one echo connection."""

    __slots__ = ("_on_end", "protocol", "write")

    protocol: WebSocketProtocol  # set when the upgrade is accepted

    def __init__(self, on_end: Callable[[], None]) -> None:
        self._on_end = on_end
        self.write: Callable[[bytes], None] = discard

    def on_message(self, data: bytes, binary: bool) -> None:
        """Send it back."""
        self.protocol.send_message(data, binary)

    def on_slow(self) -> None:
        """Close: a client that sends without reading would make us keep everything it sent."""
        self.protocol.close(CloseCode.SLOW_CLIENT)

    def disconnect_frame(self, code: CloseCode) -> bytes:  # noqa: ARG002  # the close code says it all
        """Return nothing: only the client's messages are sent."""
        return b""

    def on_close(self, code: int, *, by_client: bool) -> None:  # noqa: ARG002  # however it ended
        """Release the connection's slot in the per-IP limit."""
        self._on_end()
