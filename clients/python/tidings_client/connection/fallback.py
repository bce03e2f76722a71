"""Which transport to try."""

from collections.abc import Sequence
from typing import Literal

TransportKind = Literal["websocket", "sse"]

# How many attempts over WebSocket may fail in a row before a stream is tried.
_DOUBTS = 2
# The same where WebSockets have worked before: then the server is away, not the way to it blocked.
_DOUBTS_IF_PROVEN = 4


class Fallback:
    """Chooses the transport of each attempt: WebSocket, and after some failures a stream every other time. Pure."""

    def __init__(self, kinds: Sequence[TransportKind]) -> None:
        self._kinds = kinds
        self._failures = 0
        self._proven = False

    def choose(self) -> TransportKind:
        """Return the transport of the next attempt."""
        if len(self._kinds) == 1:
            return self._kinds[0]
        beyond = self._failures - self._doubts
        return self._kinds[1] if beyond >= 0 and beyond % 2 == 0 else self._kinds[0]

    def is_fallback(self, kind: TransportKind) -> bool:
        """Say whether a transport is second best."""
        return kind != self._kinds[0]

    def on_failed(self) -> None:
        """An attempt failed."""
        self._failures += 1

    def on_worked(self, kind: TransportKind) -> None:
        """An attempt worked. After a stream WebSocket gets one more try, not several."""
        self._proven = not self.is_fallback(kind)
        self._failures = 0 if self._proven else self._doubts - 1

    @property
    def _doubts(self) -> int:
        return _DOUBTS_IF_PROVEN if self._proven else _DOUBTS
