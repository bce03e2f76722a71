"""One room, joined again on every connection."""

import asyncio
from collections.abc import Awaitable
from dataclasses import dataclass
from typing import Any, Self

from tidings_client.errors import Closed, Removed, ServerError
from tidings_client.events import STREAM_LIMIT, Event, Stream
from tidings_client.generated.wire import (
    Ack,
    ClientLeaveRoom,
    ClientRoomMessage,
    JoinedRoom,
    Position,
    RoomMessage,
    RoomPast,
    UserJoined,
    UserLeft,
)
from tidings_client.joining import Joining
from tidings_client.membership import Membership, RoomLink
from tidings_client.options import CredentialCallback
from tidings_client.presence import Presence
from tidings_client.requests import Sending

# Longest wait for the answers to repeated messages, before the missed ones are delivered.
_HELD_S = 5.0


@dataclass(frozen=True, slots=True)
class Joined:
    """This client is a member of the room now."""

    recovered: bool | None
    """True: no message was missed since the last connection. None: there was no earlier connection."""


@dataclass(frozen=True, slots=True)
class Gap:
    """Messages may be missing. A room's `history()` reads those that are still stored."""

    position: Position | None
    """The position after the gap."""


@dataclass(frozen=True, slots=True)
class Removal:
    """The server ended the membership."""

    reason: str
    """`removed` by an administrator, or `expired` with the room's token."""


