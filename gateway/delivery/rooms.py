"""The rooms with members on this gateway, and their subscriptions.

One subscription per room, whatever the number of members; it lingers after the last one left, because people come
back (a page reload) and a subscription at once dropped and made again costs the whole cluster.
"""

import asyncio
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial

import msgspec
import structlog

from gateway.delivery.counters import Counters
from gateway.delivery.encoded_message import EncodedMessage
from gateway.delivery.fanout import Member
from gateway.delivery.reads import Reads
from gateway.delivery.recovery import RecoveryVerdict
from gateway.delivery.stream_subscription import CatchUp, Delivery, StreamSubscription
from gateway.delivery.streams import Streams
from services.bus.client import Bus, BusMessage
from services.bus.errors import BusError
from services.settings import Settings
from services.tasks import TaskSet
from services.wire import server
from services.wire.events import MembersEvent, RoomPublished
from services.wire.records import UNSET, Position, UnsetType

log = structlog.get_logger(__name__)

_LOG_EVERY_S = 1.0

_decode_message = msgspec.json.Decoder(RoomPublished).decode
_decode_notice = msgspec.json.Decoder(MembersEvent).decode


@dataclass(frozen=True, slots=True)
class RoomJoin:
    """A member is in; live messages after `position` follow. `catch_up` answers `since`."""

    position: Position | None
    catch_up: CatchUp | None = None


# Called exactly once per join, before anything of the room is written to the member; None: no longer wanted.
OnJoined = Callable[[RoomJoin | BusError | None], None]


