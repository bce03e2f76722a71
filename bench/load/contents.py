"""What the messages of the cases carry."""

import random

# Once in every room message and nowhere else in what a server sends: DEL needs no escape in JSON, no frame of ours has
# it as a length byte, and no server here uses it.
MARK = b"\x7f"

_WORDS = (
    "order", "status", "pending", "shipped", "address", "quantity", "price", "total", "customer",
    "warehouse", "driver", "route", "position", "latitude", "longitude", "updated", "created",
    "message", "reply", "thread", "mention", "channel", "member", "typing", "presence", "online",
    "away", "busy", "temperature", "pressure", "sensor", "reading", "average", "window",
    "threshold", "alert", "resolved",
)  # fmt: skip


def content(size: int = 80) -> str:
    """Return what every message of the fan-out cases carries: frames of about 220 bytes."""
    return MARK.decode() + "0" * size


def documents(count: int, size: int = 4096) -> list[str]:
    """Return `count` different texts of `size` characters that compress as JSON documents do, about 1 : 2.4.

    Different ones, because a server that keeps its window between messages would else send a repeat in no bytes.
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
