"""One request on the bus and its replies, as something to await."""

import asyncio
from collections.abc import Callable

from services.bus.errors import BusError, NoAnswer
from services.bus.message import BusMessage

NO_RESPONDERS = 503


def is_no_responders(message: BusMessage) -> bool:
    """Return whether the server says that nobody listens on the subject."""
    return not message.data and message.status == NO_RESPONDERS


class PendingRequest:
    """Waits for one answer."""

    __slots__ = ("_answer", "subject")

    def __init__(self, subject: str) -> None:
        self.subject = subject
        self._answer: asyncio.Future[BusMessage | BusError] = asyncio.get_running_loop().create_future()

    def on_answer(self, message: BusMessage) -> None:
        """Take the first answer; later ones are dropped."""
        self._settle(NoAnswer(self.subject, "no responders") if is_no_responders(message) else message)

    def on_failed(self, error: BusError) -> None:
        """End the waiting."""
        self._settle(error)

    def _settle(self, outcome: BusMessage | BusError) -> None:
        if not self._answer.done():
            self._answer.set_result(outcome)

    async def answer(self, timeout_s: float) -> BusMessage:
        """Return the answer.

        Raises:
            NoAnswer: no responders, or none in time.
            BusError: what ended the waiting.
        """
        await asyncio.wait((self._answer,), timeout=timeout_s)
        if not self._answer.done():
            raise NoAnswer(self.subject, f"not within {timeout_s:g} s")
        outcome = self._answer.result()
        if isinstance(outcome, BusError):
            raise outcome
        return outcome


class ScatterGather:
    """Gathers answers until enough came, or for too long none."""

    def __init__(self, subject: str, until: Callable[[BusMessage], bool] | None) -> None:
        self.subject = subject
        self.answers: list[BusMessage] = []
        self._until = until
        self._failed: BusError | None = None
        self._enough = False
        self._news = asyncio.Event()

    def on_answer(self, message: BusMessage) -> None:
        """Take in one answer."""
        if is_no_responders(message):
            self.on_failed(NoAnswer(self.subject, "no responders"))
            return
        self.answers.append(message)
        if self._until is not None and self._until(message):
            self._enough = True
        self._news.set()

    def on_failed(self, error: BusError) -> None:
        """End the waiting."""
        self._failed = error
        self._news.set()

    async def gather(self, timeout_s: float, stall_s: float | None) -> list[BusMessage]:
        """Return what came until `until` said enough, the time was up, or none came for `stall_s`.

        Raises:
            BusError: what ended the waiting; answers that came before it are dropped.
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
        return self.answers
