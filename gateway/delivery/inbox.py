"""The users with connections here, and their personal logs.

Everything sent to a user reaches every connection of that user. A subscription per user lives as long as the user has
a connection here.
"""

import asyncio
from collections import Counter
from collections.abc import Iterator

import msgspec

from gateway.delivery.fanout import Member
from gateway.delivery.follower import CatchUp, Delivery, Follower
from gateway.delivery.logs import Logs
from gateway.delivery.outbound import Outbound
from gateway.delivery.traffic import Traffic
from services.bus.client import Bus
from services.bus.errors import BusError, Unavailable
from services.settings import Settings
from services.tasks import TaskSet
from services.wire import server
from services.wire.events import DirectPublished
from services.wire.records import UNSET, Position

# The topic of personal messages in resumable streams; no room can have this name (it is not a valid one).
INBOX_TOPIC = ""

_decode_event = msgspec.json.Decoder(DirectPublished).decode


def decode_direct_event(data: bytes, seq: int) -> Delivery:
    """Turn what travels on a user's subject into what the user's connections receive.

    Raises:
        msgspec.DecodeError: the payload is no direct message.
    """
    event = _decode_event(data)
    message = server.DirectMessage(
        from_user_id=event.from_user_id,
        username=event.username,
        content=event.content,
        timestamp=event.timestamp,
        seq=seq or UNSET,
    )
    return Delivery(Outbound(message, INBOX_TOPIC, seq))


class Inboxes:
    """The inboxes of the users with connections on this gateway."""

    def __init__(self, bus: Bus, logs: Logs, settings: Settings, tasks: TaskSet, traffic: Traffic) -> None:
        self._bus = bus
        self._logs = logs
        self._settings = settings
        self._tasks = tasks
        self._traffic = traffic
        self._by_user: dict[str, Follower] = {}
        self._opening: Counter[str] = Counter()  # members on their way in: the follower must not be dropped
        self._next_position: asyncio.Task[int | BusError] | None = None

    def __len__(self) -> int:
        return len(self._by_user)

    def __iter__(self) -> Iterator[str]:
        return iter(self._by_user)

    def __contains__(self, user_id: str) -> bool:
        return user_id in self._by_user

    def connections_of(self, user_id: str) -> list[Member]:
        """Return this gateway's connections of a user."""
        follower = self._by_user.get(user_id)
        return list(follower.fanout) if follower else []

    async def open(self, member: Member) -> Position:
        """Make `member` receive its user's personal messages; return the position after which they follow.

        The caller's next step runs before any of them is written.

        Raises:
            BusError: the position cannot be learned; the member is not added.
        """
        user_id = member.user_id
        follower = self._by_user.get(user_id)
        if follower is None:
            follower = self._by_user[user_id] = self._make(user_id)
        self._opening[user_id] += 1
        try:
            while not follower.is_open:
                seq = await self._stream_position()
                if not follower.is_open:
                    follower.open_at(seq)
            follower.fanout.flush()
            position = follower.position
            follower.fanout.add(member)
        finally:
            self._opening[user_id] -= 1
            self._drop_if_empty(user_id)
        if position is None:
            raise RuntimeError("an inbox without a log")  # inboxes are durable by construction
        return position

    def close(self, member: Member) -> None:
        """Stop sending to a connection; the last one of a user ends the subscription."""
        follower = self._by_user.get(member.user_id)
        if follower is not None:
            follower.fanout.discard(member.connection_id)
            self._drop_if_empty(member.user_id)

    def _drop_if_empty(self, user_id: str) -> None:
        if not self._opening[user_id]:
            del self._opening[user_id]
            follower = self._by_user.get(user_id)
            if follower is not None and not len(follower.fanout):
                follower.close()
                del self._by_user[user_id]

    async def catch_up(self, user_id: str, since: Position) -> CatchUp:
        """Return the personal messages after `since`.

        Raises:
            BusError: the stream could not be read.
        """
        follower = self._by_user.get(user_id)
        if follower is None:
            raise Unavailable("the user has no connection here any more")
        self._logs.require_open()
        return await follower.catch_up(since, cap=self._settings.recovery_limit)

    def hold(self) -> None:
        """Deliver nothing until `resync`: the bus is away."""
        for follower in self._by_user.values():
            follower.hold()

    def resync(self) -> None:
        """Look for gaps in every inbox."""
        for follower in self._by_user.values():
            follower.resync()

    def _make(self, user_id: str) -> Follower:
        subjects = self._settings.subjects
        return Follower(
            self._bus,
            self._logs.inbox,
            live_subject=subjects.user_out(user_id),
            stored_subject=subjects.user_in(user_id),
            decode=decode_direct_event,
            tasks=self._tasks,
            traffic=self._traffic,
        )

    async def _stream_position(self) -> int:
        """Return the stream's last sequence, read after this call began.

        One read serves all who asked before it was sent: thousands who connect in one second cost a few reads.
        """
        if self._next_position is None:
            self._next_position = self._tasks.spawn(self._read_position(), "inbox position")
        found = await asyncio.shield(self._next_position)
        if isinstance(found, BusError):
            raise found
        return found

    async def _read_position(self) -> int | BusError:
        """Return the fault instead of raising it: those who asked handle it, and there may be none left."""
        await asyncio.sleep(0)  # let everyone who arrives in this turn of the loop share the read
        self._next_position = None
        try:
            self._logs.require_open()
            return await self._logs.inbox.last_seq()
        except BusError as fault:
            return fault
