"""Proof of the delivery guarantees from a history. No I/O, no clock.

For durable rooms:

- a stored message (acknowledged, or received by any member) reaches every member that was connected all the time, or
  that resumed with `recovered`; exactly once, in the order of sequence;
- an acknowledged message has the position of its acknowledgement, once, after everything that was acknowledged before
  it was first published;
- no message arrives without having been published;
- a resume that does not recover brings no messages: no partial recovery looks complete. Such gaps are reported and are
  no fault, because the client knows of them;
- within an epoch positions only grow, and a new epoch is announced;
- every request is answered in time, or the connection ends.

After a client's `finished` record, everything stored must have arrived. Publishing makes no member of a client: its own
messages do not come back to it.
"""

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field

from services.wire.records import Position
from tidings_cli.verify.history import (
    AcknowledgedRecord,
    AnyRecord,
    FinishedRecord,
    JoinedRecord,
    JoiningRecord,
    LeftRecord,
    LostRecord,
    PublishedRecord,
    ReceivedRecord,
    RefusedRecord,
)
from tidings_cli.verify.report import Finding, Gap, Kind, Report

_ANSWER_LIMIT_S = 10.0


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


def check(history: Iterable[AnyRecord]) -> Report:
    state = _Check()
    for event in history:
        state.read(event)
    return state.conclude()


