"""A client's position in the log of one room. Pure; it decides which messages are delivered, each once."""

from tidings_client.generated.wire import Ack, JoinedRoom, Position, RoomMessage

# Time after which nothing before an own, acknowledged message can still be on its way to this client: the position may
# then move past it.
_SETTLED_S = 10.0
_MOST_OWN = 1000


class RoomLog:
    """The position in one room, and which messages after it are this client's own."""

    def __init__(self) -> None:
        self.position: Position | None = None
        # When each own message after the position was stored. The server does not send those to this connection.
        self._own: dict[int, float] = {}

    def accept(self, message: RoomMessage) -> bool:
        """Return whether to deliver a message: False for a repeat, and for an own message."""
        if message.seq is None or self.position is None:
            return True
        if message.seq <= self.position.seq:
            return False
        return not self._move_to(message.seq)

    def on_stored(self, ack: Ack, now: float) -> None:
        """One of this client's messages was stored."""
        at = self.position
        if at is None or ack.seq is None or ack.epoch != at.epoch or ack.seq <= at.seq:
            return
        self._own[ack.seq] = now
        if len(self._own) > _MOST_OWN:
            del self._own[next(iter(self._own))]

    def since(self, heard_at: float) -> Position | None:
        """Return the position to resume from. `heard_at`: when the last connection was last known to be alive."""
        for seq, stored_at in sorted(self._own.items()):
            if self.position and stored_at <= heard_at - _SETTLED_S and seq > self.position.seq:
                self._move_to(seq)
        return self.position

    def past(self, answer: JoinedRoom) -> list[RoomMessage]:
        """Return the stored messages of an answer to a join that were not delivered before, after the missed ones."""
        stored = answer.history or []
        if self.position is None or answer.epoch != self.position.epoch:
            return stored
        before = self.position.seq
        return [message for message in stored if message.seq is not None and message.seq > before]

    def on_joined(self, answer: JoinedRoom) -> bool:
        """Handle the answer to a join, after the missed messages. Returns whether messages may be missing."""
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
        """Move the position. Returns whether the message there is this client's own."""
        own = seq in self._own
        self._own = {each: at for each, at in self._own.items() if each > seq}
        if self.position is not None:
            self.position = Position(epoch=self.position.epoch, seq=seq)
        return own
