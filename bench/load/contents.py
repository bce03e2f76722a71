"""The content of the cases' messages."""

import random

# Occurs once in every room message and nowhere else in a server's output: DEL needs no escape in JSON, is no length byte
# of these frames, and no server here uses it.
MARK = b"\x7f"

_WORDS = (
    "order", "status", "pending", "shipped", "address", "quantity", "price", "total", "customer",
    "warehouse", "driver", "route", "position", "latitude", "longitude", "updated", "created",
    "message", "reply", "thread", "mention", "channel", "member", "typing", "presence", "online",
    "away", "busy", "temperature", "pressure", "sensor", "reading", "average", "window",
    "threshold", "alert", "resolved",
)  # fmt: skip


def content(size: int = 80) -> str:
    """Return the content of the fan-out cases, for frames of about 220 bytes."""
    return MARK.decode() + "0" * size


def documents(count: int, size: int = 4096) -> list[str]:
    """Return `count` different texts of `size` characters that compress as JSON documents do, about 1 : 2.4.

    They differ, because a server that keeps its compression window would send a repeat in almost no bytes.
    """
    chosen = random.Random(4096)  # the same in every run, and no secret
    texts = []
    for _ in range(count):
        parts: list[str] = []
        length = 0
        while length < size:
            part = f"{chosen.choice(_WORDS)}={chosen.randrange(100_000)} "
            parts.append(part)
            length += len(part)
        texts.append(MARK.decode() + "".join(parts)[:size])
    return texts
