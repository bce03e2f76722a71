"""What one `/events` stream receives: its rooms, channels and inbox, from its start to its end."""

from collections.abc import Callable
from functools import partial

import msgspec

from gateway.channels import channel_names
from gateway.client.commands import CommandError
from gateway.delivery.catch_up import CatchUp
from gateway.delivery.encoded_message import EncodedMessage
from gateway.delivery.inbox import INBOX_TOPIC
from gateway.delivery.recovery import RecoveryVerdict
from gateway.delivery.rooms import RoomJoin
from gateway.gateway import Gateway
from gateway.sse.stream import EventStream
from services.bus.errors import BusError
from services.wire import server
from services.wire.codes import ErrorCode
from services.wire.records import UNSET, Position, UnsetType
from services.wire.rpc import Connected, Disconnected, Joined, Left

_RETRY_MS = 1000


class EventSubscriptions:
    """The rooms and channels of one `/events` stream."""

    def __init__(
        self,
        gateway: Gateway,
        stream: EventStream,
        joins: dict[str, int | UnsetType],
        names: list[str],
        custom_data: msgspec.Raw | UnsetType,
    ) -> None:
        self._gateway = gateway
        self._events = stream
        self._joins = joins  # with how much of each room's history
        self._names = names
        self._custom_data = custom_data
        # Until a topic is resumed, ids carry the client's own position: it may be cut off before.
        self._since = dict(stream.positions)

    def start(self) -> None:
        """Join the rooms, subscribe to the channels and open the inbox, as far as each was asked for."""
        gateway, stream = self._gateway, self._events
        stream.membership, stream.channels = self, self._names
        if self._joins or channel_names.INBOX in self._names:
            self._announce()
            if not isinstance(self._custom_data, UnsetType):
                gateway.user_presence.choose(stream, custom_data=self._custom_data)
        if self._joins or self._names:
            gateway.broadcasts.fanout.add(stream)
        gateway.channels.follow(stream, self._names)
        for room, history in self._joins.items():
            stream.rooms.add(room)
            since = self._since.get(room, history)
            wanted = partial(self._is_wanted, room)
            gateway.rooms.join(stream, room, since, wanted, partial(self._on_joined, room))
        if channel_names.INBOX in self._names:
            gateway.inboxes.open(stream, self._on_inbox)

    def _announce(self) -> None:
        """Make the user present."""
        stream = self._events
        stream.announced = True
        user_id, username = stream.user_id, stream.identity.username
        self._gateway.presence.report(
            Connected(connection_id=stream.connection_id, user_id=user_id, username=username)
        )

    def add(self, room: str, on_done: Callable[[ErrorCode | None], None]) -> None:
        """See `Membership`."""
        gateway, stream = self._gateway, self._events
        limit = gateway.settings.max_rooms_per_connection
        if room in stream.rooms:
            on_done(None)
        elif limit and len(stream.rooms) >= limit:
            on_done(ErrorCode.TOO_MANY_ROOMS)
        else:
            stream.rooms.add(room)
            gateway.rooms.join(
                stream,
                room,
                UNSET,
                partial(self._is_wanted, room),
                partial(self._on_added, room, on_done),
            )

    def _on_added(
        self, room: str, on_done: Callable[[ErrorCode | None], None], outcome: RoomJoin | BusError | None
    ) -> None:
        gateway, stream = self._gateway, self._events
        if not isinstance(outcome, RoomJoin):
            if outcome is not None:
                stream.rooms.discard(room)
            on_done(ErrorCode.UNAVAILABLE if outcome is not None else ErrorCode.CONFLICT)
            return
        position = outcome.position
        epoch, seq = (position.epoch, position.seq) if position else (UNSET, UNSET)
        stream.notify(server.JoinedRoom(room=room, epoch=epoch, seq=seq))
        if not stream.announced:
            self._announce()
        gateway.broadcasts.fanout.add(stream)
        gateway.presence.report(Joined(connection_id=stream.connection_id, room=room))
        on_done(None)

    def remove(self, room: str) -> bool:
        """See `Membership`."""
        gateway, stream = self._gateway, self._events
        if room not in stream.rooms:
            return False
        stream.rooms.discard(room)
        stream.positions.pop(room, None)
        if gateway.rooms.leave(stream.connection_id, room):
            gateway.presence.report(Left(connection_id=stream.connection_id, room=room))
        stream.notify(server.LeftRoom(room=room, reason="removed"))
        return True

    def _is_wanted(self, room: str) -> bool:
        return self._is_running() and room in self._events.rooms

    def _is_running(self) -> bool:
        return not self._events.buffer.ended

    def _on_joined(self, room: str, outcome: RoomJoin | BusError | None) -> None:
        stream = self._events
        if outcome is None:
            return
        if isinstance(outcome, BusError):
            stream.rooms.discard(room)
            self._try_later()
            return
        position = outcome.position
        recovered, missed = self._recovery(room, outcome.catch_up)
        if outcome.history is not None:
            missed = outcome.history.messages
        notice = EncodedMessage(
            server.JoinedRoom(
                room=room,
                epoch=position.epoch if position else UNSET,
                seq=position.seq if position else UNSET,
                recovered=recovered,
            )
        )
        if position is None:
            stream.positions.pop(room, None)
            stream.send(notice)
        else:
            stream.start_topic(room, position, missed, notice)
        self._gateway.presence.report(Joined(connection_id=stream.connection_id, room=room))

    def _recovery(
        self, topic: str, catch_up: CatchUp | None
    ) -> tuple[bool | UnsetType, list[EncodedMessage]]:
        """Return whether a topic was recovered (unset: from no position), and what was missed."""
        if catch_up is None:
            return UNSET, []
        recovered = catch_up.verdict is RecoveryVerdict.RECOVERED
        if not recovered:
            self._events.reset([topic], catch_up.verdict)
        return recovered, catch_up.missed

    def _on_inbox(self, position: Position | BusError) -> None:
        if not self._is_running():
            self._gateway.inboxes.leave(self._events)
        elif isinstance(position, BusError):
            self._try_later()
        else:
            self._events.hold_inbox()
            since = self._since.get(INBOX_TOPIC)
            if since is None:
                self._start_inbox(position, None)
            else:
                self._gateway.tasks.spawn(self._catch_up(since, position), "catch up with an inbox")

    async def _catch_up(self, since: Position, position: Position) -> None:
        try:
            self._start_inbox(position, await self._gateway.inboxes.catch_up(self._events, since))
        except BusError:
            self._try_later()

    def _start_inbox(self, position: Position, catch_up: CatchUp | None) -> None:
        stream = self._events
        recovered, missed = self._recovery(channel_names.INBOX, catch_up)
        missed = [message for message in missed if message.seq <= position.seq]
        notice = EncodedMessage(server.Subscribed(channels=[channel_names.INBOX], recovered=recovered))
        stream.start_topic(INBOX_TOPIC, position, missed, notice)
        stream.release_inbox()

    def _try_later(self) -> None:
        """End the stream, to be resumed: in band there is no other way to ask for another attempt."""
        error = CommandError(ErrorCode.UNAVAILABLE, "the stream cannot be resumed now")
        self._events.notify(error.reply())
        self._events.buffer.end(b"retry: %d\n\n" % _RETRY_MS)

    def leave(self) -> None:
        """Leave everything again."""
        gateway, stream = self._gateway, self._events
        for room in stream.rooms:
            gateway.rooms.leave(stream.connection_id, room)
        gateway.broadcasts.fanout.discard(stream.connection_id)
        gateway.channels.unfollow(stream.connection_id, self._names)
        gateway.inboxes.leave(stream)
        if stream.announced:
            gateway.presence.report(Disconnected(connection_id=stream.connection_id, clean=False))
