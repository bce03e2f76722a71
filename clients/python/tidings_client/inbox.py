"""Direct messages to this user, resumed across connections."""

import asyncio
from collections.abc import Callable, Sequence
from typing import Any

from tidings_client.errors import ConnectionLost
from tidings_client.events import STREAM_LIMIT, Event, Stream
from tidings_client.generated.wire import (
    ClientMessage,
    ClientSubscribe,
    DirectMessage,
    Position,
    Subscribed,
    Welcome,
)
from tidings_client.room import Gap


class Inbox:
    """Direct messages to this user: `async for message in client.inbox`, or `messages.listen`."""

    def __init__(self, ask: Callable[[ClientMessage], "asyncio.Future[Any]"]) -> None:
        self.messages: Event[DirectMessage] = Event()
        self.gaps: Event[Gap] = Event()
        """Messages may be missing: those sent while there was no connection could not be recovered."""
        self.position: Position | None = None
        """Everything up to here was received."""
        self._ask = ask
        self._user_id = ""
        self._welcomed: Position | None = None  # the inbox's position when this connection opened
        self._held: list[DirectMessage] | None = None  # live messages before the answer with the missed ones

    def stream(self, limit: int = STREAM_LIMIT) -> Stream[DirectMessage]:
        """Return an iterator over the messages from now on."""
        return self.messages.stream(limit)

    def __aiter__(self) -> Stream[DirectMessage]:
        return self.stream()

    def on_up(self, welcome: Welcome) -> None:
        """A connection opened: resume."""
        # A position is only valid in the inbox of its own user.
        same = not self._user_id or welcome.user_id == self._user_id
        self._user_id = welcome.user_id
        since = self.position if same else None
        self._welcomed = welcome.inbox
        if since is None:
            self.position = welcome.inbox
            self._held = None
            return
        self._held = []
        self._ask(ClientSubscribe(channel="inbox", since=since)).add_done_callback(self._on_answer)

    def _on_answer(self, answer: "asyncio.Future[Any]") -> None:
        fault = None if answer.cancelled() else answer.exception()
        if fault is not None and not isinstance(fault, ConnectionLost):  # lost: the next connection resumes
            self._resume(recovered=False, missed=())

    def on_position(self, position: Position) -> None:
        """The inbox's position, from an SSE stream; over WebSocket `welcome` has it."""
        self._welcomed = position
        if self.position is None:
            self.position = position

    def on_resumed(self, answer: Subscribed) -> None:
        """Handle the answer to a resume, with the missed messages."""
        self._resume(recovered=answer.recovered is True, missed=answer.missed or ())

    def _resume(self, *, recovered: bool, missed: Sequence[DirectMessage]) -> None:
        held, self._held = self._held or [], None
        if not recovered:
            self.position = self._welcomed
            self.gaps.emit(Gap(self.position))
        for message in (*missed, *held):
            self.take(message)

    def take(self, message: DirectMessage) -> None:
        """Handle a direct message."""
        if self._held is not None:
            self._held.append(message)
            return
        if message.seq is not None and self.position is not None:
            if message.seq <= self.position.seq:
                return  # a repeat
            self.position = Position(epoch=self.position.epoch, seq=message.seq)
        self.messages.emit(message)
