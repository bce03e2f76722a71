"""Timer for the credentials of an open connection: a notice before they expire, then the end.

Tokens use wall-clock time, which may be set; timers do not. So a timer that fires checks the clock again.
"""

import asyncio
import time
from collections.abc import Callable

# Timers are set for at most this long: a token may live for years, an event loop's clock counts milliseconds.
_LONGEST_S = 3600.0
_LATEST_MS = 253_402_300_799_999  # the year 9999: numbers that every client can read as a date


def to_ms(expires_at: float) -> int:
    """Return seconds since 1970 as milliseconds for the wire."""
    return int(min(expires_at * 1000, _LATEST_MS))


class CredentialTimer:
    """Calls `on_notice(expires_at)` some time before the end, once, and `on_end()` at the end."""

    __slots__ = ("_expires_at", "_notice_s", "_noticed", "_on_end", "_on_notice", "_timer")

    def __init__(
        self, notice_s: float, on_notice: Callable[[float], object], on_end: Callable[[], object]
    ) -> None:
        self._notice_s = notice_s
        self._on_notice = on_notice
        self._on_end = on_end
        self._expires_at: float | None = None
        self._noticed = False
        self._timer: asyncio.TimerHandle | None = None

    def start(self, expires_at: float | None) -> None:
        """Set a (new) expiry; None never expires. Credentials that expire within the notice time get it at once."""
        self.cancel()
        self._expires_at = expires_at
        self._noticed = not self._notice_s
        if expires_at is not None:
            self._check()

    def cancel(self) -> None:
        """Stop the timer."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _check(self) -> None:
        self._timer = None
        expires_at = self._expires_at
        if expires_at is None:
            return
        left_s = expires_at - time.time()
        if left_s <= 0:
            self._on_end()
            return
        if not self._noticed and left_s <= self._notice_s:
            self._noticed = True
            self._on_notice(expires_at)
        wait_s = left_s if self._noticed else left_s - self._notice_s
        loop = asyncio.get_running_loop()
        self._timer = loop.call_later(min(wait_s, _LONGEST_S), self._check)
