"""Answers: one wildcard subscription, and a table from token to who waits.

`_INBOX.RANDOM.TOKEN` is the reply subject of a request; TOKEN is a counter, so that a reply finds its
request by one look-up.
"""

import itertools
import secrets
from typing import Generic, Protocol, TypeVar

from services.bus.errors import BusError
from services.bus.message import BusMessage


class ReplyHandler(Protocol):
    """Who waits for answers to what was sent to `subject`."""

    @property
    def subject(self) -> str:
        """Subject of the request."""

    def on_answer(self, message: BusMessage) -> None:
        """Take in one answer; there may be more until the token is closed."""

    def on_failed(self, error: BusError) -> None:
        """Learn that no (further) answer will come. The token is closed."""


HandlerT = TypeVar("HandlerT", bound=ReplyHandler)


class ReplyInbox(Generic[HandlerT]):
    """The table, oldest request first. It knows nothing of the connection and keeps no time.

    With `one_answer` the first answer closes its token, so that whoever waits hears exactly one thing.
    `prefix` is what this user of NATS may hear answers on.
    """

    def __init__(self, *, one_answer: bool = False, prefix: str = "_INBOX") -> None:
        self._base = f"{prefix}.{secrets.token_hex(11)}."
        self._tokens = itertools.count(1)
        self._waiting: dict[str, HandlerT] = {}
        self._take = self._waiting.pop if one_answer else self._waiting.get

    @property
    def subject(self) -> str:
        """What to subscribe to."""
        return f"{self._base}*"

    def __len__(self) -> int:
        return len(self._waiting)

    def open(self, waiting: HandlerT) -> str:
        """Enter who waits, and return the reply subject that leads back there."""
        token = f"{next(self._tokens):x}"
        self._waiting[token] = waiting
        return self._base + token

    def close(self, reply: str) -> HandlerT | None:
        """Wait no longer on that reply subject; later answers are dropped. Return who waited, once."""
        return self._waiting.pop(reply[len(self._base) :], None)

    def oldest(self) -> tuple[str, HandlerT] | None:
        """Return the reply subject and who waits longest."""
        for token, waiting in self._waiting.items():
            return self._base + token, waiting
        return None

    def on_message(self, message: BusMessage) -> None:
        """Take in what came on the subscription."""
        waiting = self._take(message.subject[len(self._base) :], None)
        if waiting is not None:
            waiting.on_answer(message)

    def fail_all(self, error: BusError) -> None:
        """Tell everyone that no answer will come."""
        failed = list(self._waiting.values())
        self._waiting.clear()
        for waiting in failed:
            waiting.on_failed(error)

    def fail_subject(self, subject: str, error: BusError) -> None:
        """Tell those who asked on `subject`; it is compared in lower case, as NATS reports it."""
        for token in [
            token for token, waiting in self._waiting.items() if waiting.subject.lower() == subject
        ]:
            self._waiting.pop(token).on_failed(error)
