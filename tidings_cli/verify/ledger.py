"""The checker's state while it reads a history: one room, and one member of it."""

from collections import defaultdict
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
    by_seq: defaultdict[str, dict[int, str]] = field(default_factory=lambda: defaultdict(dict))  # by epoch
    _by_id: dict[tuple[str, str], int] = field(default_factory=dict)

    def note_position(self, id: str, epoch: str, seq: int) -> str:
        """Note a message's position; return the contradiction to what is known, or nothing."""
        here = self.by_seq[epoch].setdefault(seq, id)
        if here != id:
            return f"{id} and {here} are both at {seq}"
        there = self._by_id.setdefault((id, epoch), seq)
        if there != seq:
            return f"{id} is at {there} and at {seq}"
        return ""


@dataclass(slots=True)
class Span:
    """A part of one log without gaps for a member: all after `start` up to `position`; if `finished`, to the last."""

    epoch: str
    start: int
    position: int
    received: set[int] = field(default_factory=set)
    finished: bool = False

    def missing(self, room: RoomLedger) -> list[tuple[int, str]]:
        """Return the messages that are due and were not received, in order. Call when all are known."""
        known = room.by_seq[self.epoch]
        return [
            (seq, known[seq])
            for seq in sorted(known.keys() - self.received)
            if seq > self.start and (self.finished or seq <= self.position)
        ]


@dataclass(slots=True)
class MemberLedger:
    """One client's membership of one room, over all its connections."""

    spans: list[Span] = field(default_factory=list)
    ids: dict[str, str] = field(default_factory=dict)  # by message: epoch of its first receipt
    last: int = 0  # last sequence received, to check the order
    present: bool = False  # joined, on a connection that is open
    left: bool = False
    recovering: bool = False  # missed messages may arrive

    @property
    def current(self) -> Position | None:
        """The member's position."""
        return Position(self.spans[-1].epoch, self.spans[-1].position) if self.spans else None

    def start_span(self, epoch: str, seq: int) -> None:
        """Start a new span: nothing before this position is owed any more."""
        self.spans.append(Span(epoch, seq, seq))
        self.last = seq
        self.present, self.left, self.recovering = True, False, False

    def resume(self, since: int, seq: int) -> None:
        """Continue the span: the missed messages after `since`, up to `seq`, follow."""
        self.last = since
        self.spans[-1].position = seq
        self.present, self.left, self.recovering = True, False, True
