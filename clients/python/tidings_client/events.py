"""Typed events, received by callbacks, by iteration, or one at a time."""

import asyncio
import inspect
import weakref
from collections import deque
from collections.abc import Awaitable, Callable
from typing import Any, Generic, Self, TypeVar

from tidings_client.errors import Closed, QueueFull, TidingsError

T = TypeVar("T")
Listener = Callable[[T], Awaitable[None] | None]

# Number of events that a stream keeps for a slow reader.
STREAM_LIMIT = 10_000

_running: set[asyncio.Future[Any]] = set()  # the loop itself holds tasks weakly


class Event(Generic[T]):
    """One kind of event.

    `listen(callback)` calls a function or coroutine function for each event. `async for` iterates over `stream()`.
    `await next()` waits for one.
    """

    def __init__(self) -> None:
        self._listeners: dict[object, Listener[T]] = {}
        self._streams: weakref.WeakSet[Stream[T]] = weakref.WeakSet()

    def listen(self, callback: Listener[T]) -> Callable[[], None]:
        """Call `callback` for each event. Returns a function that stops it.

        An exception in a callback affects neither the other callbacks nor the connection; it goes to the loop's
        exception handler. Functions are called in order; coroutine functions run concurrently.
        """
        key = object()
        self._listeners[key] = callback

        def stop() -> None:
            self._listeners.pop(key, None)

        return stop

    def stream(self, limit: int = STREAM_LIMIT) -> "Stream[T]":
        """Return an iterator over the events from now on. A reader that falls `limit` events behind gets QueueFull."""
        stream: Stream[T] = Stream(limit)
        self._streams.add(stream)
        return stream

    async def next(self) -> T:
        """Wait for the next event. Raises Closed when the client is closed or the room is left."""
        async with self.stream() as stream:
            async for event in stream:
                return event
        raise Closed("there will be no such event: the client was closed, or the room was left")

    @property
    def is_heard(self) -> bool:
        """Whether there is a listener or a stream."""
        return bool(self._listeners or self._streams)

    def emit(self, event: T) -> None:
        """Send an event to all listeners and streams. For the client's own use."""
        for stream in list(self._streams):
            stream.put(event)
        for callback in list(self._listeners.values()):
            protect(callback, event)

    def end(self, error: TidingsError | None = None) -> None:
        """End all streams, with an error if given. For the client's own use."""
        for stream in list(self._streams):
            stream.end(error)


class Stream(Generic[T]):
    """An asynchronous iterator over events. Its source drops it at `aclose`, or when no reference is left."""

    def __init__(self, limit: int = STREAM_LIMIT) -> None:
        self._limit = limit
        self._waiting: deque[T] = deque()
        self._ended = False
        self._error: TidingsError | None = None
        self._arrived = asyncio.Event()

    def put(self, event: T) -> None:
        """Add an event. For the client's own use."""
        if self._ended:
            return
        if len(self._waiting) >= self._limit:
            self.end(QueueFull(f"{self._limit} events wait for the reader of this stream"))
            return
        self._waiting.append(event)
        self._arrived.set()

    def end(self, error: TidingsError | None = None) -> None:
        """End the stream after the waiting events. For the client's own use."""
        if not self._ended:
            self._ended, self._error = True, error
            self._arrived.set()

    async def aclose(self) -> None:
        """End the stream and drop the waiting events."""
        self._waiting.clear()
        self.end()

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> T:
        # A cancelled wait loses no event: it is only removed after the wait.
        while not self._waiting and not self._ended:
            self._arrived.clear()
            await self._arrived.wait()
        if self._waiting:
            return self._waiting.popleft()
        if self._error is not None:
            raise self._error
        raise StopAsyncIteration

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()


def protect(callback: Callable[..., Awaitable[None] | None], *arguments: object) -> None:
    """Run a callback of the application. Its exceptions go to the loop's exception handler."""
    try:
        result = callback(*arguments)
    except Exception as fault:  # noqa: BLE001 - the application's exception must not end the connection
        _report(fault)
        return
    if inspect.isawaitable(result):
        task = asyncio.ensure_future(result)
        _running.add(task)
        task.add_done_callback(_finished)


def _finished(task: "asyncio.Future[Any]") -> None:
    _running.discard(task)
    if not task.cancelled() and (fault := task.exception()) is not None:
        _report(fault)


def _report(fault: BaseException) -> None:
    context = {"message": "a callback of the application raised", "exception": fault}
    asyncio.get_running_loop().call_exception_handler(context)
