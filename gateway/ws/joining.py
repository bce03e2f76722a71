"""Messages for rooms that the connection is still joining.

A room that nobody here was in takes a moment to join. What the client publishes to it meanwhile waits, so that a message
cannot overtake the join before it: its echo would find no member yet.
"""

from gateway.client.effects import PublishToRoom

# A join takes milliseconds; only an outage makes more wait than this.
MAX_HELD = 100


class PendingJoins:
    """The rooms being joined by one connection, each with what waits for it, in order."""

    __slots__ = ("_held",)

    def __init__(self) -> None:
        self._held: dict[str, list[tuple[PublishToRoom, float]]] = {}

    def begin(self, room: str) -> None:
        """Hold messages for a room from now on."""
        self._held.setdefault(room, [])

    def is_held(self, room: str) -> bool:
        """Whether messages for a room have to wait."""
        return bool(self._held) and room in self._held

    def hold(self, effect: PublishToRoom, started: float) -> bool:
        """Keep a message until the room is joined; False where too many wait."""
        held = self._held[effect.room]
        if len(held) >= MAX_HELD:
            return False
        held.append((effect, started))
        return True

    def end(self, room: str) -> list[tuple[PublishToRoom, float]]:
        """Stop holding, and return what waited."""
        return self._held.pop(room, [])
