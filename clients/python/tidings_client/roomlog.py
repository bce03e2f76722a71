"""Where a client stands in the log of one room. Pure; it decides what is shown, and once."""

from tidings_client.generated.wire import Ack, JoinedRoom, Position, RoomMessage

# After so long an own message, stored and acknowledged, is surely preceded by nothing that is still on its way to us:
# the position may move past it. Before, the message in front of it may yet come.
_SETTLED_S = 10.0
_MOST_OWN = 1000


class RoomLog:
    """The position in one room, and which of the messages after it are our own."""

    def __init__(self) -> None:
        self.position: Position | None = None
        # Own messages after the position, which the server does not send to this connection: when each was stored.
        self._own: dict[int, float] = {}

    def accept(self, message: RoomMessage) -> bool:
        """Take a message; False if it was shown before, or is our own."""
        if message.seq is None or self.position is None:
            return True
        if message.seq <= self.position.seq:
            return False
        return not self._move_to(message.seq)

    def on_stored(self, ack: Ack, now: float) -> None:
        """An own message was stored."""
        at = self.position
        if at is None or ack.seq is None or ack.epoch != at.epoch or ack.seq <= at.seq:
            return
        self._own[ack.seq] = now
        if len(self._own) > _MOST_OWN:
            del self._own[next(iter(self._own))]

    def since(self, heard_at: float) -> Position | None:
        """Return from where to resume; `heard_at` is when the last connection was last known to live."""
        for seq, stored_at in sorted(self._own.items()):
            if self.position and stored_at <= heard_at - _SETTLED_S and seq > self.position.seq:
                self._move_to(seq)
        return self.position

    def on_joined(self, answer: JoinedRoom) -> bool:
        """Take the answer to a join, after what was missed; True if messages may be missing."""
        before = self.position
        if answer.epoch is None or answer.seq is None:
            self.position = None
            return False
        if before is not None and answer.recovered and answer.epoch == before.epoch:
            if answer.seq > before.seq:
                self._move_to(answer.seq)
            return False
        self._own.clear()
        self.position = Position(epoch=answer.epoch, seq=answer.seq)
        return before is not None and before != self.position

    def _move_to(self, seq: int) -> bool:
        """Move on, and say whether the message there is our own."""
        own = seq in self._own
        self._own = {each: at for each, at in self._own.items() if each > seq}
        if self.position is not None:
            self.position = Position(epoch=self.position.epoch, seq=seq)
        return own
