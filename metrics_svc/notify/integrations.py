"""Where messages go: the interface of a receiver, how one fails, and how much of it goes on at once."""

import asyncio
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Protocol, TypeVar

from metrics_svc.notify.notification import Notification
from services.webhooks import NotTaken, WebhookSender

# Messages about so many groups are on their way to one receiver at once; more wait for their turn.
AT_ONCE = 4
# For the whole of one post.
ATTEMPT_S = 10.0

T = TypeVar("T")


class DeliveryFailed(Exception):
    """A receiver did not take a message.

    Attributes:
        perhaps: it may have, all the same: its answer is missing.
        retry: whether to send the same again. False: it would be refused again.
        after_s: how long the receiver wants to be left alone.
    """

    def __init__(
        self, reason: str, *, perhaps: bool = False, retry: bool = True, after_s: float = 0.0
    ) -> None:
        super().__init__(reason)
        self.reason = reason
        self.perhaps = perhaps
        self.retry = retry
        self.after_s = after_s


class Integration(Protocol):
    """One receiver's way in."""

    async def send(self, notification: Notification) -> None:
        """Hand one message over. Raises DeliveryFailed."""

    async def close(self) -> None:
        """Let go of connections and threads."""


class Posts:
    """Posts JSON to one URL, `AT_ONCE` at most at a time."""

    def __init__(self, url: str, *, attempt_s: float = ATTEMPT_S) -> None:
        self._url = url
        self._sender = WebhookSender(attempt_s=attempt_s)
        self._free = asyncio.Semaphore(AT_ONCE)

    async def post(self, body: bytes, headers: Mapping[str, str] | None = None) -> None:
        """Post once, when it is its turn; any answer of 2xx means that it was taken. Raises DeliveryFailed."""
        async with self._free:
            try:
                await self._sender.post(self._url, body, headers)
            except NotTaken as fault:
                raise DeliveryFailed(
                    str(fault), perhaps=fault.perhaps, retry=fault.retry, after_s=fault.after_s
                ) from None

    async def close(self) -> None:
        """Close the connections."""
        await self._sender.close()


class BlockingPool:
    """The threads of one receiver.

    Of its own, because a call that hangs keeps its thread even when nobody waits for it any more: in a pool shared by
    all, a receiver that hangs would hold up the others and questions about history.
    """

    def __init__(self) -> None:
        self._threads = ThreadPoolExecutor(AT_ONCE, thread_name_prefix="notify")

    async def call(self, blocking: Callable[[], T], timeout_s: float) -> T:
        """Return what a blocking call returns, or raise what it raises.

        Raises:
            DeliveryFailed: it did not return in time; it may yet.
        """
        try:
            async with asyncio.timeout(timeout_s):
                return await asyncio.get_running_loop().run_in_executor(self._threads, blocking)
        except TimeoutError:
            raise DeliveryFailed(f"not taken within {timeout_s:g} s", perhaps=True) from None

    def close(self) -> None:
        """Take no more calls; those that hang end with the process."""
        self._threads.shutdown(wait=False, cancel_futures=True)
