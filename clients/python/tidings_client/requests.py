"""Requests and their answers: time limits, retries with the same id, and a queue while there is no connection."""

import asyncio
import dataclasses
import secrets
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from itertools import count
from typing import Any, Protocol

from msgspec.structs import replace

from tidings_client.clock import Clock, Timer
from tidings_client.codec import UNENCODABLE
from tidings_client.errors import AckTimeout, ConnectionLost, QueueFull, ServerError, TidingsError, error_from
from tidings_client.generated.wire import (
    ClientDirectMessage,
    ClientMessage,
    ClientRoomMessage,
    ErrorMessage,
    ServerMessage,
)

# The server's window is 120 s by default; clocks and queues need a margin.
DUPLICATE_S = 110.0
_RETRY_S = 0.5
_LOST = "the connection was lost before the answer came; the message may have arrived"


def _never() -> bool:
    return False


def _always() -> bool:
    return True


@dataclass(frozen=True, slots=True)
class Sending:
    """How a message may be sent."""

    queued: bool = False
    """May wait while there is no connection."""
    repeatable: Callable[[], bool] = _never
    """Whether it may be sent again although it may have arrived."""
    ready: Callable[[], bool] = _always
    """Whether it may be sent now: a room's message waits for the join."""
    topic: str | None = None
    """The room it belongs to."""
    once: bool = False
    """Sent once at most, also if the answer says that it may succeed later."""
    answer_timeout: float | None = None
    """Time limit of the answer in seconds, if it has its own."""


AT_ONCE = Sending()
IN_ORDER = Sending(queued=True, repeatable=_always)
ONCE = Sending(queued=True)


class RequestLink(Protocol):
    """What requests need from their client."""

    def send(self, message: ClientMessage) -> None: ...

    def suspect(self) -> None:
        """An answer did not arrive in time."""
        ...


@dataclass(eq=False, slots=True)
class _Entry:
    message: ClientMessage
    id: str
    sending: Sending
    answers: list[asyncio.Future[Any]] = field(default_factory=list)  # one for each caller
    tries: int = 0
    first_sent_at: float | None = None
    waiting: bool = False  # sent on this connection, and not answered yet
    timer: Timer | None = None

    @property
    def is_wanted(self) -> bool:
        """Whether a caller still waits for its answer."""
        return any(not answer.done() for answer in self.answers)

    def cancel_timer(self) -> None:
        if self.timer is not None:
            self.timer.cancel()

    def resolve(self, answer: ServerMessage) -> None:
        for each in self.answers:
            if not each.done():
                each.set_result(answer)

    def reject(self, fault: Exception) -> None:
        for each in self.answers:
            if not each.done():
                _reject(each, fault)


