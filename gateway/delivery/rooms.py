"""The rooms with members on this gateway, and their subscriptions.

One subscription per room, whatever the number of members. It lingers after the last one left: users return (a page
reload), and a subscription that is dropped and made again costs the whole cluster.
"""

import asyncio
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial

import msgspec
import structlog

from gateway.delivery.catch_up import CatchUp, JoinHistory, read_history, recover
from gateway.delivery.encoded_message import EncodedMessage
from gateway.delivery.fanout import Fanout, Member
from gateway.delivery.recovery import RecoveryVerdict
from gateway.delivery.stream_subscription import Delivery, DeliveryParts, StreamSubscription
from gateway.delivery.streams import RoomRoute
from services.bus.client import BusMessage
from services.bus.errors import BusError
from services.wire import server
from services.wire.events import MembersEvent, RoomPublished
from services.wire.records import UNSET, Position, UnsetType

log = structlog.get_logger(__name__)

_LOG_EVERY_S = 1.0

_decode_message = msgspec.json.Decoder(RoomPublished).decode
_decode_notice = msgspec.json.Decoder(MembersEvent).decode


@dataclass(frozen=True, slots=True)
class RoomJoin:
    """The connection is a member now, and receives live messages after `position`.

    `catch_up` answers `since`, and `history` a request for it.
    """

    position: Position | None
    catch_up: CatchUp | None = None
    history: JoinHistory | None = None


# Called exactly once per join, before anything of the room is written to the member; None: no longer wanted.
OnJoined = Callable[[RoomJoin | BusError | None], None]


def decode_room_event(data: bytes, seq: int) -> Delivery:
    """Return what members receive for an event on the room's subject.

    Raises:
        msgspec.DecodeError: the payload is no message to a room.
    """
    event = _decode_message(data)
    message = server.RoomMessage(
        user_id=event.user_id,
        username=event.username,
        room=event.room,
        content=event.content,
        timestamp=event.timestamp,
        seq=seq or UNSET,
    )
    return Delivery(
        EncodedMessage(message, event.room, seq),
        skip_connection=event.exclude or ("" if event.echo else event.origin),
        sender=None if event.exclude else event.user_id,
    )


def _gap_notice(room: str, position: Position) -> EncodedMessage:
    """Return the notice of lost messages: the answer to a join with `since`, sent without a request."""
    message = server.JoinedRoom(room=room, epoch=position.epoch, seq=position.seq, recovered=False, missed=[])
    return EncodedMessage(message, room)


class Room:
    """A room with members here, or one that lingers."""

    __slots__ = ("_notices", "joining", "linger", "opening", "route", "subscription")

    def __init__(self, parts: DeliveryParts, route: RoomRoute) -> None:
        subjects, name = parts.settings.subjects, route.room
        self.route = route
        self.subscription = StreamSubscription(
            parts,
            route.stream,
            subjects.room_out(route.namespace, name),
            decode_room_event,
            partial(_gap_notice, name),
        )
        self._notices = parts.bus.subscribe(subjects.room_members(route.namespace, name), self)
        self.opening: asyncio.Future[None] | None = None
        self.joining = 0  # members not yet added: the room must not be dropped
        self.linger: asyncio.TimerHandle | None = None

    def __call__(self, message: BusMessage) -> None:
        """Notify members that a user joined or left. `bus.subscribe` gets the object itself, as for messages."""
        try:
            event = _decode_notice(message.data)
        except (msgspec.DecodeError, RecursionError) as fault:
            self.subscription.parts.counters.unexpected += 1
            log.error("not a join or leave", subject=message.subject, reason=str(fault))
            return
        # The other members are notified, not the user that joined or left.
        self.subscription.fanout.send_except_user(EncodedMessage(event), event.user_id)

    def close(self) -> None:
        self._notices.close()
        self.subscription.close()


def _opened(room: Room, opening: "asyncio.Future[None]") -> None:
    room.opening = None
    if not opening.cancelled():
        opening.exception()  # for the joins that wait; without any, asyncio would log it as never retrieved


