"""One room, joined again on every connection."""

import asyncio
from collections.abc import Awaitable
from dataclasses import dataclass
from typing import Any, Literal, Protocol, Self

from tidings_client.clock import Clock, Timer
from tidings_client.errors import Closed, ConnectionLost, ServerError, TidingsError
from tidings_client.events import STREAM_LIMIT, Event, Stream
from tidings_client.generated.wire import (
    Ack,
    ClientJoinRoom,
    ClientLeaveRoom,
    ClientMessage,
    ClientRoomMessage,
    JoinedRoom,
    Position,
    RoomMessage,
    RoomPast,
    UserJoined,
    UserLeft,
)
from tidings_client.presence import Presence
from tidings_client.requests import AT_ONCE, Sending
from tidings_client.roomlog import RoomLog

RoomState = Literal[
    "left",
    "joining",  # not a member yet, or not connected
    "joined",
    "refused",  # the server refused; only another `join` tries again
]

_RETRY_S = 1.0
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


class RoomLink(Protocol):
    """What a room needs from its client."""

    clock: Clock

    @property
    def is_up(self) -> bool: ...

    @property
    def heard_at(self) -> float: ...

    def submit(self, message: ClientMessage, sending: Sending = AT_ONCE) -> "asyncio.Future[Any]": ...

    def flush(self) -> None: ...

    def unsettled(self, topic: str) -> Awaitable[object] | None: ...

    def drop(self, topic: str, fault: TidingsError) -> None: ...

    @property
    def over(self) -> TidingsError | None: ...

    def check_loop(self) -> None: ...

    def presence_of(self, room: str) -> Presence: ...

    async def history_of(
        self, room: str, limit: int | None, before: int | None, since: int | None
    ) -> RoomPast: ...

    def spawn(self, work: Awaitable[object]) -> None: ...


