"""The checker's state while it reads a history: one room, and one member of it."""

from bisect import bisect_right
from collections.abc import Iterator
from dataclasses import dataclass, field

from services.wire.records import Position


@dataclass(slots=True)
class RoomLedger:
    """The messages of one room and their positions, by acknowledgements and receipts."""

    published: set[str] = field(default_factory=set)
    acknowledged: dict[str, Position] = field(default_factory=dict)
    seen: set[str] = field(default_factory=set)
    highest_acknowledged: dict[str, int] = field(default_factory=dict)  # by epoch
    # The last acknowledgements before a message was first published: its own position must be higher.
    floors: dict[str, dict[str, int]] = field(default_factory=dict)
    _by_seq: dict[str, dict[int, str]] = field(default_factory=dict)
    _by_id: dict[tuple[str, str], int] = field(default_factory=dict)
    _sorted: dict[str, list[int]] = field(default_factory=dict)

    def note_position(self, id: str, epoch: str, seq: int) -> str:
        """Note a message's position; return the contradiction to what is known, or nothing."""
        here = self._by_seq.setdefault(epoch, {}).setdefault(seq, id)
        if here != id:
            return f"{id} and {here} are both at {seq}"
        there = self._by_id.setdefault((id, epoch), seq)
        if there != seq:
            return f"{id} is at {there} and at {seq}"
        return ""

    def between(self, epoch: str, after: int, until: int | None) -> Iterator[tuple[int, str]]:
        """Yield the messages after a sequence, up to another or to the end. Call when all are known."""
        known = self._by_seq.get(epoch, {})
        if epoch not in self._sorted:
            self._sorted[epoch] = sorted(known)
        for seq in self._sorted[epoch][bisect_right(self._sorted[epoch], after) :]:
            if until is not None and seq > until:
                return
            yield seq, known[seq]


@dataclass(slots=True)
class Span:
    """A part of one log without gaps for a member: all after `start` up to `end` (None: to the last)."""

    epoch: str
    start: int
    end: int | None = 0
    received: set[int] = field(default_factory=set)


@dataclass(slots=True)
class MemberLedger:
    """One client's membership of one room, over all its connections."""

    spans: list[Span] = field(default_factory=list)
    ids: dict[str, str] = field(default_factory=dict)  # by message: epoch of its first receipt
    position: int = 0  # the start of a resume
    last: int = 0  # last sequence received, to check the order
    present: bool = False  # joined, on a connection that is open
    left: bool = False
    recovering: bool = False  # missed messages may arrive

    @property
    def span(self) -> Span | None:
        """The current span."""
        return self.spans[-1] if self.spans else None

    @property
    def current(self) -> Position | None:
        """The member's position."""
        span = self.span
        return Position(span.epoch, self.position) if span else None

    def start_span(self, epoch: str, seq: int) -> None:
        """Start a new span: nothing before this position is owed any more."""
        if span := self.span:
            span.end = self.position
        self.spans.append(Span(epoch, seq))
        self.position = self.last = seq
        self.present, self.left, self.recovering = True, False, False

    def resume(self, since: int, seq: int) -> None:
        """Continue the span: the missed messages after `since`, up to `seq`, follow."""
        self.last = since
        self.position = seq
        self.present, self.left, self.recovering = True, False, True

    def finish(self) -> None:
        """Note that everything stored had time to arrive."""
        if span := self.span:
            span.end = None

    def close(self) -> None:
        """End the last span at the position, unless it is finished."""
        span = self.span
        if span is not None and span.end is not None:
            span.end = self.position
