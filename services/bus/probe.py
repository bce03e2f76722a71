"""Whether the bus carries messages: a process writes to itself and looks whether it comes back.

`is_connected` is the client's word, and stays true when the server is frozen or the read loop has ended.
"""


class Probe:
    """Pure bookkeeping; times in seconds of one monotonic clock.

    Each probe carries a number, so that an echo tells which one came back.
    """

    def __init__(self, stale_s: float, now: float) -> None:
        self._stale_s = stale_s
        self._sent = 0
        self._returned = 0
        self._last_return = now  # the connection was just made with an answered ping

    def next_payload(self) -> bytes:
        """Return the next probe's payload."""
        self._sent += 1
        return b"%d" % self._sent

    def on_echo(self, payload: bytes, now: float) -> None:
        """Take in a probe that came back."""
        if payload.isdigit():
            self._returned = max(self._returned, int(payload))
            self._last_return = now

    def healthy(self, now: float) -> bool:
        """Return whether a probe came back within the last `stale_s`."""
        return now - self._last_return < self._stale_s
