"""The choice of the transport."""

from collections.abc import Sequence
from typing import Literal

TransportKind = Literal["websocket", "sse"]

# Failed WebSocket attempts in a row after which SSE is tried.
_DOUBTS = 2
# The same where a WebSocket has worked before: then the server is more likely down than the path blocked.
_DOUBTS_IF_PROVEN = 4
# Time on the fallback before the preferred transport is tried again; doubled after each failure.
_PAUSE_S = 120.0
_LONGEST_PAUSE_S = 3600.0
_MOST_DOUBLINGS = 10  # far beyond the longest pause


class Fallback:
    """Chooses the transport of each attempt: the one that worked last; after some failures both in turn. Pure."""

    def __init__(self, kinds: Sequence[TransportKind], last: TransportKind | None = None) -> None:
        self._kinds = kinds
        self._last = last  # of the last connection, of this client or an earlier one
        self._failures = 0
        self._probes = 0
        self._proven = False

    def choose(self) -> TransportKind:
        """Return the transport of the next attempt."""
        if len(self._kinds) == 1:
            return self._kinds[0]
        beyond = self._failures - self._doubts
        return self._kinds[1] if beyond >= 0 and beyond % 2 == 0 else self._kinds[0]

    def rival(self, kind: TransportKind) -> TransportKind | None:
        """Return the transport to try beside a slow one: some proxies drop upgrades without an answer."""
        if len(self._kinds) == 1 or self.is_fallback(kind) or self._proven:
            return None
        return self._kinds[1]

    def is_fallback(self, kind: TransportKind) -> bool:
        """Return whether a transport is not the preferred one."""
        return kind != self._kinds[0]

    @property
    def best(self) -> TransportKind:
        """The preferred transport."""
        return self._kinds[0]

    def on_failed(self) -> None:
        """An attempt failed."""
        self._failures += 1

    def on_worked(self, kind: TransportKind) -> None:
        """An attempt worked."""
        self._last = kind
        self._failures = 0
        self._proven = not self.is_fallback(kind)
        if self._proven:
            self._probes = 0

    def on_probed(self) -> None:
        """The preferred transport was tried beside the fallback, and failed."""
        self._probes += 1

    @property
    def pause(self) -> float:
        """Seconds before the preferred transport is tried again."""
        return min(_LONGEST_PAUSE_S, _PAUSE_S * 2.0 ** min(self._probes, _MOST_DOUBLINGS))

    @property
    def _doubts(self) -> int:
        if self._last == self._kinds[1]:
            return 0
        return _DOUBTS_IF_PROVEN if self._proven else _DOUBTS
