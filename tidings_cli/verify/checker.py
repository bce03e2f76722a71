"""Prove the guarantees of delivery from a history. No I/O, no clock.

What is proved, for durable rooms:

- a stored message (acknowledged, or seen by anybody) reaches every member that was there all the time, or that came
  back and was told `recovered`; exactly once, and in the order of sequence;
- what is acknowledged stands where the acknowledgement says, once, and after everything that was acknowledged before it
  was first published;
- no message arrives that nobody published;
- a resume that does not recover brings nothing: no partial recovery that looks whole. Such gaps are reported; they are
  no fault, because the client was told;
- within an epoch positions only grow, and a new epoch is told;
- every request is answered in time, or the connection ends.

A client's own end counts: after `finished`, all that is stored must have arrived. A client that published is no member
by that (its own messages do not come back to it).
"""

from collections.abc import Iterable
from dataclasses import dataclass, field

from services.wire.records import Position
from tidings_cli.verify.history import (
    Acknowledged,
    AnyEvent,
    Finished,
    Joined,
    Joining,
    Left,
    Lost,
    Published,
    Received,
    Refused,
)
from tidings_cli.verify.ledger import MemberLedger, RoomLedger
from tidings_cli.verify.report import Finding, Gap, Kind, Report

ANSWER_LIMIT_S = 10.0


def check(history: Iterable[AnyEvent], *, answer_limit_s: float = ANSWER_LIMIT_S) -> Report:
    """Check a history; `answer_limit_s` is how long a request may wait for its answer."""
    reading = _Reading(answer_limit_s)
    for event in history:
        reading.read(event)
    return reading.conclude()


