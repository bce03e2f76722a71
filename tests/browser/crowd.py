"""Many users at once, each with a connection of their own."""

import asyncio
import resource
import threading
from collections.abc import Coroutine, Iterator, Sequence
from contextlib import contextmanager
from typing import Any
from urllib.parse import quote

import websockets

_AT_ONCE = 32


class Crowd:
    """Users who are online during the context; `stir` changes some of them."""

    def __init__(self, url: str) -> None:
        self._url = url.replace("http", "ws", 1)
        self._loop = asyncio.new_event_loop()
        self._connections: list[websockets.ClientConnection] = []
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)

    def come(self, names: Sequence[str], rooms: Sequence[str] = ()) -> None:
        """Connect users of these names; each goes into one of the rooms, in turn."""
        self._run(self._come(names, rooms), 120)

    def stir(self, changes: int, status: str) -> None:
        """Let the first so many of them say a new status."""
        self._run(self._stir(changes, status), 30)

    def _run(self, work: Coroutine[Any, Any, None], timeout_s: float) -> None:
        asyncio.run_coroutine_threadsafe(work, self._loop).result(timeout_s)

    async def _come(self, names: Sequence[str], rooms: Sequence[str]) -> None:
        gate = asyncio.Semaphore(_AT_ONCE)

        async def connect(number: int, name: str) -> None:
            async with gate:
                address = f"{self._url}/ws?username={quote(name)}"
                # A client that does not read cannot see the close frame either, so the wait for it is short.
                connection = await websockets.connect(
                    address, open_timeout=60, close_timeout=1, ping_interval=None
                )
            self._connections.append(connection)
            if rooms:
                await connection.send(f'{{"type":"join_room","room":"{rooms[number % len(rooms)]}"}}')

        await asyncio.gather(*(connect(number, name) for number, name in enumerate(names)))

    async def _stir(self, changes: int, status: str) -> None:
        for connection in self._connections[:changes]:
            await connection.send(f'{{"type":"status_change","status":"{status}"}}')

    async def _go(self) -> None:
        await asyncio.gather(*(connection.close() for connection in self._connections))

    def start(self) -> None:
        """Start the thread that the connections live in."""
        self._thread.start()

    def close(self) -> None:
        """Let all of them go."""
        self._run(self._go(), 60)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)
        self._loop.close()


@contextmanager
def crowd_of(url: str, names: Sequence[str], rooms: Sequence[str] = ()) -> Iterator[Crowd]:
    """Have users of these names online, and in rooms."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, min(hard, len(names) * 2 + 512)), hard))
    crowd = Crowd(url)
    crowd.start()
    try:
        crowd.come(names, rooms)
        yield crowd
    finally:
        crowd.close()
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
