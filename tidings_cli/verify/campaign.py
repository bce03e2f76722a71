"""`tidings verify`: members and publishers together for a while, then time for everything to arrive, and the check."""

import asyncio
import re
import secrets
from dataclasses import dataclass, field
from pathlib import Path

from services.wire.records import Position
from tidings_cli import CommandFailed
from tidings_cli.gateways import Gateways
from tidings_cli.verify.checker import check
from tidings_cli.verify.client import VerifyClient
from tidings_cli.verify.history import AcknowledgedRecord, BadHistory, LostRecord, Recorder, read_history
from tidings_cli.verify.member import SocketMember
from tidings_cli.verify.publisher import PublishingClient
from tidings_cli.verify.report import Report
from tidings_cli.verify.stream_member import StreamMember

_POLL_S = 0.05
_JOIN_S = 30.0
_SETTLE_S = 60.0
_DURATION = re.compile(r"(\d+(?:\.\d+)?)(ms|s|m|h)?")
_UNIT_S = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, None: 1.0}


@dataclass(frozen=True, slots=True)
class Plan:
    """Numbers of clients and rooms. `rate` is messages per second of one publisher."""

    publishers: int = 4
    members: int = 20
    rooms: int = 5
    rate: float = 10.0
    namespace: str = ""
    streams: int = 4
    run: str = field(default_factory=lambda: secrets.token_hex(4))

    @property
    def room_names(self) -> list[str]:
        """The rooms of this run alone."""
        head = f"{self.namespace}:" if self.namespace else ""
        return [f"{head}verify-{self.run}-{number}" for number in range(1, self.rooms + 1)]


class Campaign:
    """The clients of one plan, spread over the gateways.

    Each member is in several rooms, so that resuming one cannot hide another.
    """

    def __init__(self, plan: Plan, gateways: Gateways, recorder: Recorder) -> None:
        rooms = plan.room_names
        self._recorder = recorder
        self._rate = plan.rate
        self.members: list[SocketMember] = [
            SocketMember(f"member-{plan.run}-{n}", _rooms_from(rooms, n, 2), gateways, recorder, n)
            for n in range(plan.members)
        ]
        self.members += [
            StreamMember(f"stream-{plan.run}-{n}", _rooms_from(rooms, n, 3), gateways, recorder, n)
            for n in range(plan.streams)
        ]
        self.publishers = [
            PublishingClient(f"publisher-{plan.run}-{n}", rooms, gateways, recorder, n)
            for n in range(plan.publishers)
        ]
        self._running: list[asyncio.Task[None]] = []
        self._publishing: list[asyncio.Task[None]] = []

    async def start(self) -> None:
        """Connect all clients, and publish once all members have joined.

        Raises:
            CommandFailed: a member has not joined in time, or the rooms are ephemeral.
        """
        clients: list[VerifyClient] = [*self.members, *self.publishers]
        self._running = [asyncio.create_task(client.run(), name=client.who) for client in clients]
        try:
            async with asyncio.timeout(_JOIN_S):
                while not self.all_joined:
                    await asyncio.sleep(_POLL_S)
                    for task in self._running:
                        if task.done():
                            task.result()
        except TimeoutError:
            losses = (event.why for event in reversed(self._recorder.events) if isinstance(event, LostRecord))
            reason = next((f": {why}" for why in losses), "")
            raise CommandFailed(f"not every member joined within {_JOIN_S:g} s{reason}") from None
        self._publishing = [
            asyncio.create_task(publisher.publish(self._rate)) for publisher in self.publishers
        ]

    @property
    def all_joined(self) -> bool:
        """All members are in all their rooms."""
        return all(member.present.issuperset(member.rooms) for member in self.members)

    async def finish(self) -> bool:
        """Stop publishing, wait until everything stored has arrived, and stop.

        Return whether all of it arrived in time; the checker finds what did not.
        """
        loop = asyncio.get_running_loop()
        deadline = loop.time() + _SETTLE_S
        for publisher in self.publishers:
            publisher.finishing.set()
        if self._publishing:
            await asyncio.wait(self._publishing, timeout=_SETTLE_S)
        floor = self._acknowledged()
        while not (settled := self._settled(floor)) and loop.time() < deadline:  # noqa: ASYNC110  # arrivals set no event
            await asyncio.sleep(_POLL_S)
        await self.abort()
        return settled

    async def abort(self) -> None:
        """Stop all clients now. Idempotent."""
        for tasks in (self._publishing, self._running):
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    def _acknowledged(self) -> dict[tuple[str, str], int]:
        """Return the last acknowledged sequence by room and epoch."""
        last: dict[tuple[str, str], int] = {}
        for event in self._recorder.events:
            if isinstance(event, AcknowledgedRecord):
                key = (event.room, event.epoch)
                last[key] = max(last.get(key, 0), event.seq)
        return last

    def _settled(self, floor: dict[tuple[str, str], int]) -> bool:
        """Return whether all members have the same position in each room, not before the last acknowledgement."""
        if not self.all_joined:
            return False
        reached: dict[str, set[Position]] = {}
        for member in self.members:
            for room in member.rooms:
                reached.setdefault(room, set()).add(member.positions[room])
        return all(
            len(positions) == 1 and all(at.seq >= floor.get((room, at.epoch), 0) for at in positions)
            for room, positions in reached.items()
        )


def _rooms_from(rooms: list[str], start: int, count: int) -> list[str]:
    return [rooms[(start + step) % len(rooms)] for step in range(min(count, len(rooms)))]


# --- the command ---


def seconds_of(text: str) -> float:
    """Return the seconds in `30s`, `500ms`, `5m`, `1h` or `30`.

    Raises:
        CommandFailed: the text is not a duration.
    """
    found = _DURATION.fullmatch(text.strip())
    if found is None:
        raise CommandFailed(f"{text!r} is not a duration: write 30s, 5m or 1h")
    return float(found[1]) * _UNIT_S[found[2]]


def check_file(path: Path) -> Report:
    """Check a kept history.

    Raises:
        CommandFailed: the file is not readable, or not a history.
    """
    try:
        return check(read_history(path))
    except OSError as fault:
        raise CommandFailed(f"{path}: {fault.strerror}") from None
    except BadHistory as fault:
        raise CommandFailed(str(fault)) from None


async def run(plan: Plan, gateways: Gateways, duration_s: float, keep: Path | None) -> Report:
    """Run a campaign against a deployment, and check its records.

    Raises:
        CommandFailed: the clients did not connect and join.
    """
    try:
        recorder = Recorder(keep)
    except OSError as fault:
        raise CommandFailed(f"{keep}: {fault.strerror}") from None
    campaign = Campaign(plan, gateways, recorder)
    try:
        await campaign.start()
        await asyncio.sleep(duration_s)
        await campaign.finish()
    finally:
        await campaign.abort()
        recorder.close()
    return check(recorder.events)