class Requests:
    """Requests without an answer so far, oldest first."""

    def __init__(
        self, link: RequestLink, *, clock: Clock, ack_timeout: float, tries: int, queue_limit: int
    ) -> None:
        self._link = link
        self._clock = clock
        self._ack_timeout = ack_timeout
        self._tries = tries
        self._queue_limit = queue_limit
        self._entries: dict[str, _Entry] = {}
        self._prefix = secrets.token_urlsafe(12)
        self._count = count(1)
        self._up = False
        self._over: TidingsError | None = None

    def submit(self, message: ClientMessage, sending: Sending = AT_ONCE) -> "asyncio.Future[Any]":
        """Send a message. The future resolves to its answer, or fails with a TidingsError; it may be cancelled.

        A message with the id of an unanswered one to the same destination counts as the same, and shares its answer.
        """
        if self._over is not None:
            return _failed(self._over)
        known = None if message.id is None else self._entries.get(message.id)
        if known is not None and known.is_wanted:
            if _place_of(known.message) != _place_of(message):
                text = f"another message with the id {message.id!r} waits for its answer"
                return _failed(ServerError(text, code="conflict"))
            return self._answer_to(known)
        if not self._up and not sending.queued:
            return _failed(ConnectionLost("there is no connection"))
        if not self._up and self.unsent >= self._queue_limit:
            return _failed(QueueFull(f"{self._queue_limit} messages wait for a connection"))
        entry = _Entry(*self._with_id(message), sending)
        self._entries[entry.id] = entry
        answer = self._answer_to(entry)
        self._send(entry)
        return answer

    @property
    def over(self) -> TidingsError | None:
        """Why there will be no connection, if so: then nothing may wait."""
        return self._over

    @property
    def unsent(self) -> int:
        """Number of messages that were never sent."""
        return sum(entry.first_sent_at is None for entry in self._entries.values())

    def unsettled(self, topic: str) -> Awaitable[object] | None:
        """Return an awaitable for the messages of a topic that may have arrived; None if there are none."""
        answers = [
            answer
            for entry in self._entries.values()
            if entry.sending.topic == topic and entry.first_sent_at is not None and not entry.waiting
            for answer in entry.answers
        ]
        return asyncio.wait(answers) if answers else None

    def drop(self, topic: str, fault: TidingsError) -> None:
        """Send nothing more of a topic. A message already sent on this connection may still be answered."""
        for entry in list(self._entries.values()):
            if entry.sending.topic != topic:
                continue
            entry.sending = dataclasses.replace(entry.sending, queued=False, repeatable=_never)
            if entry.first_sent_at is None:
                self._fail(entry, fault)
            elif not entry.waiting:
                self._fail(entry, ConnectionLost("not answered, and it may not be repeated any more"))

    def up(self) -> None:
        """A connection opened: messages may be sent."""
        self._up = True
        self._over = None

    def begin(self) -> None:
        """A connection is expected: messages may wait again."""
        self._over = None

    def flush(self) -> None:
        """Send the messages that are ready, oldest first."""
        for entry in list(self._entries.values()):
            self._send(entry)

    def down(self) -> None:
        """The connection ended: what may be repeated waits for the next one."""
        self._up = False
        for entry in list(self._entries.values()):
            entry.cancel_timer()
            sent, entry.waiting = entry.waiting, False
            if not entry.sending.queued or (sent and not entry.sending.repeatable()):
                self._fail(entry, ConnectionLost(_LOST))

    def end(self, fault: TidingsError) -> None:
        """There will be no connection: all messages fail, and later ones, until `begin`."""
        self.down()
        self._over = fault
        for entry in list(self._entries.values()):
            self._fail(entry, fault)

    def on_answer(self, answer: ServerMessage, request_id: str) -> ClientMessage | None:
        """Handle a message with an id. Returns the request that it answers, if there is one."""
        entry = self._entries.get(request_id)
        if entry is None:
            return None
        if not isinstance(answer, ErrorMessage):
            self._forget(entry)
            entry.resolve(answer)
        elif (
            answer.retryable and entry.sending.queued and not entry.sending.once and entry.tries < self._tries
        ):
            after = _RETRY_S if answer.retry_after_ms is None else answer.retry_after_ms / 1000
            self._later(entry, after)
        else:
            fault = error_from(answer.code, answer.message, answer.retryable, answer.retry_after_ms)
            self._fail(entry, fault)
        return entry.message

    def _with_id(self, message: ClientMessage) -> tuple[ClientMessage, str]:
        given = message.id
        if given is None:
            given = f"{self._prefix}-{next(self._count)}"
            message = replace(message, id=given)
        return message, given

    def _send(self, entry: _Entry) -> None:
        over = not entry.is_wanted or self._entries.get(entry.id) is not entry
        if over or not self._up or entry.waiting or not entry.sending.ready():
            return
        now = self._clock.now()
        if entry.first_sent_at is not None and now - entry.first_sent_at > DUPLICATE_S:
            # The duplicate window is over: a repeat would be a second message.
            self._fail(entry, ConnectionLost("not answered for so long that it must not be repeated"))
            return
        if entry.first_sent_at is None:
            entry.first_sent_at = now
        entry.waiting = True
        entry.tries += 1
        entry.cancel_timer()
        limit = entry.sending.answer_timeout
        limit = self._ack_timeout if limit is None else limit
        entry.timer = self._clock.call_later(limit, lambda: self._unanswered(entry))
        try:
            self._link.send(entry.message)
        except (TidingsError, *UNENCODABLE) as fault:
            self._fail(entry, fault)

    def _unanswered(self, entry: _Entry) -> None:
        self._link.suspect()
        if not entry.sending.repeatable() or entry.tries >= self._tries:
            self._fail(entry, AckTimeout("no answer came in time"))
        else:
            self._later(entry, 0.0)

    def _later(self, entry: _Entry, delay: float) -> None:
        entry.cancel_timer()
        entry.waiting = False
        entry.timer = self._clock.call_later(
            delay + self._clock.random() * _RETRY_S, lambda: self._send(entry)
        )

    def _fail(self, entry: _Entry, fault: Exception) -> None:
        self._forget(entry)
        entry.reject(fault)

    def _answer_to(self, entry: _Entry) -> "asyncio.Future[Any]":
        answer: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        answer.add_done_callback(lambda _: None if entry.is_wanted else self._forget(entry))
        entry.answers.append(answer)
        return answer

    def _forget(self, entry: _Entry) -> None:
        entry.cancel_timer()
        if self._entries.get(entry.id) is entry:
            del self._entries[entry.id]


def _place_of(message: ClientMessage) -> tuple[type[ClientMessage], str | None]:
    """Return the destination of a message, in which ids are unique."""
    match message:
        case ClientRoomMessage():
            return type(message), message.room
        case ClientDirectMessage():
            return type(message), message.target_user_id
        case _:
            return type(message), None


def _failed(fault: Exception) -> "asyncio.Future[Any]":
    answer: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
    _reject(answer, fault)
    return answer


def _reject(answer: "asyncio.Future[Any]", fault: Exception) -> None:
    answer.set_exception(fault)
    answer.exception()  # marks it as retrieved: asyncio does not warn when nothing awaits it