class Rooms:
    """All rooms of this gateway."""

    def __init__(self, parts: DeliveryParts) -> None:
        self._parts = parts
        self._logged_at = -math.inf
        self._unlogged = 0
        self._rooms: dict[str, Room] = {}

    def __len__(self) -> int:
        return len(self._rooms)

    def join(
        self,
        member: Member,
        name: str,
        since: Position | int | UnsetType,
        still_wanted: Callable[[], bool],
        on_joined: OnJoined,
    ) -> None:
        """Send a room's messages to `member`, also those since a position, or a number of the newest stored ones.

        `still_wanted` is called again after every wait.
        """
        room = self._rooms.get(name)
        if room is None:
            room = self._rooms[name] = Room(self._parts, self._parts.streams.route(name))
        if room.linger is not None:
            room.linger.cancel()
            room.linger = None
        if room.subscription.is_open and since is UNSET:
            self._add_member(room, member, on_joined)
        else:
            room.joining += 1
            self._parts.tasks.spawn(self._join(room, member, since, still_wanted, on_joined), f"join {name}")

    def leave(self, connection_id: str, name: str) -> bool:
        """Stop sending a room's messages to a connection; return whether it was a member."""
        room = self._rooms.get(name)
        if room is None or connection_id not in room.subscription.fanout:
            return False
        room.subscription.fanout.discard(connection_id)
        self._linger_if_empty(room)
        return True

    def has(self, connection_id: str, name: str) -> bool:
        room = self._rooms.get(name)
        return room is not None and connection_id in room.subscription.fanout

    def fanout(self, name: str) -> Fanout | None:
        """Return the fan-out of a room, if it has any here."""
        room = self._rooms.get(name)
        return None if room is None else room.subscription.fanout

    def member_ids(self, name: str) -> list[str]:
        """Return the ids of a room's connections here."""
        return [member.connection_id for member in self.fanout(name) or ()]

    @property
    def subscriptions(self) -> Iterator[StreamSubscription]:
        return (room.subscription for room in self._rooms.values())

    def close(self) -> None:
        for room in self._rooms.values():
            if room.linger is not None:
                room.linger.cancel()
            room.close()
        self._rooms.clear()

    async def _join(
        self,
        room: Room,
        member: Member,
        since: Position | int | UnsetType,
        still_wanted: Callable[[], bool],
        on_joined: OnJoined,
    ) -> None:
        def finish(catch_up: CatchUp | None = None, history: JoinHistory | None = None) -> None:
            if still_wanted():
                self._add_member(room, member, on_joined, catch_up, history)
            else:
                on_joined(None)

        try:
            if not room.subscription.is_open:
                await self._open(room)
            if isinstance(since, UnsetType):
                finish()
                return
            async with self._parts.reads.turn(member, still_wanted):
                if not still_wanted():
                    finish()
                elif isinstance(since, Position):
                    finish(catch_up=await self._catch_up(room, member, since))
                else:
                    finish(history=await read_history(room.subscription, member, since))
        except BusError as fault:
            on_joined(fault)
        finally:
            room.joining -= 1
            self._linger_if_empty(room)

    async def _catch_up(self, room: Room, member: Member, since: Position) -> CatchUp:
        catch_up = await recover(room.subscription, member, since)
        if catch_up.verdict is not RecoveryVerdict.RECOVERED:
            # One line a second at most: a client may cause any number of them.
            now = asyncio.get_running_loop().time()
            if now - self._logged_at < _LOG_EVERY_S:
                self._unlogged += 1
            else:
                reason, others = catch_up.verdict, self._unlogged
                log.info("room not recovered", room=room.route.room, reason=reason, others=others)
                self._logged_at, self._unlogged = now, 0
        return catch_up

    async def _open(self, room: Room) -> None:
        """Open the subscription; concurrent joins share one attempt, which survives the first one's cancellation."""
        if room.opening is None:
            room.opening = asyncio.ensure_future(self._open_subscription(room))
            room.opening.add_done_callback(partial(_opened, room))
        await asyncio.shield(room.opening)

    async def _open_subscription(self, room: Room) -> None:
        route = room.route
        if route.stream is None:
            # There is nothing to fill from: the server must have the subscription before the join is answered.
            await self._parts.bus.flush()
            room.subscription.open_at(0)
            return
        self._parts.streams.require_open()
        last, stream_last = await route.stream.last_of(route.subject)
        room.subscription.open_at(last or stream_last)

    def _add_member(
        self,
        room: Room,
        member: Member,
        on_joined: OnJoined,
        catch_up: CatchUp | None = None,
        history: JoinHistory | None = None,
    ) -> None:
        # First what is queued for the others, then the answer, then membership: live messages then start exactly
        # after the answer's position.
        room.subscription.fanout.flush()
        on_joined(RoomJoin(room.subscription.position, catch_up, history))
        room.subscription.fanout.add(member)

    def _linger_if_empty(self, room: Room) -> None:
        if (
            room.linger is None
            and not room.joining
            and not len(room.subscription.fanout)
            and self._rooms.get(room.route.room) is room
        ):
            loop = asyncio.get_running_loop()
            room.linger = loop.call_later(self._parts.settings.room_linger_s, self._drop, room)

    def _drop(self, room: Room) -> None:
        room.linger = None
        if not len(room.subscription.fanout) and not room.joining:
            room.close()
            self._rooms.pop(room.route.room, None)
