"""Order and gaps of one durable log on one gateway. No I/O, no clock.

Each live message carries its own sequence and that of the message before it in the same log. A gap exists when the one
before is later than the last delivered: then nothing is delivered until the gap is filled from the stream. The test
is "later", not "different": after a purge the one before is 0, after expiry it is the last survivor, and the first
message of a batch always says 0 (ADR 0002).

Where messages may have been lost unnoticed (the bus was away, the stream has another leader), a message is delivered
only if the one before it is exactly the last delivered: that proves that nothing is missing, without a read.
"""

from dataclasses import dataclass
from typing import Generic, TypeVar

T = TypeVar("T")

# Messages held during a fill. The newest beyond it are dropped: the fill reads them from the stream.
MAX_HELD = 1000


@dataclass(slots=True)
class Sequencer(Generic[T]):
    """The last sequence delivered, and the messages held until the gap after it is filled."""

    position: int
    filling: bool = False
    unsure: bool = False  # messages may have been lost unnoticed since the last one delivered
    _held: dict[int, tuple[int, T]] | None = None  # made when a message is held
    _overflowed: bool = False

    def on_live(self, seq: int, previous: int, item: T) -> list[T]:
        """Handle a live message; return what can be delivered now, in order.

        That is nothing for a message delivered before, and during a fill. Check `filling` afterwards: if it became
        true, read the log from `position + 1` and call `on_filled`.
        """
        if seq <= self.position:
            return []
        known = previous == self.position and previous  # 0 says nothing about the one before
        if self.filling or previous > self.position or (self.unsure and not known):
            self.filling = True
            if self._held is None:
                self._held = {}
            if len(self._held) < MAX_HELD:
                self._held[seq] = (previous, item)
            else:
                self._overflowed = True
            return []
        self.position, self.unsure = seq, False
        return [item]

    @property
    def newest_held(self) -> int:
        """The last sequence held, which is known to be stored; 0 if none."""
        return max(self._held) if self._held else 0

    def mark_gap(self) -> None:
        """Hold deliveries until a fill: messages may have been lost unnoticed."""
        self.filling = True

    def resume(self) -> list[T]:
        """Continue, unsure of what was lost; return what can be delivered now, in order.

        Check `filling` afterwards, as after `on_live`. Else `unsure` stays true until a message, or a look at the
        stream (`on_filled`), proves that nothing is missing.
        """
        self.unsure = True
        if self._overflowed:
            return []
        held, self._held = self._held or {}, None
        self.filling = False
        ready: list[T] = []
        for seq in sorted(held):
            self.unsure = True  # each arrived while messages may have been lost
            ready += self.on_live(seq, *held[seq])
        return ready

    def on_filled(self, stored: list[tuple[int, T]], *, complete: bool) -> list[T]:
        """Handle what was read from `position + 1`, in order; return what can be delivered now, in order.

        `filling` stays true, and asks for another read from the new position, if the stream has more (`complete`
        false) or the held messages show another gap: a replica that answers reads may lag.
        """
        ready = [item for seq, item in stored if seq > self.position]
        if stored:
            self.position = max(self.position, stored[-1][0])
        if not complete:
            return ready
        held, self._held = self._held or {}, None
        self.filling, self._overflowed, self.unsure = self._overflowed, False, False
        for seq in sorted(held):
            ready += self.on_live(seq, *held[seq])
        return ready

    def reset(self, position: int) -> None:
        """Start again at a position of another epoch. Nothing is delivered before the next fill."""
        self.position, self.filling, self._overflowed, self.unsure = position, True, False, False
        self._held = None

    def skip_gap(self) -> None:
        """Move to just before the first held message; `on_filled` delivers it.

        Only for messages that the stream does not have any more: read it more than once before.
        """
        if self._held:
            previous, _ = self._held[min(self._held)]
            self.position = max(self.position, previous)
