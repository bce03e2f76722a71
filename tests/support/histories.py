"""Histories of a correct deployment, for tests of the checker."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

import msgspec
from hypothesis import strategies as st

from services.wire.records import Position
from tidings_cli.verify.history import (
    AcknowledgedRecord,
    AnyRecord,
    FinishedRecord,
    JoinedRecord,
    JoiningRecord,
    LostRecord,
    PublishedRecord,
    ReceivedRecord,
    RefusedRecord,
)


def write_history(path: Path, events: Iterable[AnyRecord]) -> None:
    """Write a history as `tidings verify --keep` does."""
    path.write_bytes(b"".join(msgspec.json.encode(event) + b"\n" for event in events))


@dataclass
class ModelMember:
    """A client of one room, as a faultless deployment treats it."""

    who: str
    position: Position | None = None
    connected: bool = False


@dataclass
class ModelRoom:
    """One room of a faultless deployment, writing down what its clients see."""

    name: str = "lobby"
    epoch: int = 1
    stored: list[str] = field(default_factory=list)  # of the present epoch, sequence 1 onwards
    members: list[ModelMember] = field(default_factory=list)
    events: list[AnyRecord] = field(default_factory=list)
    published: int = 0
    unsure: list[str] = field(default_factory=list)  # stored in this epoch, unacknowledged

    @property
    def position(self) -> Position:
        return Position(f"epoch{self.epoch}", len(self.stored))

    def join(self, member: ModelMember) -> None:
        """Join, or resume: recovered while the epoch is the same."""
        if member.connected:
            return
        since, now = member.position, self.position
        self.events.append(JoiningRecord(who=member.who, room=self.name, since=since))
        recovered = None if since is None else since.epoch == now.epoch
        self.events.append(
            JoinedRecord(
                who=member.who, room=self.name, epoch=now.epoch, seq=now.seq, since=since, recovered=recovered
            )
        )
        if recovered and since is not None:
            for seq in range(since.seq + 1, now.seq + 1):
                self._receive(member, seq, "missed")
        member.position, member.connected = now, True

    def lose(self, member: ModelMember) -> None:
        if member.connected:
            member.connected = False
            self.events.append(LostRecord(who=member.who, why="gone"))

    def publish(self, *, answered: bool) -> None:
        """Store a message and deliver it; unanswered, the publisher does not learn of it."""
        self.published += 1
        id = f"m{self.published}"
        self.events.append(PublishedRecord(who="publisher", room=self.name, id=id))
        self._store(id)
        if answered:
            self._acknowledge(id)
        else:
            self.unsure.append(id)
            self.events.append(
                RefusedRecord(who="publisher", room=self.name, id=id, code="unavailable", retryable=True)
            )

    def retry(self) -> None:
        """Send an unacknowledged message again: it is stored already and only answered."""
        if self.unsure:
            id = self.unsure.pop()
            self.events.append(PublishedRecord(who="publisher", room=self.name, id=id, attempt=2))
            self._acknowledge(id)

    def wipe(self) -> None:
        """Begin a new epoch; every client is notified. Unacknowledged messages are stored once more when retried."""
        self.epoch += 1
        self.stored.clear()
        forgotten, self.unsure = self.unsure, []
        for member in self.members:
            if member.connected and member.position is not None:
                since, member.position = member.position, self.position
                self.events.append(
                    JoinedRecord(
                        who=member.who,
                        room=self.name,
                        epoch=self.position.epoch,
                        seq=0,
                        since=since,
                        recovered=False,
                    )
                )
        for id in forgotten:
            self.events.append(PublishedRecord(who="publisher", room=self.name, id=id, attempt=2))
            self._store(id)
            self._acknowledge(id)

    def finish(self) -> list[AnyRecord]:
        """Reconnect all clients, and end."""
        for member in self.members:
            self.join(member)
        for member in self.members:
            self.events.append(FinishedRecord(who=member.who))
        self.events.append(FinishedRecord(who="publisher"))
        return self.events

    def _store(self, id: str) -> None:
        self.stored.append(id)
        for member in self.members:
            if member.connected:
                self._receive(member, len(self.stored), "live")
                member.position = self.position

    def _acknowledge(self, id: str) -> None:
        self.events.append(
            AcknowledgedRecord(
                who="publisher",
                room=self.name,
                id=id,
                epoch=self.position.epoch,
                seq=self.stored.index(id) + 1,
            )
        )

    def _receive(self, member: ModelMember, seq: int, via: str) -> None:
        self.events.append(
            ReceivedRecord(
                who=member.who,
                room=self.name,
                id=self.stored[seq - 1],
                epoch=self.position.epoch,
                seq=seq,
                via=via,  # type: ignore[arg-type]
            )
        )


@st.composite
def legal_histories(draw: st.DrawFn, *, least_messages: int = 0, wipes: bool = True) -> list[AnyRecord]:
    """Draw histories of a correct deployment: losses, retries, resumes, rooms with a new epoch."""
    room = ModelRoom(members=[ModelMember(f"member{n}") for n in range(draw(st.integers(2, 4)))])
    for member in room.members:
        room.join(member)
    steps = ["publish", "publish", "publish", "unanswered", "retry", "lose", "join"]
    for step in draw(st.lists(st.sampled_from(steps + ["wipe"] * wipes), max_size=40)):
        match step:
            case "publish" | "unanswered":
                room.publish(answered=step == "publish")
            case "retry":
                room.retry()
            case "lose":
                room.lose(draw(st.sampled_from(room.members)))
            case "join":
                room.join(draw(st.sampled_from(room.members)))
            case "wipe":
                room.wipe()
    for _ in range(least_messages):
        room.publish(answered=True)
    return room.finish()
