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
from tidings_cli.verify.ledger import MemberLedger, RoomLedger
from tidings_cli.verify.report import Finding, Gap, Kind, Report

ANSWER_LIMIT_S = 10.0


def check(history: Iterable[AnyRecord], *, answer_limit_s: float = ANSWER_LIMIT_S) -> Report:
    """Check a history. `answer_limit_s` is the longest wait for an answer."""
    state = _Check(answer_limit_s)
    for event in history:
        state.read(event)
    return state.conclude()


@dataclass(slots=True)
class _Check:
    """The state of a check: what the history has said so far."""

    answer_limit_s: float
    report: Report = field(default_factory=Report)
    rooms: defaultdict[str, RoomLedger] = field(default_factory=lambda: defaultdict(RoomLedger))
    members: dict[tuple[str, str], MemberLedger] = field(default_factory=dict)
    rooms_of: dict[str, list[str]] = field(default_factory=dict)
    waiting: dict[str, dict[tuple[str, str], float]] = field(default_factory=dict)
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
                self._answered(event.who, event.room, event.id, event.clock)
            case JoiningRecord():
                self._await_answer(event.who, event.room, "", event.clock)
            case JoinedRecord():
                self._on_joined(event)
            case LeftRecord():
                member = self._member(event.who, event.room)
                member.present, member.left = False, True
            case LostRecord():
                self._on_lost(event)
            case FinishedRecord():
                self._on_finished(event)

    # --- publishing ---

    def _on_published(self, event: PublishedRecord) -> None:
        room = self.rooms[event.room]
        self.report.attempts += 1
        if event.id not in room.published:
            room.published.add(event.id)
            room.floors[event.id] = dict(room.highest_acknowledged)
        self._await_answer(event.who, event.room, event.id, event.clock)

    def _on_acknowledged(self, event: AcknowledgedRecord) -> None:
        room = self.rooms[event.room]
        self._answered(event.who, event.room, event.id, event.clock)
        if event.id not in room.published:
            self._find(Kind.UNEXPLAINED, event, f"{event.id} was acknowledged but not published")
        if contradiction := room.note_position(event.id, event.epoch, event.seq):
            self._find(Kind.CONFLICT, event, contradiction)
        if event.seq <= room.floors.get(event.id, {}).get(event.epoch, 0):
            self._find(
                Kind.POSITION,
                event,
                f"{event.id} is at {event.seq}, before what was acknowledged when it was first sent",
            )
        highest = room.highest_acknowledged.get(event.epoch, 0)
        room.highest_acknowledged[event.epoch] = max(highest, event.seq)
        room.acknowledged.setdefault(event.id, _position(event))

    # --- membership ---

    def _on_joined(self, event: JoinedRecord) -> None:
        member = self._member(event.who, event.room)
        self._answered(event.who, event.room, "", event.clock)
        self.report.joins += 1
        before = member.current
        if event.recovered:
            self.report.resumed += 1
            since = event.since
            if since is None or since != before:
                self._find(Kind.POSITION, event, f"resumed from {since}, but was at {before}")
            elif event.epoch != since.epoch or event.seq < since.seq:
                self._find(Kind.POSITION, event, f"resumed from {since}, and is at {_position(event)}")
            if since is not None and before is not None and before.epoch == event.epoch:
                member.resume(since.seq, event.seq)
            else:
                member.start_span(event.epoch, event.seq)
            return
        if event.since is not None and event.recovered is None:
            self._find(Kind.PARTIAL, event, "a resume was answered without a verdict")
        if event.recovered is False and before is not None:
            self.report.gaps.append(Gap(event.who, event.room, before, _position(event)))
        if before is not None and before.epoch == event.epoch and event.seq < before.seq:
            self._find(Kind.POSITION, event, f"was at {before.seq}, and joined at {event.seq}")
        member.start_span(event.epoch, event.seq)

    def _on_received(self, event: ReceivedRecord) -> None:
        room, member = self.rooms[event.room], self._member(event.who, event.room)
        span = member.span
        self.report.received += 1
        if event.via == "missed":
            self.report.recovered_messages += 1
        room.seen.add(event.id)
        if contradiction := room.note_position(event.id, event.epoch, event.seq):
            self._find(Kind.CONFLICT, event, contradiction)
        if span is None or not member.present:
            self._find(Kind.UNEXPLAINED, event, f"{event.id} reached a client that is not a member")
            return
        if event.epoch != span.epoch:
            self._find(Kind.POSITION, event, f"{event.id} has epoch {event.epoch}, the join had {span.epoch}")
            return
        if event.via == "missed" and not member.recovering:
            self._find(Kind.PARTIAL, event, f"{event.id} came with a resume that did not recover")
        first_epoch = member.ids.setdefault(event.id, event.epoch)
        if first_epoch != event.epoch:
            self.repeats.append((event.who, event.room, event.id, first_epoch))
        if event.seq in span.received:
            self._find(Kind.DUPLICATE, event, f"{event.id} arrived again at {event.seq}")
            return
        in_order = (
            member.last < event.seq <= member.position
            if event.via == "missed"
            else event.seq > max(member.position, member.last)
        )
        if not in_order:
            after = member.last if event.via == "missed" else member.position
            self._find(Kind.OUT_OF_ORDER, event, f"{event.id} at {event.seq} arrived after {after}")
        span.received.add(event.seq)
        member.last = max(member.last, event.seq)
        member.position = max(member.position, event.seq)
        if event.via == "live":
            member.recovering = False

    def _on_lost(self, event: LostRecord) -> None:
        self.report.lost += 1
        self._end_waits(event.who, event.clock)
        for room in self.rooms_of.get(event.who, ()):
            self.members[event.who, room].present = False

    def _on_finished(self, event: FinishedRecord) -> None:
        self.finished.add(event.who)
        self._end_waits(event.who, event.clock)
        for room in self.rooms_of.get(event.who, ()):
            member = self.members[event.who, room]
            if member.present:
                member.finish()
            elif not member.left and member.spans:
                self._add(Kind.ABSENT, event.who, room, "was no longer a member at the end")

    # --- waiting for answers ---

    def _await_answer(self, who: str, room: str, id: str, clock: float) -> None:
        self.waiting.setdefault(who, {})[room, id] = clock

    def _answered(self, who: str, room: str, id: str, clock: float) -> None:
        since = self.waiting.get(who, {}).pop((room, id), None)
        if since is not None:
            self._check_wait(who, room, id, clock - since)

    def _end_waits(self, who: str, clock: float) -> None:
        for (room, id), since in self.waiting.pop(who, {}).items():
            self._check_wait(who, room, id, clock - since)

    def _check_wait(self, who: str, room: str, id: str, waited_s: float) -> None:
        self.report.longest_answer_s = max(self.report.longest_answer_s, waited_s)
        if waited_s > self.answer_limit_s:
            request = f"message {id}" if id else "join"
            self._add(Kind.SILENCE, who, room, f"{request} waited {waited_s:.1f} s for an answer")

    # --- the end ---

    def conclude(self) -> Report:
        """Check what only the complete history can show."""
        report = self.report
        for (who, name), member in self.members.items():
            member.close()
            room = self.rooms[name]
            for span in member.spans:
                for seq, id in room.between(span.epoch, span.start, span.end):
                    if seq not in span.received:
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

    def _member(self, who: str, name: str) -> MemberLedger:
        member = self.members.get((who, name))
        if member is None:
            _ = self.rooms[name]
            member = self.members[who, name] = MemberLedger()
            self.rooms_of.setdefault(who, []).append(name)
        return member

    def _find(self, kind: Kind, event: AcknowledgedRecord | JoinedRecord | ReceivedRecord, what: str) -> None:
        self._add(kind, event.who, event.room, what)

    def _add(self, kind: Kind, who: str, room: str, what: str) -> None:
        self.report.findings.append(Finding(kind, who, room, what))


def _position(event: AcknowledgedRecord | JoinedRecord) -> Position:
    return Position(event.epoch, event.seq)
