"""What the checker knows of one room, and of one member of it, while it reads a history."""

from bisect import bisect_right
from collections.abc import Iterator
from dataclasses import dataclass, field

from services.wire.records import Position


@dataclass(slots=True)
class RoomLedger:
    """Which message stands where in one room, as acknowledgements and receipts say."""

    published: set[str] = field(default_factory=set)
    acknowledged: dict[str, Position] = field(default_factory=dict)
    seen: set[str] = field(default_factory=set)
    highest_acknowledged: dict[str, int] = field(default_factory=dict)  # by epoch
    # What was acknowledged before a message was first published: that message must stand after it.
    floors: dict[str, dict[str, int]] = field(default_factory=dict)
    _by_place: dict[str, dict[int, str]] = field(default_factory=dict)
    _by_id: dict[tuple[str, str], int] = field(default_factory=dict)
    _sorted: dict[str, list[int]] = field(default_factory=dict)

    def place(self, id: str, epoch: str, seq: int) -> str:
        """Note where a message stands; return what contradicts it, or nothing."""
        here = self._by_place.setdefault(epoch, {}).setdefault(seq, id)
        if here != id:
            return f"{id} and {here} both stand at {seq}"
        there = self._by_id.setdefault((id, epoch), seq)
        if there != seq:
            return f"{id} stands at {there} and at {seq}"
        return ""

    def between(self, epoch: str, after: int, until: int | None) -> Iterator[tuple[int, str]]:
        """Yield the known messages after a sequence, up to another or to the end. Call when all are known."""
        places = self._by_place.get(epoch, {})
        if epoch not in self._sorted:
            self._sorted[epoch] = sorted(places)
        for seq in self._sorted[epoch][bisect_right(self._sorted[epoch], after) :]:
            if until is not None and seq > until:
                return
            yield seq, places[seq]


@dataclass(slots=True)
class Span:
    """A stretch of one log that a member has whole: everything after `start` up to `end` (None: to the last)."""

    epoch: str
    start: int
    end: int | None = 0
    received: set[int] = field(default_factory=set)


@dataclass(slots=True)
class MemberLedger:
    """One client's membership of one room, over all its connections."""

    spans: list[Span] = field(default_factory=list)
    ids: dict[str, str] = field(default_factory=dict)  # message → epoch in which it was received first
    position: int = 0  # where a resume has to start
    last: int = 0  # last sequence received, for the order
    present: bool = False  # joined, and the connection stands
    left: bool = False
    recovering: bool = False  # missed messages may come

    @property
    def span(self) -> Span | None:
        """The stretch that goes on."""
        return self.spans[-1] if self.spans else None

    @property
    def stands_at(self) -> Position | None:
        """Where the member stands."""
        span = self.span
        return Position(span.epoch, self.position) if span else None

    def begin(self, epoch: str, seq: int) -> None:
        """Start a new stretch: what came before this position is owed no more."""
        self._end_span()
        self.spans.append(Span(epoch, seq))
        self.position = self.last = seq
        self.present, self.left, self.recovering = True, False, False

    def resume(self, since: int, seq: int) -> None:
        """Go on: what was missed after `since`, up to `seq`, follows."""
        self.last = since
        self.position = seq
        self.present, self.left, self.recovering = True, False, True

    def finish(self) -> None:
        """Say that everything stored had time to arrive."""
        span = self.span
        if span is not None:
            span.end = None

    def _end_span(self) -> None:
        span = self.span
        if span is not None:
            span.end = self.position

    def close(self) -> None:
        """Fix the end of the last stretch, unless it was finished: owed is what lies before the position."""
        span = self.span
        if span is not None and span.end is not None:
            span.end = self.position