class Room(Membership):
    """A room. `async for message in room` joins it, and iterates over its messages until it is left."""

    def __init__(self, name: str, link: RoomLink) -> None:
        super().__init__(name, link)
        self.joins: Event[Joined] = Event()
        self.gaps: Event[Gap] = Event()
        self.user_joins: Event[UserJoined] = Event()
        """The first connection of a user joined."""
        self.user_leaves: Event[UserLeft] = Event()
        """The last connection of a user left."""
        self.removals: Event[Removal] = Event()
        """The server ended the membership."""
        self._durable = False
        self._held: list[RoomMessage] = []

    def __repr__(self) -> str:
        return f"<Room {self.name!r} {self.state}>"

    @property
    def presence(self) -> Presence:
        """The users in the room, while it is followed."""
        return self._link.presence_of(self.name)

    async def join(
        self,
        *,
        history: int | None = None,
        data: Any = None,
        token: str | CredentialCallback | None = None,
    ) -> list[RoomMessage]:
        """Join the room on this and every later connection, with the same options, until `leave`. Returns when joined.

        `history`: number of stored messages to begin with; they come as messages before the live ones, and are
        returned. `data`: what other members see of this one, any JSON of at most 1 KiB; in a room that is already
        joined, it replaces the earlier data. `token`: a token for this room alone, or a function that returns one and is
        called again when the token has expired or is refused.

        Raises a TidingsError if the room is refused, or if the client has failed or was closed. Cancellation ends the
        wait; the room is joined all the same.
        """
        before = self._joining
        is_renewed = self._want(history, data, token)
        if self._link.over is not None:
            raise self._link.over
        if is_renewed:
            await self._renew(before)
        if self.state == "joined":
            return []
        waiter: asyncio.Future[list[RoomMessage]] = asyncio.get_running_loop().create_future()
        self._waiters.add(waiter)
        try:
            return await waiter
        finally:
            self._waiters.discard(waiter)

    def leave(self) -> None:
        """Leave the room. Messages that wait to be sent to it fail with Closed."""
        self._link.check_loop()
        self._wanted = False
        state = self.state
        if state == "left":
            return
        self._reset("left", Closed("the room was left"))
        self._refusal = None
        self._joining = Joining()
        self.messages.end()
        if state not in ("refused", "removed") and self._link.is_up:
            # It may be lost with its connection, which ends the membership as well.
            self._link.submit(ClientLeaveRoom(room=self.name))

    def stream(
        self,
        limit: int = STREAM_LIMIT,
        *,
        history: int | None = None,
        data: Any = None,
        token: str | CredentialCallback | None = None,
    ) -> Stream[RoomMessage]:
        """Join as `join` does, and return an iterator over the messages from now on.

        `async with` ends it at the end of the block.
        """
        stream = self.messages.stream(limit)
        before = self._joining
        if self._want(history, data, token):
            renewing = self._link.spawn(self._renew(before))
            renewing.add_done_callback(lambda task: task.cancelled() or task.exception())
        return stream

    def __aiter__(self) -> Stream[RoomMessage]:
        return self.stream()

    async def __aenter__(self) -> Self:
        await self.join()
        return self

    async def __aexit__(self, *_: object) -> None:
        self.leave()

    async def publish(self, content: Any, *, echo: bool | None = None, id: str | None = None) -> Ack:
        """Publish to the members. Waits for the connection and the join.

        Returns when the server has accepted the message, which for durable rooms means stored. `echo`: receive it like
        every other member. `id`: message id, unique per user and room; a repeated one is not stored again within two
        minutes. Repeated with the same id in durable rooms, never in ephemeral ones.
        """
        if self._refusal is not None:
            raise self._refusal
        if not self.wanted:
            raise ServerError("join the room first", code="not_in_room")
        sending = Sending(
            queued=True,
            repeatable=lambda: self._durable,  # an ephemeral room would receive it twice
            ready=lambda: self.state == "joined",
            topic=self.name,
        )
        message = ClientRoomMessage(room=self.name, content=content, echo=echo, id=id)
        answer: Ack = await self._link.submit(message, sending)
        return answer

    async def history(
        self, *, limit: int | None = None, before: int | None = None, since: int | None = None
    ) -> RoomPast:
        """Read stored messages, oldest first.

        `limit`: number of messages at most. `before`, `since`: only those with a lower, a higher sequence.
        """
        return await self._link.history_of(self.name, limit, before, since)

    def on_joined(self, answer: JoinedRoom) -> None:
        """Handle the answer to a join, or the server's report of lost messages."""
        if not self.wanted:
            # Without an id and a recovery the server joined by itself; else it is late, and the room was left meanwhile.
            if answer.id is not None or answer.recovered is not None:
                return
            self._invited = True
        if self._undelivered is not None:
            self._deliver(self._undelivered)
        self._joining.succeeded()
        self._refusal = None
        self._durable = answer.seq is not None
        unsettled = self._link.unsettled(self.name) if answer.missed else None
        entered = self.state != "joined"
        log = self._log
        if unsettled is not None:
            # Own messages without an answer may be among the missed ones; the acks of their repeats tell them apart.
            self._undelivered, self._held = answer, []
            self._link.spawn(self._deliver_later(answer, unsettled))
        else:
            self._deliver(answer)
        if self._log is not log:
            return  # a callback left the room
        self.state = "joined"
        self._settle(answer.history or [])
        if entered:
            self.joins.emit(Joined(answer.recovered))
        self._link.flush()

    def on_removed(self, reason: str) -> None:
        """The server ended the membership. With an expired token, the room is joined again with a new one."""
        if not self.wanted:
            return
        if reason == "expired" and self._wanted and self._joining.expire():
            self._enter()
            return
        fault = Removed(reason)
        self._reset("removed", fault)
        self.messages.end(fault)
        self.removals.emit(Removal(reason))

    def on_message(self, message: RoomMessage) -> None:
        """Handle a message of this room."""
        if self._undelivered is not None:
            self._held.append(message)
        elif self.wanted and self._log.accept(message):
            self.messages.emit(message)

    def on_stored(self, ack: Ack, echo: bool | None) -> None:
        """One of this client's messages was stored."""
        if not echo:
            self._log.on_stored(ack, self._link.clock.now())

    async def _deliver_later(self, answer: JoinedRoom, unsettled: Awaitable[object]) -> None:
        given_up = asyncio.Event()
        timer = self._link.clock.call_later(_HELD_S, given_up.set)
        waits = [asyncio.ensure_future(unsettled), asyncio.ensure_future(given_up.wait())]
        try:
            await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        finally:
            timer.cancel()
            for wait in waits:
                wait.cancel()
        if self._undelivered is answer:
            self._deliver(answer)

    def _deliver(self, answer: JoinedRoom) -> None:
        self._undelivered = None
        held, self._held = self._held, []
        log = self._log
        for missed in answer.missed or ():
            self.on_message(missed)
        if self._log is not log:
            return  # a callback left the room
        past = log.past(answer)
        if log.on_joined(answer):
            self.gaps.emit(Gap(self.position))
        for stored in past:
            if self._log is log:
                self.messages.emit(stored)
        for live in held:
            if self._log is log:
                self.on_message(live)
