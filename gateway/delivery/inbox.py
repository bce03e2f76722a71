"""The users with connections here, and their personal streams.

Everything sent to a user reaches every connection of that user. A subscription per user lives as long as the user has
a connection here.
"""

import asyncio
from collections.abc import Callable, Iterator
from functools import partial

import msgspec

from gateway.delivery.counters import Counters
from gateway.delivery.encoded_message import EncodedMessage
from gateway.delivery.fanout import Member
from gateway.delivery.reads import Reads
from gateway.delivery.stream_subscription import CatchUp, Delivery, StreamSubscription
from gateway.delivery.streams import Streams
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
    return Delivery(EncodedMessage(message, INBOX_TOPIC, seq))


# Told the position after which personal messages follow, or why it cannot be learned.
OnOpened = Callable[[Position | BusError], None]

# While many connect, one read of the position serves all who came within this time.
_READ_EVERY_S = 0.002


class Inboxes:
    """The inboxes of the users with connections on this gateway."""

    def __init__(
        self, bus: Bus, streams: Streams, settings: Settings, tasks: TaskSet, counters: Counters, reads: Reads
    ) -> None:
        self._bus = bus
        self._streams = streams
        self._subjects = settings.subjects
        self._settings = settings
        self._reads = reads
        self._tasks = tasks
        self._counters = counters
        self._by_user: dict[str, StreamSubscription] = {}
        self._opening: dict[str, int] = {}  # members on their way in: the subscription must not be dropped
        self._waiting: list[Callable[[int | BusError], None]] = []  # for the next read of the position
        self._last_read = 0.0

    def __len__(self) -> int:
        return len(self._by_user)

    def __iter__(self) -> Iterator[str]:
        return iter(self._by_user)

    def __contains__(self, user_id: str) -> bool:
        return user_id in self._by_user

    async def open(self, member: Member) -> Position:
        """Make `member` receive its user's personal messages; return the position after which they follow.

        The caller's next step runs before any of them is written.

        Raises:
            BusError: the position cannot be learned; the member is not added.
        """
        subscription = self._subscription_for(member.user_id)
        if subscription.is_open:
            return self._add_member(subscription, member)
        known: asyncio.Future[int | BusError] = asyncio.get_running_loop().create_future()
        self._begin_opening(member.user_id, lambda found: None if known.done() else known.set_result(found))
        try:
            return self._start_and_add(subscription, await known, member)
        finally:
            self._end_opening(member.user_id)

    def open_with_callback(self, member: Member, on_opened: OnOpened) -> None:
        """Do the same, and call back, maybe at once, instead of returning or raising. `on_opened` must not raise."""
        subscription = self._subscription_for(member.user_id)
        if subscription.is_open:
            on_opened(self._add_member(subscription, member))
        else:
            self._begin_opening(member.user_id, partial(self._on_position, subscription, member, on_opened))

    def _on_position(
        self, subscription: StreamSubscription, member: Member, on_opened: OnOpened, found: int | BusError
    ) -> None:
        try:
            on_opened(self._start_and_add(subscription, found, member))
        except BusError as fault:
            on_opened(fault)
        finally:
            self._end_opening(member.user_id)

    def _subscription_for(self, user_id: str) -> StreamSubscription:
        subscription = self._by_user.get(user_id)
        if subscription is None:
            subscription = self._by_user[user_id] = StreamSubscription(
                self._bus,
                self._streams.inbox,
                live_subject=self._subjects.user_out(user_id),
                decode=decode_direct_event,
                tasks=self._tasks,
                counters=self._counters,
                reads=self._reads,
            )
        return subscription

    def _start_and_add(
        self, subscription: StreamSubscription, found: int | BusError, member: Member
    ) -> Position:
        if isinstance(found, BusError):
            raise found
        if not subscription.is_open:
            subscription.open_at(found)
        return self._add_member(subscription, member)

    @staticmethod
    def _add_member(subscription: StreamSubscription, member: Member) -> Position:
        subscription.fanout.flush()
        position = subscription.position
        subscription.fanout.add(member)
        if position is None:
            raise RuntimeError("an inbox without a log")  # inboxes are durable by construction
        return position

    def leave(self, member: Member) -> None:
        """Stop sending to a connection; the last one of a user ends the subscription."""
        subscription = self._by_user.get(member.user_id)
        if subscription is not None:
            subscription.fanout.discard(member.connection_id)
            self._drop_if_empty(member.user_id)

    def _begin_opening(self, user_id: str, on_position: Callable[[int | BusError], None]) -> None:
        self._opening[user_id] = self._opening.get(user_id, 0) + 1
        self._waiting.append(on_position)
        if len(self._waiting) == 1:
            self._tasks.spawn(self._read_position(), "inbox position")

    def _end_opening(self, user_id: str) -> None:
        left = self._opening[user_id] - 1
        if left:
            self._opening[user_id] = left
        else:
            del self._opening[user_id]
            self._drop_if_empty(user_id)

    def _drop_if_empty(self, user_id: str) -> None:
        subscription = self._by_user.get(user_id)
        if subscription is not None and not len(subscription.fanout) and user_id not in self._opening:
            subscription.close()
            del self._by_user[user_id]

    async def catch_up(self, member: Member, since: Position) -> CatchUp:
        """Return the personal messages after `since`, for a connection that has read what it was sent before.

        Raises:
            BusError: the stream could not be read.
        """

        def still_wanted() -> bool:
            subscription = self._by_user.get(member.user_id)
            return subscription is not None and member.connection_id in subscription.fanout

        async with self._reads.turn(member, still_wanted), self._reads.recovery():
            subscription = self._by_user.get(member.user_id)
            if subscription is None:
                raise Unavailable("the user has no connection here any more")
            self._streams.require_open()
            catch_up = await subscription.catch_up(
                since,
                cap=self._settings.recovery_limit,
                max_bytes=self._settings.recovery_max_bytes,
                packed=member.encoding.packed,
            )
        self._counters.recoveries[catch_up.verdict] += 1
        return catch_up

    def close(self) -> None:
        """Drop all subscriptions."""
        for subscription in self._by_user.values():
            subscription.close()
        self._by_user.clear()

    def pause(self) -> None:
        """Deliver nothing until `resync`: the bus is away."""
        for subscription in self._by_user.values():
            subscription.pause()

    @property
    def subscriptions(self) -> Iterator[StreamSubscription]:
        """What each user's inbox follows."""
        return iter(self._by_user.values())

    async def _read_position(self) -> None:
        """Read the stream's last sequence, and answer all callers that waited before the request was sent."""
        loop = asyncio.get_running_loop()
        waiting = self._waiting
        found: int | BusError = Unavailable("the gateway is stopping")
        try:
            await asyncio.sleep(max(0.0, self._last_read + _READ_EVERY_S - loop.time()))
            self._last_read = loop.time()
            self._waiting = []  # later callers wait for the next request
            self._streams.require_open()
            found = (await self._streams.inbox.state()).last_seq
        except BusError as fault:
            found = fault
        finally:
            for on_position in waiting:
                on_position(found)