def decode_room_event(data: bytes, seq: int) -> Delivery:
    """Turn what travels on a room's subject into what members receive.

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
        skip_connection="" if event.echo else event.origin,
        sender=event.user_id,
    )


def _gap_notice(room: str, position: Position) -> EncodedMessage:
    """Return the notice of lost messages: members are at `position` now.

    It is the answer to a join with `since`, sent without a request.
    """
    message = server.JoinedRoom(room=room, epoch=position.epoch, seq=position.seq, recovered=False, missed=[])
    return EncodedMessage(message, room)


class Room:
    """A room with members here, or with none since a moment ago."""

    __slots__ = ("_counters", "_notices", "joining", "linger", "name", "opening", "subscription")

    def __init__(
        self, name: str, subscription: StreamSubscription, bus: Bus, members_subject: str, counters: Counters
    ) -> None:
        self.name = name
        self.subscription = subscription
        self._counters = counters
        self._notices = bus.subscribe(members_subject, self)
        self.opening: asyncio.Future[None] | None = None
        self.joining = 0  # members on their way in: the room must not be dropped under them
        self.linger: asyncio.TimerHandle | None = None

    def __call__(self, message: BusMessage) -> None:
        """Pass on who joined or left: what the subscription calls, without a bound method for each room."""
        try:
            event = _decode_notice(message.data)
        except (msgspec.DecodeError, RecursionError) as fault:
            self._counters.unexpected += 1
            log.error("not a join or leave", subject=message.subject, reason=str(fault))
            return
        # Those who were there hear of a user who comes or goes; the user does not.
        self.subscription.fanout.send_except_user(EncodedMessage(event), event.user_id)

    def close(self) -> None:
        """Hear no more of it."""
        self._notices.close()
        self.subscription.close()


def _opened(room: Room, opening: "asyncio.Future[None]") -> None:
    room.opening = None
    if not opening.cancelled():
        opening.exception()  # those who wait have it; with nobody left it is no news


class Rooms:
    """All rooms of this gateway."""

    def __init__(
        self, bus: Bus, streams: Streams, settings: Settings, tasks: TaskSet, counters: Counters, reads: Reads
    ) -> None:
        self._bus = bus
        self._streams = streams
        self._settings = settings
        self._tasks = tasks
        self._counters = counters
        self._reads = reads
        self._logged_at = -math.inf
        self._unlogged = 0
        self._rooms: dict[str, Room] = {}

    def __len__(self) -> int:
        return len(self._rooms)

    def __iter__(self) -> Iterator[Room]:
        return iter(self._rooms.values())

    def join(
        self,
        member: Member,
        name: str,
        since: Position | UnsetType,
        still_wanted: Callable[[], bool],
        on_joined: OnJoined,
    ) -> None:
        """Make `member` receive a room's messages. `still_wanted` is asked again after every wait."""
        room = self._rooms.get(name) or self._make(name)
        if room.linger is not None:
            room.linger.cancel()
            room.linger = None
        if room.subscription.is_open and since is UNSET:
            self._add_member(room, member, None, on_joined)
        else:
            room.joining += 1
            self._tasks.spawn(self._join(room, member, since, still_wanted, on_joined), f"join {name}")

    def leave(self, connection_id: str, name: str) -> bool:
        """Stop sending a room's messages to a connection; return whether it was a member."""
        room = self._rooms.get(name)
        if room is None or connection_id not in room.subscription.fanout:
            return False
        room.subscription.fanout.discard(connection_id)
        self._linger_if_empty(room)
        return True

    def has(self, connection_id: str, name: str) -> bool:
        """Whether a connection is a member of a room."""
        room = self._rooms.get(name)
        return room is not None and connection_id in room.subscription.fanout

    def members(self, name: str) -> int:
        """Return how many connections of this gateway are in a room."""
        room = self._rooms.get(name)
        return len(room.subscription.fanout) if room else 0

    def pause(self) -> None:
        """Deliver nothing of durable rooms until `resync`: the bus is away."""
        for room in self._rooms.values():
            room.subscription.pause()

    @property
    def subscriptions(self) -> Iterator[StreamSubscription]:
        """What each room follows."""
        return (room.subscription for room in self._rooms.values())

    def close(self) -> None:
        """Drop all subscriptions."""
        for room in self._rooms.values():
            if room.linger is not None:
                room.linger.cancel()
            room.close()
        self._rooms.clear()

    def _make(self, name: str) -> Room:
        namespace = self._settings.namespace_of(name)
        subjects = self._settings.subjects
        room = self._rooms[name] = Room(
            name,
            StreamSubscription(
                self._bus,
                self._streams.of_namespace(namespace),
                live_subject=subjects.room_out(namespace, name),
                decode=decode_room_event,
                tasks=self._tasks,
                counters=self._counters,
                reads=self._reads,
                on_gap=partial(_gap_notice, name),
            ),
            self._bus,
            subjects.room_members(namespace, name),
            self._counters,
        )
        return room

    async def _join(
        self,
        room: Room,
        member: Member,
        since: Position | UnsetType,
        still_wanted: Callable[[], bool],
        on_joined: OnJoined,
    ) -> None:
        try:
            await self._join_when_ready(room, member, since, still_wanted, on_joined)
        finally:
            room.joining -= 1
            self._linger_if_empty(room)

    async def _join_when_ready(
        self,
        room: Room,
        member: Member,
        since: Position | UnsetType,
        still_wanted: Callable[[], bool],
        on_joined: OnJoined,
    ) -> None:
        try:
            if not room.subscription.is_open:
                await self._open(room)
            if isinstance(since, Position):
                async with self._reads.turn(member, still_wanted):
                    catch_up = await self._catch_up(room, member, since) if still_wanted() else None
                    self._enter_if_wanted(room, member, catch_up, still_wanted, on_joined)
                return
        except BusError as fault:
            on_joined(fault)
            return
        self._enter_if_wanted(room, member, None, still_wanted, on_joined)

    async def _catch_up(self, room: Room, member: Member, since: Position) -> CatchUp:
        settings = self._settings
        async with self._reads.recovery():
            self._streams.require_open()
            catch_up = await room.subscription.catch_up(
                since,
                cap=settings.recovery_limit,
                max_bytes=settings.recovery_max_bytes,
                packed=member.encoding.packed,
            )
        self._counters.recoveries[catch_up.verdict] += 1
        if catch_up.verdict is not RecoveryVerdict.RECOVERED:
            self._log_verdict(room, catch_up.verdict)
        return catch_up

    def _log_verdict(self, room: Room, verdict: RecoveryVerdict) -> None:
        """Log one recovery a second that did not succeed: a client may ask for any number of them."""
        now = asyncio.get_running_loop().time()
        if now - self._logged_at < _LOG_EVERY_S:
            self._unlogged += 1
            return
        log.info("room not recovered", room=room.name, reason=verdict, others=self._unlogged)
        self._logged_at, self._unlogged = now, 0

    def _enter_if_wanted(
        self,
        room: Room,
        member: Member,
        catch_up: CatchUp | None,
        still_wanted: Callable[[], bool],
        on_joined: OnJoined,
    ) -> None:
        if still_wanted():
            self._add_member(room, member, catch_up, on_joined)
        else:
            on_joined(None)

    async def _open(self, room: Room) -> None:
        """Begin to follow; those who come meanwhile wait for the same answer, also when the first one leaves."""
        if room.opening is None:
            room.opening = asyncio.ensure_future(self._begin_following(room))
            room.opening.add_done_callback(partial(_opened, room))
        await asyncio.shield(room.opening)

    async def _begin_following(self, room: Room) -> None:
        namespace = self._settings.namespace_of(room.name)
        durable_log = self._streams.of_namespace(namespace)
        if durable_log is None:
            # Nothing will be filled in later: who is answered must be subscribed to what is sent from then on.
            await self._bus.flush()
            room.subscription.open_at(0)
            return
        self._streams.require_open()
        last, stream_last = await durable_log.last_of(self._settings.subjects.room_in(namespace, room.name))
        room.subscription.open_at(last or stream_last)

    def _add_member(self, room: Room, member: Member, catch_up: CatchUp | None, on_joined: OnJoined) -> None:
        # First what is queued for the others, then the answer, then membership: the answer's position is then
        # exactly where live messages begin.
        room.subscription.fanout.flush()
        on_joined(RoomJoin(room.subscription.position, catch_up))
        room.subscription.fanout.add(member)

    def _linger_if_empty(self, room: Room) -> None:
        if (
            room.linger is None
            and not room.joining
            and not len(room.subscription.fanout)
            and self._rooms.get(room.name) is room
        ):
            loop = asyncio.get_running_loop()
            room.linger = loop.call_later(self._settings.room_linger_s, self._drop, room)

    def _drop(self, room: Room) -> None:
        room.linger = None
        if not len(room.subscription.fanout) and not room.joining:
            room.close()
            self._rooms.pop(room.name, None)
