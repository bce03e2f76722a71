"""Pending requests: one wildcard subscription, a table from token to handler, and the handler of a request.

`_INBOX.RANDOM.TOKEN` is the reply subject of a request; TOKEN is a counter, so one look-up finds the handler.
"""

import asyncio
import itertools
import secrets
from collections.abc import Callable
from typing import Generic, Protocol, TypeVar

from services.bus.errors import BusError, NoResponders
from services.bus.message import BusMessage


class ReplyHandler(Protocol):
    """Waits for replies to what was sent to `subject`."""

    @property
    def subject(self) -> str:
        """Subject of the request."""

    def on_answer(self, message: BusMessage) -> None:
        """Handle one reply; there may be more until the token is closed."""

    def on_failed(self, error: BusError) -> None:
        """Handle that no further reply will come. The token is closed."""


HandlerT = TypeVar("HandlerT", bound=ReplyHandler)


class ReplyInbox(Generic[HandlerT]):
    """The table, oldest request first. It knows nothing of the connection and keeps no time.

    With `one_answer` the first reply closes its token, so each handler is called exactly once. `prefix` is where this
    user of NATS may receive replies.
    """

    def __init__(self, *, one_answer: bool = False, prefix: str = "_INBOX") -> None:
        self._base = f"{prefix}.{secrets.token_hex(11)}."
        self._tokens = itertools.count(1)
        self._waiting: dict[str, HandlerT] = {}
        self._handler_of = self._waiting.pop if one_answer else self._waiting.get

    @property
    def subject(self) -> str:
        """What to subscribe to."""
        return f"{self._base}*"

    def __len__(self) -> int:
        return len(self._waiting)

    def open(self, handler: HandlerT) -> str:
        """Add a handler, and return its reply subject."""
        token = f"{next(self._tokens):x}"
        self._waiting[token] = handler
        return self._base + token

    def close(self, reply: str) -> HandlerT | None:
        """Drop later replies on that subject. Return its handler, the first time."""
        return self._waiting.pop(reply[len(self._base) :], None)

    def oldest(self) -> tuple[str, HandlerT] | None:
        """Return the reply subject and handler of the oldest request."""
        return next(((self._base + token, handler) for token, handler in self._waiting.items()), None)

    def on_message(self, message: BusMessage) -> None:
        """Pass a message of the subscription to its handler."""
        handler = self._handler_of(message.subject[len(self._base) :], None)
        if handler is not None:
            handler.on_answer(message)

    def fail_all(self, error: BusError) -> None:
        """Fail all requests."""
        failed = list(self._waiting.values())
        self._waiting.clear()
        for handler in failed:
            handler.on_failed(error)

    def fail_subject(self, subject: str, error: BusError) -> None:
        """Fail the requests to `subject`; it is in lower case, as NATS reports it."""
        for token in [token for token, one in self._waiting.items() if one.subject.lower() == subject]:
            self._waiting.pop(token).on_failed(error)


class PendingRequest:
    """Gathers the replies to one request, until `until` returns True for one."""

    def __init__(self, subject: str, until: Callable[[BusMessage], bool] | None = None) -> None:
        self.subject = subject
        self._answers: list[BusMessage] = []
        self._until = until
        self._failed: BusError | None = None
        self._enough = False
        self._news = asyncio.Event()

    def on_answer(self, message: BusMessage) -> None:
        """Add one reply; after the last one needed, drop it."""
        if message.is_no_responders:
            self.on_failed(NoResponders(self.subject))
        elif not self._enough:
            self._answers.append(message)
            self._enough = self._until is not None and self._until(message)
            self._news.set()

    def on_failed(self, error: BusError) -> None:
        """Stop waiting, unless there are enough replies."""
        if not self._enough:
            self._failed = error
            self._news.set()

    async def answers(self, timeout_s: float, stall_s: float | None = None) -> list[BusMessage]:
        """Return the replies: enough of them, or those within `timeout_s`, or until none came for `stall_s`.

        Raises:
            BusError: the request failed; replies that came before are dropped.
        """
        loop = asyncio.get_running_loop()
        deadline = loop.time() + timeout_s
        while not self._enough and self._failed is None:
            patience = deadline - loop.time()
            if stall_s is not None:
                patience = min(patience, stall_s)
            try:
                await asyncio.wait_for(self._news.wait(), patience)
            except TimeoutError:
                break
            self._news.clear()
        if self._failed is not None:
            raise self._failed
        return self._answers
