"""The checker's findings, and their text."""

from collections import Counter
from dataclasses import dataclass, field
from enum import Enum

from services.wire.records import Position

_SHOWN = 20


class Kind(Enum):
    """The guarantee that a finding breaks: its name, and what happened."""

    MISSING = "missing", "a stored message did not reach a member that was connected or had recovered"
    DUPLICATE = "duplicate", "a member received a message twice"
    OUT_OF_ORDER = (
        "out of order",
        "messages of a room reached a member in another order than they are stored",
    )
    UNEXPLAINED = (
        "unexplained",
        "a message arrived that was not published, or at a client that is not a member",
    )
    CONFLICT = "conflict", "one message has two positions, or two messages have one"
    PARTIAL = (
        "partial recovery",
        "messages came with a resume that did not recover, or a resume had no verdict",
    )
    POSITION = "position", "a position went back, changed its epoch unannounced, or is not the member's"
    SILENCE = "silence", "a request was not answered in time, and the connection did not end"
    ABSENT = "absent", "a member was missing at the end"


@dataclass(frozen=True, slots=True)
class Finding:
    kind: Kind
    who: str
    room: str
    what: str

    def __str__(self) -> str:
        return f"{self.kind.value[0]}: {self.who} in {self.room}: {self.what}"


@dataclass(frozen=True, slots=True)
class Gap:
    """Recovery failed between two positions, and the member knows: a loss, but no finding."""

    who: str
    room: str
    before: Position
    after: Position

    @property
    def other_epoch(self) -> bool:
        """Whether the room started a new epoch (the store was wiped or restored)."""
        return self.before.epoch != self.after.epoch


@dataclass(slots=True)
class Report:
    findings: list[Finding] = field(default_factory=list)
    gaps: list[Gap] = field(default_factory=list)
    published: int = 0  # distinct messages
    acknowledged: int = 0
    attempts: int = 0  # with retries
    refused: Counter[str] = field(default_factory=Counter)  # answers by code
    received: int = 0
    recovered_messages: int = 0  # of these, with a resume
    joins: int = 0
    resumed: int = 0  # joins that recovered
    lost: int = 0  # connections
    members: int = 0  # (client, room) pairs that received
    unfinished: int = 0  # clients whose history breaks off: only what they received is checked
    unwitnessed: int = 0  # acknowledged without a connected member
    repeated: int = 0  # stored again after the store was lost with its list of ids
    longest_answer_s: float = 0.0

    @property
    def holds(self) -> bool:
        return not self.findings

    def count(self, kind: Kind) -> int:
        return sum(finding.kind is kind for finding in self.findings)

    def text(self) -> str:
        other = sum(gap.other_epoch for gap in self.gaps)
        lines = [
            f"published     {self.published} messages in {self.attempts} attempts,"
            f" {self.acknowledged} acknowledged",
            f"received      {self.received} by {self.members} members,"
            f" {self.recovered_messages} of them by recovery",
            f"connections   {self.lost} lost, {self.joins} joins, {self.resumed} recovered",
            f"gaps          {len(self.gaps)} reported ({other} because a room started a new epoch)",
            f"longest wait  {self.longest_answer_s:.2f} s for an answer",
        ]
        if self.refused:
            said = ", ".join(f"{code} {count}" for code, count in sorted(self.refused.items()))
            lines.append(f"refused       {said}")
        if self.repeated:
            lines.append(f"repeated      {self.repeated} stored again in a room that started a new epoch")
        if self.unwitnessed:
            lines.append(f"unwitnessed   {self.unwitnessed} acknowledged without a connected member")
        if self.unfinished:
            lines.append(f"unfinished    {self.unfinished} clients: their history breaks off")
        lines.append("")
        if self.holds:
            lines.append("Every acknowledged message reached every member once, in order.")
            return "\n".join(lines)
        lines.append(f"{len(self.findings)} guarantees broken:")
        for kind, number in Counter(finding.kind for finding in self.findings).most_common():
            lines.append(f"  {number:6} {': '.join(kind.value)}")
        lines += [f"  - {finding}" for finding in self.findings[:_SHOWN]]
        if len(self.findings) > _SHOWN:
            lines.append(f"  … and {len(self.findings) - _SHOWN} more")
        return "\n".join(lines)
