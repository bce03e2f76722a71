"""Where messages go: the interface of a receiver, how one fails, and the threads it may keep busy."""

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Protocol, TypeVar

from metrics_svc.notify.notification import Notification

# Messages about so many groups are on their way to one receiver at once; more wait for their turn.
THREADS = 4

T = TypeVar("T")


class DeliveryFailed(Exception):
    """A receiver did not take a message. `perhaps` says that it may have, all the same (its answer is missing)."""

    def __init__(self, reason: str, *, perhaps: bool = False) -> None:
        super().__init__(reason)
        self.reason = reason
        self.perhaps = perhaps


class Outlet(Protocol):
    """One receiver's way in."""

    async def send(self, notification: Notification) -> None:
        """Hand one message over. Raises DeliveryFailed."""


class Lane:
    """The threads of one receiver.

    Of its own, because a call that hangs keeps its thread even when nobody waits for it any more: in a pool shared by
    all, a receiver that hangs would hold up the others and questions about history.
    """

    def __init__(self) -> None:
        self._threads = ThreadPoolExecutor(THREADS, thread_name_prefix="notify")

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
