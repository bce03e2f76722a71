"""The inboxes of users with connections here.

Everything sent to a user reaches every connection of that user. The subscription to an inbox lives as long as its user
has a connection on this gateway.
"""

import asyncio
from collections.abc import Callable, Iterator
from functools import partial

import msgspec

from gateway.delivery.catch_up import CatchUp, recover
from gateway.delivery.encoded_message import EncodedMessage
from gateway.delivery.fanout import Fanout, Member
from gateway.delivery.stream_subscription import Delivery, DeliveryParts, StreamSubscription
from services.bus.errors import BusError, Unavailable
from services.wire import server
from services.wire.events import DirectPublished
from services.wire.records import UNSET, Position

# The topic of direct messages in resumable streams. No room has this name: it is not a valid one.
INBOX_TOPIC = ""

_decode_event = msgspec.json.Decoder(DirectPublished).decode


def decode_direct_event(data: bytes, seq: int) -> Delivery:
    """Return what a user's connections receive for an event on the user's subject.

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
    return Delivery(EncodedMessage(message, INBOX_TOPIC, seq), skip_connection=event.exclude, sender=None)


# Called with the position after which direct messages follow, or why it is not known.
OnOpened = Callable[[Position | BusError], None]

# While many users connect, one read of the position serves all that opened within this time.
_READ_EVERY_S = 0.002


class Inboxes:
    """The inboxes of the users with connections on this gateway."""

    def __init__(self, parts: DeliveryParts) -> None:
        self._parts = parts
        self._by_user: dict[str, StreamSubscription] = {}
        self._opening: dict[str, int] = {}  # members not yet added: their subscription must not be dropped
        self._waiting: list[Callable[[int | BusError], None]] = []  # for the next read of the position
        self._last_read = 0.0

    def __len__(self) -> int:
        return len(self._by_user)

    def __contains__(self, user_id: str) -> bool:
        return user_id in self._by_user

    def open(self, member: Member, on_opened: OnOpened) -> None:
        """Send `member` its user's direct messages. `on_opened` is called once, maybe at once, and must not raise.

        No message is written before `on_opened` returns. If it gets an error, the member was not added.
        """
        user_id = member.user_id
        subscription = self._by_user.get(user_id)
        if subscription is None:
            parts = self._parts
            subscription = self._by_user[user_id] = StreamSubscription(
                parts, parts.streams.inbox, parts.settings.subjects.user_out(user_id), decode_direct_event
            )
        if subscription.is_open:
            on_opened(self._add_member(subscription, member))
            return
        self._opening[user_id] = self._opening.get(user_id, 0) + 1
        self._waiting.append(partial(self._on_position, subscription, member, on_opened))
        if len(self._waiting) == 1:
            self._parts.tasks.spawn(self._read_position(), "inbox position")

    def _on_position(
        self, subscription: StreamSubscription, member: Member, on_opened: OnOpened, found: int | BusError
    ) -> None:
        try:
            if isinstance(found, BusError):
                on_opened(found)
                return
            if not subscription.is_open:
                subscription.open_at(found)
            on_opened(self._add_member(subscription, member))
        finally:
            left = self._opening.pop(member.user_id) - 1
            if left:
                self._opening[member.user_id] = left
            self._drop_if_empty(member.user_id)

    @staticmethod
    def _add_member(subscription: StreamSubscription, member: Member) -> Position:
        subscription.fanout.flush()
        position = subscription.position
        subscription.fanout.add(member)
        if position is None:
            raise RuntimeError("an inbox without a log")  # inboxes are durable by construction
        return position

    def fanout(self, user_id: str) -> Fanout | None:
        """Return the fan-out of a user's inbox, if the user has connections here."""
        subscription = self._by_user.get(user_id)
        return None if subscription is None else subscription.fanout

    def leave(self, member: Member) -> None:
        """Stop sending to a connection; the last one of a user ends the subscription."""
        subscription = self._by_user.get(member.user_id)
        if subscription is not None:
            subscription.fanout.discard(member.connection_id)
            self._drop_if_empty(member.user_id)

    def _drop_if_empty(self, user_id: str) -> None:
        subscription = self._by_user.get(user_id)
        if subscription is not None and not len(subscription.fanout) and user_id not in self._opening:
            subscription.close()
            del self._by_user[user_id]

    async def catch_up(self, member: Member, since: Position) -> CatchUp:
        """Read the direct messages after `since`, once the connection has read earlier bytes. Raises BusError."""

        def still_wanted() -> bool:
            subscription = self._by_user.get(member.user_id)
            return subscription is not None and member.connection_id in subscription.fanout

        async with self._parts.reads.turn(member, still_wanted):
            subscription = self._by_user.get(member.user_id)
            if subscription is None:
                raise Unavailable("the user has no connection here any more")
            return await recover(subscription, member, since)

    def close(self) -> None:
        for subscription in self._by_user.values():
            subscription.close()
        self._by_user.clear()

    @property
    def subscriptions(self) -> Iterator[StreamSubscription]:
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
            self._parts.streams.require_open()
            found = (await self._parts.streams.inbox.state()).last_seq
        except BusError as fault:
            found = fault
        finally:
            for on_position in waiting:
                on_position(found)
