"""Order and gaps of one durable log as one gateway sees it. No I/O, no clock.

Each on_live message says its own sequence and that of the one before it in the same log. A gap exists when the one
before is later than the last delivered: then nothing is delivered until the gap is on_filled from the stream. It
is "later", not "different": after a purge the one before is 0, after expiry it is the last survivor, and the first
message of a batch always says 0 (ADR 0002).

Where messages may have been lost unseen (the bus was away, the stream has another leader), a message goes out only if the
one before it is exactly the last that was delivered: then nothing is missing, and the stream need not be asked.
"""

from dataclasses import dataclass
from typing import Generic, TypeVar

T = TypeVar("T")

# What may wait during a fill. Beyond it the newest are let go: the fill reads them from the stream.
MAX_HELD = 1000


@dataclass(slots=True)
class Sequencer(Generic[T]):
    """The last sequence delivered, and what waits for a gap after it to be on_filled."""

    position: int
    filling: bool = False
    unsure: bool = False  # messages may have been lost unseen since the last one that was delivered
    _held: dict[int, tuple[int, T]] | None = None  # made when something waits
    _overflowed: bool = False

    def on_live(self, seq: int, previous: int, item: T) -> list[T]:
        """Take a on_live message; return what can be delivered now, in order.

        Nothing is returned for a message delivered before, and during a fill. Ask `filling` afterwards: if it turned
        true, read the log from `position + 1` and call `on_filled`.
        """
        if seq <= self.position:
            return []
        known = previous == self.position and previous  # 0 says nothing of what was before
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
        """The last sequence that waits, 0 where nothing does: it is known to be stored."""
        return max(self._held) if self._held else 0

    def mark_gap(self) -> None:
        """Hold deliveries until a fill: messages may have been lost unseen (the bus was away)."""
        self.filling = True

    def resume(self) -> list[T]:
        """Go on after `mark_gap`, or without it, unsure of what was lost; return what can be delivered now, in order.

        Ask `filling` afterwards, as after `on_live`; else `unsure` stays true until a message, or a look at the stream
        (`on_filled`), says that nothing is missing.
        """
        self.unsure = True
        if self._overflowed:
            return []
        held, self._held = self._held or {}, None
        self.filling = False
        ready: list[T] = []
        for seq in sorted(held):
            self.unsure = True  # each was heard while messages may have been lost
            ready += self.on_live(seq, *held[seq])
        return ready

    def on_filled(self, stored: list[tuple[int, T]], *, complete: bool) -> list[T]:
        """Take what was read from `position + 1`, in order; return what can be delivered now, in order.

        `filling` stays true, and asks for another read from the new position, where there is more to read
        (`complete` false) or where what waited shows yet another gap: a replica that answers reads may lag.
        """
        ready = [item for seq, item in stored if seq > self.position]
        if stored:
            self.position = max(self.position, stored[-1][0])
        if not complete:
            return ready
        held, self._held = self._held or {}, None
        self.filling, self._overflowed, self.unsure = self._overflowed, False, False
        for seq in sorted(held):
            previous, item = held[seq]
            ready += self.on_live(seq, previous, item)
        return ready

    def reset(self, position: int) -> None:
        """Start again at a position of another log. Nothing is delivered before the next fill."""
        self.position, self.filling, self._overflowed, self.unsure = position, True, False, False
        self._held = None

    def skip_gap(self) -> None:
        """Go on before the first message that waits; `on_filled` delivers it.

        Only for what the stream does not have (any more): ask it more than once.
        """
        if self._held:
            previous, _ = self._held[min(self._held)]
            self.position = max(self.position, previous)
