"""Long work on the event loop, a slice at a time: what is pushed is converted while everybody else is served.

A thread would not do: parsers written in C keep the interpreter's lock while they run.
"""

import asyncio
import time
from collections.abc import Callable, Generator
from typing import TypeVar, cast

from gateway.client.commands import CommandError
from services.wire.codes import ErrorCode

T = TypeVar("T")

# The loop is kept for so long at a time. A slice ends with the first step after it.
SLICE_S = 0.002
MAX_PUSHES_WAITING = 64
_RETRY_MS = 2000


class Slices:
    """Carries out one piece of work after the other, a slice in each turn of the loop; a few wait."""

    def __init__(self, max_waiting: int, on_limit: Callable[[], object]) -> None:
        self._max_waiting = max_waiting
        self._on_limit = on_limit
        self._turn = asyncio.Lock()
        self._waiting = 0

    async def run(self, steps: Generator[None, None, T]) -> T:
        """Carry out the steps, each a millisecond or two; return what the last one does.

        Raises:
            CommandError: as many wait as may; `on_limit` was called.
        """
        if self._waiting > self._max_waiting:
            self._on_limit()
            raise CommandError(ErrorCode.RATE_LIMITED, "too much waits to be converted; try again", _RETRY_MS)
        self._waiting += 1
        try:
            async with self._turn:
                began = time.perf_counter()
                while True:
                    try:
                        next(steps)
                    except StopIteration as end:
                        return cast("T", end.value)
                    spent = time.perf_counter() - began
                    if spent >= SLICE_S:
                        await asyncio.sleep(0)  # whatever is ready goes first
                        began = time.perf_counter()
        finally:
            self._waiting -= 1