@dataclass(slots=True)
class _Check:
    """The state of a check: what the history has said so far."""

    report: Report = field(default_factory=Report)
    rooms: defaultdict[str, RoomLedger] = field(default_factory=lambda: defaultdict(RoomLedger))
    members: defaultdict[tuple[str, str], MemberLedger] = field(
        default_factory=lambda: defaultdict(MemberLedger)  # by client and room
    )
    waiting: dict[tuple[str, str, str], float] = field(default_factory=dict)  # by client, room and id
    finished: set[str] = field(default_factory=set)
    known: set[str] = field(default_factory=set)
    # (client, room, id, epoch of the first receipt) of messages received again in another epoch
    repeats: list[tuple[str, str, str, str]] = field(default_factory=list)

    def read(self, event: AnyRecord) -> None:
        """Apply one record."""
        self.known.add(event.who)
        match event:
            case ReceivedRecord():
                self._on_received(event)
            case PublishedRecord():
                self._on_published(event)
            case AcknowledgedRecord():
                self._on_acknowledged(event)
            case RefusedRecord():
                self.report.refused[event.code] += 1
                self._end_wait(event.who, event.room, event.id, event.clock)
            case JoiningRecord():
                self.waiting[event.who, event.room, ""] = event.clock
            case JoinedRecord():
                self._on_joined(event)
            case LeftRecord():
                member = self.members[event.who, event.room]
                member.present, member.left = False, True
            case LostRecord():
                self.report.lost += 1
                self._end_waits(event)
                for _, member in self._memberships(event.who):
                    member.present = False
            case FinishedRecord():
                self._on_finished(event)

    # --- publishing ---

    def _on_published(self, event: PublishedRecord) -> None:
        room = self.rooms[event.room]
        self.report.attempts += 1
        if event.id not in room.published:
            room.published.add(event.id)
            room.floors[event.id] = dict(room.highest_acknowledged)
        self.waiting[event.who, event.room, event.id] = event.clock

    def _on_acknowledged(self, event: AcknowledgedRecord) -> None:
        room = self.rooms[event.room]
        self._end_wait(event.who, event.room, event.id, event.clock)
        if event.id not in room.published:
            self._find(Kind.UNEXPLAINED, event, f"{event.id} was acknowledged but not published")
        if contradiction := room.note_position(event.id, event.epoch, event.seq):
            self._find(Kind.CONFLICT, event, contradiction)
        if event.seq <= room.floors.get(event.id, {}).get(event.epoch, 0):
            what = f"{event.id} is at {event.seq}, before what was acknowledged when it was first sent"
            self._find(Kind.POSITION, event, what)
        highest = room.highest_acknowledged.get(event.epoch, 0)
        room.highest_acknowledged[event.epoch] = max(highest, event.seq)
        room.acknowledged.setdefault(event.id, Position(event.epoch, event.seq))

    # --- membership ---

    def _on_joined(self, event: JoinedRecord) -> None:
        member = self.members[event.who, event.room]
        self._end_wait(event.who, event.room, "", event.clock)
        self.report.joins += 1
        since, before, now = event.since, member.current, Position(event.epoch, event.seq)
        if event.recovered:
            self.report.resumed += 1
            if since is None or since != before:
                self._find(Kind.POSITION, event, f"resumed from {since}, but was at {before}")
            elif now.epoch != since.epoch or now.seq < since.seq:
                self._find(Kind.POSITION, event, f"resumed from {since}, and is at {now}")
            if since is not None and before is not None and before.epoch == now.epoch:
                member.resume(since.seq, now.seq)
                return
        else:
            if since is not None and event.recovered is None:
                self._find(Kind.PARTIAL, event, "a resume was answered without a verdict")
            if event.recovered is False and before is not None:
                self.report.gaps.append(Gap(event.who, event.room, before, now))
            if before is not None and before.epoch == now.epoch and now.seq < before.seq:
                self._find(Kind.POSITION, event, f"was at {before.seq}, and joined at {now.seq}")
        member.start_span(now.epoch, now.seq)

    def _on_received(self, event: ReceivedRecord) -> None:
        room, member = self.rooms[event.room], self.members[event.who, event.room]
        id, seq, missed = event.id, event.seq, event.via == "missed"
        self.report.received += 1
        self.report.recovered_messages += missed
        room.seen.add(id)
        if contradiction := room.note_position(id, event.epoch, seq):
            self._find(Kind.CONFLICT, event, contradiction)
        if not member.spans or not member.present:
            self._find(Kind.UNEXPLAINED, event, f"{id} reached a client that is not a member")
            return
        span = member.spans[-1]
        if event.epoch != span.epoch:
            self._find(Kind.POSITION, event, f"{id} has epoch {event.epoch}, the join had {span.epoch}")
            return
        if missed and not member.recovering:
            self._find(Kind.PARTIAL, event, f"{id} came with a resume that did not recover")
        first_epoch = member.ids.setdefault(id, event.epoch)
        if first_epoch != event.epoch:
            self.repeats.append((event.who, event.room, id, first_epoch))
        if seq in span.received:
            self._find(Kind.DUPLICATE, event, f"{id} arrived again at {seq}")
            return
        if not (member.last < seq <= span.position if missed else seq > max(span.position, member.last)):
            after = member.last if missed else span.position
            self._find(Kind.OUT_OF_ORDER, event, f"{id} at {seq} arrived after {after}")
        span.received.add(seq)
        span.position = max(span.position, seq)
        member.last = max(member.last, seq)
        member.recovering &= missed

    def _memberships(self, who: str) -> list[tuple[str, MemberLedger]]:
        """Return a client's rooms and its membership of each."""
        return [(room, member) for (client, room), member in self.members.items() if client == who]

    def _on_finished(self, event: FinishedRecord) -> None:
        self.finished.add(event.who)
        self._end_waits(event)
        for room, member in self._memberships(event.who):
            if member.present:
                member.spans[-1].finished = True
            elif not member.left and member.spans:
                self._add(Kind.ABSENT, event.who, room, "was no longer a member at the end")

    # --- waiting for answers ---

    def _end_waits(self, event: LostRecord | FinishedRecord) -> None:
        for who, room, id in [key for key in self.waiting if key[0] == event.who]:
            self._end_wait(who, room, id, event.clock)

    def _end_wait(self, who: str, room: str, id: str, clock: float) -> None:
        waited_s = clock - self.waiting.pop((who, room, id), clock)
        self.report.longest_answer_s = max(self.report.longest_answer_s, waited_s)
        if waited_s > _ANSWER_LIMIT_S:
            request = f"message {id}" if id else "join"
            self._add(Kind.SILENCE, who, room, f"{request} waited {waited_s:.1f} s for an answer")

    # --- the end ---

    def conclude(self) -> Report:
        """Check what only the complete history can show."""
        report = self.report
        for (who, name), member in self.members.items():
            room = self.rooms[name]
            for seq, id in (found for span in member.spans for found in span.missing(room)):
                stored = "acknowledged" if id in room.acknowledged else "received by others"
                self._add(Kind.MISSING, who, name, f"{id} at {seq}, {stored}, did not arrive")
        for name, room in self.rooms.items():
            report.published += len(room.published)
            report.acknowledged += len(room.acknowledged)
            report.unwitnessed += len(room.acknowledged.keys() - room.seen)
            for id in sorted(room.seen - room.published):
                self._add(Kind.UNEXPLAINED, "a member", name, f"{id} arrived but was not published")
        for who, name, id, first_epoch in self.repeats:
            acknowledged = self.rooms[name].acknowledged.get(id)
            if acknowledged is not None and acknowledged.epoch == first_epoch:
                what = f"{id} arrived again in another epoch, though it was acknowledged in the first"
                self._add(Kind.DUPLICATE, who, name, what)
            else:
                report.repeated += 1
        report.members = sum(bool(member.spans) for member in self.members.values())
        report.unfinished = len(self.known - self.finished)
        return report

    def _find(self, kind: Kind, event: AcknowledgedRecord | JoinedRecord | ReceivedRecord, what: str) -> None:
        self._add(kind, event.who, event.room, what)

    def _add(self, kind: Kind, who: str, room: str, what: str) -> None:
        self.report.findings.append(Finding(kind, who, room, what))
