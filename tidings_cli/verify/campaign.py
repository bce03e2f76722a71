"""Members and publishers together for a while, and then time for everything to arrive."""

import asyncio
import secrets
from collections.abc import Sequence
from dataclasses import dataclass, field

from services.wire.records import Position
from tidings_cli.verify.client import Client, Receiver
from tidings_cli.verify.gateways import Gateways
from tidings_cli.verify.history import Acknowledged, Lost, Recorder
from tidings_cli.verify.member import Member
from tidings_cli.verify.publisher import Publisher
from tidings_cli.verify.stream_member import StreamMember

_POLL_S = 0.05


@dataclass(frozen=True, slots=True)
class Plan:
    """How much of what. `rate` is messages per second of one publisher."""

    publishers: int = 4
    members: int = 20
    rooms: int = 5
    rate: float = 10.0
    namespace: str = ""
    streams: int = 4
    run: str = field(default_factory=lambda: secrets.token_hex(4))

    @property
    def room_names(self) -> list[str]:
        """The rooms of this run; nobody else is in them."""
        head = f"{self.namespace}:" if self.namespace else ""
        return [f"{head}verify-{self.run}-{number}" for number in range(1, self.rooms + 1)]


class Campaign:
    """The clients of one plan, spread over the gateways. Every member is in several rooms, so that resuming one cannot hide another."""

    def __init__(self, plan: Plan, gateways: Gateways, recorder: Recorder) -> None:
        rooms = plan.room_names
        self._recorder = recorder
        self.members: list[Receiver] = [
            Member(f"member-{plan.run}-{n}", _some(rooms, n, 2), gateways, recorder, n)
            for n in range(plan.members)
        ]
        self.members += [
            StreamMember(f"stream-{plan.run}-{n}", _some(rooms, n, 3), gateways, recorder, n)
            for n in range(plan.streams)
        ]
        self.publishers = [
            Publisher(f"publisher-{plan.run}-{n}", rooms, gateways, recorder, n, plan.rate)
            for n in range(plan.publishers)
        ]
        self._running: list[asyncio.Task[None]] = []
        self._publishing: list[asyncio.Task[None]] = []

    @property
    def clients(self) -> Sequence[Client | Receiver]:
        """Everybody."""
        return [*self.members, *self.publishers]

    async def start(self, timeout_s: float = 30.0) -> None:
        """Connect everybody, and begin to publish when all members are in.

        Raises:
            TimeoutError: not everybody came in.
            NotDurable: the rooms are ephemeral.
        """
        self._running = [asyncio.create_task(client.run(), name=client.who) for client in self.clients]
        async with asyncio.timeout(timeout_s):
            while not self.everybody_is_in:
                await asyncio.sleep(_POLL_S)  # each comes in by itself
                for task in self._running:
                    if task.done():
                        task.result()
        self._publishing = [asyncio.create_task(publisher.publish()) for publisher in self.publishers]

    @property
    def last_trouble(self) -> str:
        """Why a connection last ended or did not come about; empty if none did."""
        lost = (event.why for event in reversed(self._recorder.events) if isinstance(event, Lost))
        return next(lost, "")

    @property
    def everybody_is_in(self) -> bool:
        """Whether all members are in all their rooms now."""
        return all(member.present.issuperset(member.rooms) for member in self.members)

    async def finish(self, timeout_s: float = 60.0) -> bool:
        """Stop publishing, wait until everything stored has arrived, and stop.

        Return whether everything did arrive in time; what did not is for the checker to find.
        """
        loop = asyncio.get_running_loop()
        deadline = loop.time() + timeout_s
        for publisher in self.publishers:
            publisher.enough()
        if self._publishing:
            await asyncio.wait(self._publishing, timeout=timeout_s)
        floor = self._acknowledged()
        while not (settled := self._settled(floor)) and loop.time() < deadline:  # noqa: ASYNC110  # as above
            await asyncio.sleep(_POLL_S)
        await self.abort()
        return settled

    async def abort(self) -> None:
        """Stop everybody now."""
        for task in self._publishing:
            task.cancel()
        await asyncio.gather(*self._publishing, return_exceptions=True)
        await asyncio.gather(*(client.stop() for client in self.clients))
        await asyncio.gather(*self._running, return_exceptions=True)

    def _acknowledged(self) -> dict[tuple[str, str], int]:
        """Return the last acknowledged sequence by room and epoch."""
        last: dict[tuple[str, str], int] = {}
        for event in self._recorder.events:
            if isinstance(event, Acknowledged):
                place = (event.room, event.epoch)
                last[place] = max(last.get(place, 0), event.seq)
        return last

    def _settled(self, floor: dict[tuple[str, str], int]) -> bool:
        """Whether all members stand at the same place of each room, and not before what was acknowledged."""
        if not self.everybody_is_in:
            return False
        stand: dict[str, set[Position]] = {}
        for member in self.members:
            for room in member.rooms:
                stand.setdefault(room, set()).add(member.positions[room])
        return all(
            len(positions) == 1 and all(at.seq >= floor.get((room, at.epoch), 0) for at in positions)
            for room, positions in stand.items()
        )


def _some(rooms: list[str], start: int, count: int) -> list[str]:
    return [rooms[(start + step) % len(rooms)] for step in range(min(count, len(rooms)))]
