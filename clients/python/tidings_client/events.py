"""Typed events: callbacks, streams to iterate over, and the next one to wait for."""

import asyncio
import inspect
import weakref
from collections import deque
from collections.abc import Awaitable, Callable
from typing import Any, Generic, Self, TypeVar

from tidings_client.errors import Closed, QueueFull, TidingsError

T = TypeVar("T")
Listener = Callable[[T], Awaitable[None] | None]

# What a stream keeps for a reader who is slower than what it reads.
STREAM_LIMIT = 10_000

_running: set[asyncio.Future[Any]] = set()  # the loop itself holds tasks weakly


class Event(Generic[T]):
    """One kind of thing that happens.

    `listen(callback)` calls a function, or runs a coroutine function, for each. `stream()` is iterated over with
    `async for`. `await next()` waits for one.
    """

    def __init__(self) -> None:
        self._listeners: dict[object, Listener[T]] = {}
        self._streams: weakref.WeakSet[Stream[T]] = weakref.WeakSet()

    def listen(self, callback: Listener[T]) -> Callable[[], None]:
        """Call `callback` for each event; returns a function that ends this.

        A callback that raises disturbs neither the others nor the connection: its error goes to the loop's exception
        handler. Callbacks run in order; what coroutine functions do runs side by side.
        """
        key = object()
        self._listeners[key] = callback

        def stop() -> None:
            self._listeners.pop(key, None)

        return stop

    def stream(self, limit: int = STREAM_LIMIT) -> "Stream[T]":
        """Return the events from now on, to iterate over. Who falls `limit` of them behind gets QueueFull."""
        stream: Stream[T] = Stream(limit)
        self._streams.add(stream)
        return stream

    async def next(self) -> T:
        """Wait for the next event. Raises Closed if there will be none: the client was closed, or the room left."""
        async with self.stream() as stream:
            async for event in stream:
                return event
        raise Closed("there will be no such event: the client was closed, or the room was left")

    @property
    def is_heard(self) -> bool:
        """Whether anyone listens, or reads a stream."""
        return bool(self._listeners or self._streams)

    def emit(self, event: T) -> None:
        """Tell everyone. For the client's own use."""
        for stream in list(self._streams):
            stream.put(event)
        for callback in list(self._listeners.values()):
            protect(callback, event)

    def end(self, error: TidingsError | None = None) -> None:
        """End all streams: with an error, or as if there were no more. For the client's own use."""
        for stream in list(self._streams):
            stream.end(error)


class Stream(Generic[T]):
    """Events to iterate over. Forgotten by its source once nobody holds it, or at `aclose`."""

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
            self.end(QueueFull(f"{self._limit} events wait for who reads this stream"))
            return
        self._waiting.append(event)
        self._arrived.set()

    def end(self, error: TidingsError | None = None) -> None:
        """End it after what waits. For the client's own use."""
        if not self._ended:
            self._ended, self._error = True, error
            self._arrived.set()

    async def aclose(self) -> None:
        """Stop: what waits is forgotten."""
        self._waiting.clear()
        self.end()

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> T:
        # A cancelled wait takes nothing away: an event is taken only after it.
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
    """Run what an application gave us; what it raises goes to the loop's exception handler."""
    try:
        result = callback(*arguments)
    except Exception as fault:  # noqa: BLE001 - whatever it is, it is not ours, and must not end the connection
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
