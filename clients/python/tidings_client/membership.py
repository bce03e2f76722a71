"""The membership of one room: requested on every connection, with the token that it may need."""

import asyncio
from collections.abc import Awaitable
from typing import Any, Literal, Protocol

from tidings_client.clock import Clock, Timer
from tidings_client.errors import ConnectionLost, TidingsError
from tidings_client.events import Event
from tidings_client.generated.wire import (
    ClientJoinRoom,
    ClientMessage,
    JoinedRoom,
    Position,
    RoomMessage,
    RoomPast,
)
from tidings_client.joining import Joining
from tidings_client.options import CredentialCallback
from tidings_client.presence import Presence
from tidings_client.requests import AT_ONCE, Sending
from tidings_client.roomlog import RoomLog

RoomState = Literal[
    "left",
    "joining",  # not a member yet, or not connected
    "joined",
    "refused",  # the server refused; only another `join` tries again
    "removed",  # the server ended the membership; only another `join` tries again
]

_RETRY_S = 1.0


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

    def spawn(self, work: Awaitable[object]) -> asyncio.Task[None]: ...


class Membership:
    """What a room has in common with its requests to join. `Room` has the messages and what the application calls."""

    def __init__(self, name: str, link: RoomLink) -> None:
        self.name = name
        self.state: RoomState = "left"
        self.messages: Event[RoomMessage] = Event()
        """Messages in order, each once."""
        self.refusals: Event[TidingsError] = Event()
        self._link = link
        self._log = RoomLog()
        self._wanted = False
        self._invited = False  # the server joined the room for this user: until the connection ends
        self._joining = Joining()
        self._attempt = 0  # number of the current attempt to join: a token that comes later is of no use
        self._token_task: asyncio.Task[None] | None = None
        self._refusal: TidingsError | None = None
        self._waiters: set[asyncio.Future[list[RoomMessage]]] = set()
        self._timer: Timer | None = None
        # The answer to a join, and live messages after it, until it is known which missed messages are our own.
        self._undelivered: JoinedRoom | None = None

    @property
    def refusal(self) -> TidingsError | None:
        """Why the server refused the room, or ended the membership, if it did."""
        return self._refusal

    @property
    def wanted(self) -> bool:
        """Whether this client is a member, or has requested it, and was not removed."""
        return (self._wanted or self._invited) and self.state != "removed"

    @property
    def request(self) -> ClientJoinRoom | None:
        """The request to join, if this client is a member or is about to be."""
        # Without its token, the room is requested later.
        if not self.wanted or self.state == "refused" or self._joining.lacks_token:
            return None
        return self._joining.request(self.name, self.position)

    @property
    def position(self) -> Position | None:
        """Everything up to here was received. None in an ephemeral room and before the first join."""
        return self._log.position

    def on_up(self) -> None:
        """A connection opened: join on it."""
        if self._wanted and self.state != "removed":
            self._enter()

    def on_down(self) -> None:
        """The connection ended."""
        self._cancel_timer()
        self._attempt += 1
        self._invited = False
        if self.state == "joined":
            self.state = "joining" if self._wanted else "left"

    def on_end(self, fault: TidingsError) -> None:
        """There will be no connection until `connect` is called."""
        self._settle(fault)

    def _want(self, history: int | None, data: Any, token: str | CredentialCallback | None) -> bool:
        """Request the membership. Returns whether the room is joined already, and the options change it."""
        self._link.check_loop()
        before = self._joining
        self._joining = before.extended(history, data, token)
        self._wanted = True
        if self.state == "joined":
            return not self._joining.is_for_member(before)
        if self.state == "joining" and self._joining is before:
            return False
        self._joining.succeeded()
        self._refusal = None
        self.state = "joining"
        if self._link.is_up:
            self._enter()
        return False

    async def _renew(self, before: Joining) -> None:
        """Join again as a member, with other data or another token."""
        joining = self._joining
        try:
            if joining.lacks_token:
                await joining.get_token()
            await self._link.submit(joining.request(self.name, self._log.since(self._link.heard_at)))
        except TidingsError as fault:
            # What was refused is not asked for on the next connection; what was lost is.
            lost = fault.retryable or isinstance(fault, ConnectionLost)
            if not lost and self._joining is joining:
                self._joining = before
                if self.state == "joined":
                    self._enter()  # a stream that was refused has lost the room
            raise

    def _enter(self) -> None:
        self._refusal = None
        self.state = "joining"
        self._undelivered = None
        self._attempt += 1
        if self._joining.lacks_token:
            self._token_task = self._link.spawn(self._enter_with_token(self._attempt))
        else:
            self._submit()

    async def _enter_with_token(self, attempt: int) -> None:
        fault: Exception | None = None
        try:
            await self._joining.get_token()
        except Exception as raised:  # noqa: BLE001 - of the application's function
            fault = raised
        if attempt != self._attempt:
            return
        if fault is None:
            self._submit()
        else:
            self._failed(fault)

    def _submit(self) -> None:
        message = self._joining.request(self.name, self._log.since(self._link.heard_at))
        self._link.submit(message).add_done_callback(self._on_answer)

    def _on_answer(self, answer: "asyncio.Future[Any]") -> None:
        fault = None if answer.cancelled() else answer.exception()
        if isinstance(fault, TidingsError) and not isinstance(fault, ConnectionLost):
            self._failed(fault)

    def _failed(self, fault: Exception) -> None:
        if not self.wanted:
            return
        if not isinstance(fault, TidingsError) or fault.retryable:
            after = fault.retry_after if isinstance(fault, TidingsError) else None
            self._timer = self._link.clock.call_later(_RETRY_S if after is None else after, self._again)
            return
        if self._joining.may_refresh(fault):
            self._enter()
            return
        self._refusal = fault
        self.state = "refused"
        self._give_up(fault)
        self.messages.end(fault)
        self.refusals.emit(fault)

    def _again(self) -> None:
        if self.wanted and self._link.is_up and self.state == "joining":
            self._enter()

    def _reset(self, state: RoomState, fault: TidingsError) -> None:
        """The membership is over."""
        self._cancel_timer()
        self._attempt += 1
        if self._token_task is not None:
            self._token_task.cancel()
        self._invited = False
        self._refusal = fault
        self._log = RoomLog()
        self._undelivered = None
        self.state = state
        self._give_up(fault)

    def _give_up(self, fault: TidingsError) -> None:
        """Fail everything that waits for the room."""
        self._settle(fault)
        self._link.drop(self.name, fault)

    def _cancel_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()

    def _settle(self, outcome: list[RoomMessage] | TidingsError) -> None:
        waiters, self._waiters = self._waiters, set()
        for waiter in waiters:
            if waiter.done():
                continue
            if isinstance(outcome, TidingsError):
                waiter.set_exception(outcome)
            else:
                waiter.set_result(outcome)