@dataclass(slots=True)
class _Reading:
    """A history read so far."""

    answer_limit_s: float
    report: Report = field(default_factory=Report)
    rooms: dict[str, RoomLedger] = field(default_factory=dict)
    members: dict[tuple[str, str], MemberLedger] = field(default_factory=dict)
    rooms_of: dict[str, list[str]] = field(default_factory=dict)
    waiting: dict[str, dict[tuple[str, str], float]] = field(default_factory=dict)
    finished: set[str] = field(default_factory=set)
    known: set[str] = field(default_factory=set)
    # (who, room, id, epoch of the first receipt) of messages that came again in another epoch
    repeats: list[tuple[str, str, str, str]] = field(default_factory=list)

    def read(self, event: AnyEvent) -> None:
        """Take in one event."""
        self.known.add(event.who)
        match event:
            case Received():
                self._on_received(event)
            case Published():
                self._on_published(event)
            case Acknowledged():
                self._on_acknowledged(event)
            case Refused():
                self.report.refused[event.code] += 1
                self._answered(event.who, event.room, event.id, event.clock)
            case Joining():
                self._ask(event.who, event.room, "", event.clock)
            case Joined():
                self._on_joined(event)
            case Left():
                member = self._member(event.who, event.room)
                member.present, member.left = False, True
            case Lost():
                self._on_lost(event)
            case Finished():
                self._on_finished(event)

    # --- publishing ---

    def _on_published(self, event: Published) -> None:
        room = self._room(event.room)
        self.report.attempts += 1
        if event.id not in room.published:
            room.published.add(event.id)
            room.floors[event.id] = dict(room.highest_acknowledged)
        self._ask(event.who, event.room, event.id, event.clock)

    def _on_acknowledged(self, event: Acknowledged) -> None:
        room = self._room(event.room)
        self._answered(event.who, event.room, event.id, event.clock)
        if event.id not in room.published:
            self._find(Kind.UNEXPLAINED, event, f"{event.id} was acknowledged and not published")
        if contradiction := room.place(event.id, event.epoch, event.seq):
            self._find(Kind.CONFLICT, event, contradiction)
        if event.seq <= room.floors.get(event.id, {}).get(event.epoch, 0):
            self._find(
                Kind.POSITION,
                event,
                f"{event.id} stands at {event.seq}, before what was acknowledged when it was first sent",
            )
        highest = room.highest_acknowledged.get(event.epoch, 0)
        room.highest_acknowledged[event.epoch] = max(highest, event.seq)
        room.acknowledged.setdefault(event.id, _position(event))

    # --- membership ---

    def _on_joined(self, event: Joined) -> None:
        member = self._member(event.who, event.room)
        self._answered(event.who, event.room, "", event.clock)
        self.report.joins += 1
        stood_at = member.stands_at
        if event.recovered:
            self.report.resumed += 1
            since = event.since
            if since is None or since != stood_at:
                self._find(Kind.POSITION, event, f"resumed from {since}, but stood at {stood_at}")
            elif event.epoch != since.epoch or event.seq < since.seq:
                self._find(Kind.POSITION, event, f"resumed from {since} and stands at {_position(event)}")
            if since is not None and stood_at is not None and stood_at.epoch == event.epoch:
                member.resume(since.seq, event.seq)
            else:
                member.begin(event.epoch, event.seq)
            return
        if event.since is not None and event.recovered is None:
            self._find(Kind.PARTIAL, event, "a resume was answered without a verdict")
        if event.recovered is False and stood_at is not None:
            self.report.gaps.append(Gap(event.who, event.room, stood_at, _position(event)))
        if stood_at is not None and stood_at.epoch == event.epoch and event.seq < stood_at.seq:
            self._find(Kind.POSITION, event, f"stood at {stood_at.seq} and is told {event.seq}")
        member.begin(event.epoch, event.seq)

    def _on_received(self, event: Received) -> None:
        room, member = self._room(event.room), self._member(event.who, event.room)
        span = member.span
        self.report.received += 1
        if event.via == "missed":
            self.report.recovered_messages += 1
        room.seen.add(event.id)
        if contradiction := room.place(event.id, event.epoch, event.seq):
            self._find(Kind.CONFLICT, event, contradiction)
        if span is None or not member.present:
            self._find(Kind.UNEXPLAINED, event, f"{event.id} reached a client that is no member")
            return
        if event.epoch != span.epoch:
            self._find(Kind.POSITION, event, f"{event.id} is of epoch {event.epoch}, joined was {span.epoch}")
            return
        if event.via == "missed" and not member.recovering:
            self._find(Kind.PARTIAL, event, f"{event.id} came with a resume that did not recover")
        first_epoch = member.ids.setdefault(event.id, event.epoch)
        if first_epoch != event.epoch:
            self.repeats.append((event.who, event.room, event.id, first_epoch))
        if event.seq in span.received:
            self._find(Kind.DUPLICATE, event, f"{event.id} at {event.seq} came again")
            return
        in_order = (
            member.last < event.seq <= member.position
            if event.via == "missed"
            else event.seq > max(member.position, member.last)
        )
        if not in_order:
            after = member.last if event.via == "missed" else member.position
            self._find(Kind.OUT_OF_ORDER, event, f"{event.id} at {event.seq} came after {after}")
        span.received.add(event.seq)
        member.last = max(member.last, event.seq)
        member.position = max(member.position, event.seq)
        if event.via == "live":
            member.recovering = False

    def _on_lost(self, event: Lost) -> None:
        self.report.lost += 1
        for (room, id), since in self.waiting.pop(event.who, {}).items():
            self._check_wait(event.who, room, id, event.clock - since)
        for room in self.rooms_of.get(event.who, ()):
            self.members[event.who, room].present = False

    def _on_finished(self, event: Finished) -> None:
        self.finished.add(event.who)
        for (room, id), since in self.waiting.pop(event.who, {}).items():
            self._check_wait(event.who, room, id, event.clock - since)
        for room in self.rooms_of.get(event.who, ()):
            member = self.members[event.who, room]
            if member.present:
                member.finish()
            elif not member.left and member.spans:
                self.report.findings.append(
                    Finding(Kind.ABSENT, event.who, room, "was not a member any more at the end")
                )

    # --- waiting for answers ---

    def _ask(self, who: str, room: str, id: str, clock: float) -> None:
        self.waiting.setdefault(who, {})[room, id] = clock

    def _answered(self, who: str, room: str, id: str, clock: float) -> None:
        since = self.waiting.get(who, {}).pop((room, id), None)
        if since is not None:
            self._check_wait(who, room, id, clock - since)

    def _check_wait(self, who: str, room: str, id: str, waited_s: float) -> None:
        self.report.longest_answer_s = max(self.report.longest_answer_s, waited_s)
        if waited_s > self.answer_limit_s:
            asked = f"message {id}" if id else "join"
            what = f"{asked} waited {waited_s:.1f} s for an answer"
            self.report.findings.append(Finding(Kind.SILENCE, who, room, what))

    # --- the end ---

    def conclude(self) -> Report:
        """Check what can be said only when everything is known."""
        report = self.report
        for (who, name), member in self.members.items():
            member.close()
            room = self.rooms[name]
            for span in member.spans:
                for seq, id in room.between(span.epoch, span.start, span.end):
                    if seq not in span.received:
                        stored = "acknowledged" if id in room.acknowledged else "seen by others"
                        what = f"{id} at {seq}, {stored}, did not arrive"
                        report.findings.append(Finding(Kind.MISSING, who, name, what))
        for name, room in self.rooms.items():
            report.published += len(room.published)
            report.acknowledged += len(room.acknowledged)
            report.unwitnessed += len(room.acknowledged.keys() - room.seen)
            report.findings += [
                Finding(Kind.UNEXPLAINED, "somebody", name, f"{id} arrived and was not published")
                for id in sorted(room.seen - room.published)
            ]
        for who, name, id, first_epoch in self.repeats:
            acknowledged = self.rooms[name].acknowledged.get(id)
            if acknowledged is not None and acknowledged.epoch == first_epoch:
                what = f"{id} came again in another epoch, though it was acknowledged in the first"
                report.findings.append(Finding(Kind.DUPLICATE, who, name, what))
            else:
                report.repeated += 1
        report.members = sum(bool(member.spans) for member in self.members.values())
        report.unfinished = len(self.known - self.finished)
        return report

    def _room(self, name: str) -> RoomLedger:
        room = self.rooms.get(name)
        if room is None:
            room = self.rooms[name] = RoomLedger()
        return room

    def _member(self, who: str, name: str) -> MemberLedger:
        member = self.members.get((who, name))
        if member is None:
            self._room(name)
            member = self.members[who, name] = MemberLedger()
            self.rooms_of.setdefault(who, []).append(name)
        return member

    def _find(self, kind: Kind, event: Acknowledged | Joined | Received, what: str) -> None:
        self.report.findings.append(Finding(kind, event.who, event.room, what))


def _position(event: Acknowledged | Joined) -> Position:
    return Position(event.epoch, event.seq)