class Room:
    """A room. `async for message in room` joins it, and iterates over its messages until it is left."""

    def __init__(self, name: str, link: RoomLink) -> None:
        self.name = name
        self.state: RoomState = "left"
        self.messages: Event[RoomMessage] = Event()
        """Messages in order, each once."""
        self.joins: Event[Joined] = Event()
        self.gaps: Event[Gap] = Event()
        self.user_joins: Event[UserJoined] = Event()
        """The first connection of a user joined."""
        self.user_leaves: Event[UserLeft] = Event()
        """The last connection of a user left."""
        self.refusals: Event[TidingsError] = Event()
        self._link = link
        self._log = RoomLog()
        self._wanted = False
        self._durable = False
        self._refusal: TidingsError | None = None
        self._waiters: set[asyncio.Future[None]] = set()
        # The answer to a join, and live messages after it, until it is known which missed messages are our own.
        self._undelivered: JoinedRoom | None = None
        self._held: list[RoomMessage] = []
        self._timer: Timer | None = None

    def __repr__(self) -> str:
        return f"<Room {self.name!r} {self.state}>"

    @property
    def wanted(self) -> bool:
        """Whether it was joined, and not left since."""
        return self._wanted

    @property
    def expected(self) -> bool:
        """Whether this client is a member, or is about to be."""
        return self._wanted and self.state != "refused"

    @property
    def position(self) -> Position | None:
        """Everything up to here was received. None in an ephemeral room and before the first join."""
        return self._log.position

    @property
    def presence(self) -> Presence:
        """The users in the room, while it is followed."""
        return self._link.presence_of(self.name)

    async def join(self) -> None:
        """Join the room on this and every later connection, until `leave`. Returns when joined.

        Raises a TidingsError if the room is refused, or if the client has failed or was closed. Cancellation ends the
        wait; the room is joined all the same.
        """
        self._want()
        if self._link.over is not None:
            raise self._link.over
        if self.state == "joined":
            return
        waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiters.add(waiter)
        try:
            await waiter
        finally:
            self._waiters.discard(waiter)

    def leave(self) -> None:
        """Leave the room. Messages that wait to be sent to it fail with Closed."""
        self._link.check_loop()
        self._wanted = False
        if self.state == "left":
            return
        was_there = self.state != "refused"
        self._cancel_timer()
        self.state = "left"
        self._log = RoomLog()
        self._undelivered = None
        self._refusal = None
        self._give_up(Closed("the room was left"))
        self.messages.end()
        if was_there and self._link.is_up:
            # It may be lost with its connection, which ends the membership as well.
            self._link.submit(ClientLeaveRoom(room=self.name))

    def stream(self, limit: int = STREAM_LIMIT) -> Stream[RoomMessage]:
        """Join, and return an iterator over the messages from now on. `async with` ends it at the end of the block."""
        stream = self.messages.stream(limit)
        self._want()
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
        if not self._wanted:
            raise ServerError("join the room first", code="not_in_room")
        if self._refusal is not None:
            raise self._refusal
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

    def on_up(self) -> None:
        """A connection opened: join on it."""
        if self._wanted:
            self._enter()

    def on_down(self) -> None:
        """The connection ended."""
        self._cancel_timer()
        if self.state == "joined":
            self.state = "joining"

    def on_end(self, fault: TidingsError) -> None:
        """There will be no connection until `connect` is called."""
        self._settle(fault)

    def on_joined(self, answer: JoinedRoom) -> None:
        """Handle the answer to a join, or the server's report of lost messages."""
        if not self._wanted:
            return
        if self._undelivered is not None:
            self._deliver(self._undelivered)
        self._durable = answer.seq is not None
        unsettled = self._link.unsettled(self.name) if answer.missed else None
        entered = self.state != "joined"
        if unsettled is not None:
            # Own messages without an answer may be among the missed ones; the acks of their repeats tell them apart.
            self._undelivered, self._held = answer, []
            self._link.spawn(self._deliver_later(answer, unsettled))
        else:
            self._deliver(answer)
        self.state = "joined"
        self._settle(None)
        if entered:
            self.joins.emit(Joined(answer.recovered))
        self._link.flush()

    def on_message(self, message: RoomMessage) -> None:
        """Handle a message of this room."""
        if self._undelivered is not None:
            self._held.append(message)
        elif self._wanted and self._log.accept(message):
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
        for missed in answer.missed or ():
            self.on_message(missed)
        if self._wanted and self._log.on_joined(answer):  # else a callback left it
            self.gaps.emit(Gap(self.position))
        for live in held:
            self.on_message(live)

    def _want(self) -> None:
        self._link.check_loop()
        self._wanted = True
        if self.state not in ("joined", "joining"):
            self._refusal = None
            self.state = "joining"
            if self._link.is_up:
                self._enter()

    def _enter(self) -> None:
        self._refusal = None
        self.state = "joining"
        self._undelivered = None
        message = ClientJoinRoom(room=self.name, since=self._log.since(self._link.heard_at))
        self._link.submit(message).add_done_callback(self._on_answer)

    def _on_answer(self, answer: "asyncio.Future[Any]") -> None:
        fault = None if answer.cancelled() else answer.exception()
        if not isinstance(fault, TidingsError) or isinstance(fault, ConnectionLost) or not self._wanted:
            return
        if fault.retryable:
            delay = _RETRY_S if fault.retry_after is None else fault.retry_after
            self._timer = self._link.clock.call_later(delay, self._again)
            return
        self._refusal = fault
        self.state = "refused"
        self._give_up(fault)
        self.messages.end(fault)
        self.refusals.emit(fault)

    def _again(self) -> None:
        if self._wanted and self._link.is_up and self.state == "joining":
            self._enter()

    def _give_up(self, fault: TidingsError) -> None:
        """Fail everything that waits for the room."""
        self._settle(fault)
        self._link.drop(self.name, fault)

    def _cancel_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()

    def _settle(self, fault: TidingsError | None) -> None:
        waiters, self._waiters = self._waiters, set()
        for waiter in waiters:
            if waiter.done():
                continue
            if fault is None:
                waiter.set_result(None)
            else:
                waiter.set_exception(fault)
