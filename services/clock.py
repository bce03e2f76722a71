"""The time as the wire has it. A leaf, because every part may import it."""

import time


def now_ms() -> int:
    """Milliseconds since 1970."""
    return time.time_ns() // 1_000_000
