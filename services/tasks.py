"""Background tasks with an owner: none is forgotten, none fails unseen, all end with their owner."""

import asyncio
import sys
from collections.abc import Callable, Coroutine
from typing import Any

import structlog

log = structlog.get_logger(__name__)


def start_eagerly(coroutine: Coroutine[Any, Any, Any]) -> asyncio.Task[Any]:
    """Run a coroutine up to its first wait before returning; what never waits is done by then.

    The caller keeps the task. On Python 3.11 it starts with the next turn of the loop.
    """
    loop = asyncio.get_running_loop()
    if sys.version_info >= (3, 12):
        return asyncio.Task(coroutine, loop=loop, eager_start=True)
    return loop.create_task(coroutine)


class TaskSet:
    """Tasks of one owner. A task that raises is logged; `close` cancels the rest and waits for them.

    `on_failure` is called with the fault of a critical task (`Lifecycle.fail`): without that loop the process would
    only look healthy.
    """

    def __init__(self, on_failure: Callable[[BaseException], object] | None = None) -> None:
        self._tasks: set[asyncio.Task[Any]] = set()
        self._critical: set[asyncio.Task[Any]] = set()
        self._on_failure = on_failure
        self._closed = False

    def __len__(self) -> int:
        return len(self._tasks)

    def spawn(
        self, coroutine: Coroutine[Any, Any, Any], name: str, *, critical: bool = False
    ) -> asyncio.Task[Any]:
        """Start a task; asyncio itself keeps only weak references to tasks.

        A critical task fails its owner where it raises, or is cancelled by anything but `close`.
        """
        task = asyncio.get_running_loop().create_task(coroutine, name=name)
        self._tasks.add(task)
        if critical:
            self._critical.add(task)
        task.add_done_callback(self._done)
        return task

    async def close(self) -> None:
        """Cancel what still runs and wait until it has ended. Idempotent."""
        self._closed = True
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _done(self, task: asyncio.Task[Any]) -> None:
        self._tasks.discard(task)
        critical = task in self._critical
        self._critical.discard(task)
        fault: BaseException | None
        if not task.cancelled():
            fault = task.exception()
        elif critical and not self._closed:
            fault = RuntimeError("cancelled, but not by its owner")
        else:
            fault = None
        if fault is None:
            return
        if critical and self._on_failure is not None:
            log.error("critical task ended", task=task.get_name())  # its fault is for `on_failure` to log
            self._on_failure(fault)
        else:
            log.error("background task failed", task=task.get_name(), exc_info=fault)
