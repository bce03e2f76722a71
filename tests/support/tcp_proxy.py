"""A TCP proxy that misbehaves on request, for faults on a machine without `netem`.

It runs in a thread of its own, so that it serves processes that outlive one test's event loop, and its methods
may be called from anywhere. What holds is one `Weather` for all connections:

- `delay(seconds)`   every chunk arrives later, in order
- `stall()`          nothing passes; connections stay, and what waits passes after `heal`
- `half_open()`      what is sent vanishes; new connections are accepted and never answered. `heal` resets them all:
                     bytes are missing from them
- `refuse()`         new connections are closed at once; those that stand go on
- `reset()`          all connections end now with RST
- `heal()`           everything as it should be
"""

import asyncio
import contextlib
import socket
import struct
import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Self

_CHUNK_BYTES = 65_536
_LAST_BYTES_S = 0.2
_LINGER_NONE = struct.pack("ii", 1, 0)  # closing with it sends RST (socket(7), SO_LINGER)


@dataclass
class _Weather:
    delay_s: float = 0.0
    swallow: bool = False
    refuse: bool = False


class TcpProxy:
    """Listens on a free loopback port and passes bytes on to `target_port`."""

    def __init__(self, target_port: int) -> None:
        self._target_port = target_port
        self._listener = socket.create_server(("127.0.0.1", 0))
        # Accepted sockets inherit it. asyncio sets it only where the protocol number was given, and without it every
        # answer in two pieces waits 40 ms for an acknowledgement (tcp(7), RFC 896).
        self._listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.port: int = self._listener.getsockname()[1]
        self._weather = _Weather()
        self._writers: set[asyncio.StreamWriter] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._loop = asyncio.new_event_loop()
        self._flowing: asyncio.Event
        self._thread = threading.Thread(target=self._run, name="tcp proxy", daemon=True)
        self._started = threading.Event()

    @property
    def connections(self) -> int:
        """How many connections stand."""
        return len(self._writers) // 2

    def start(self) -> Self:
        """Start listening; harmless when done before."""
        if not self._thread.is_alive():
            self._thread.start()
            self._started.wait()
        return self

    def stop(self) -> None:
        """End all connections and the thread."""
        if self._thread.is_alive():
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._thread.join()
        self._listener.close()

    # --- faults ---

    def delay(self, seconds: float) -> None:
        """Let every chunk arrive later."""
        self._on_loop(lambda: setattr(self._weather, "delay_s", seconds))

    def stall(self) -> None:
        """Let nothing pass."""
        self._on_loop(self._flowing.clear)

    def half_open(self) -> None:
        """Drop all bytes, in both directions."""
        self._on_loop(lambda: setattr(self._weather, "swallow", True))

    def refuse(self) -> None:
        """Close new connections at once."""
        self._on_loop(lambda: setattr(self._weather, "refuse", True))

    def reset(self) -> None:
        """End all connections with RST."""
        self._on_loop(self._reset)

    def heal(self) -> None:
        """Pass everything on again."""
        self._on_loop(self._heal)

    # --- in the thread ---

    def _on_loop(self, change: Callable[[], None]) -> None:
        done = threading.Event()

        def apply() -> None:
            change()
            done.set()

        self._loop.call_soon_threadsafe(apply)
        assert done.wait(5.0), "the proxy's thread does not answer"

    def _heal(self) -> None:
        if self._weather.swallow:
            self._reset()
        self._weather = _Weather()
        self._flowing.set()

    def _reset(self) -> None:
        for writer in list(self._writers):
            with contextlib.suppress(OSError):  # closed by its peer meanwhile
                writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _LINGER_NONE)
            writer.transport.abort()
        for task in list(self._tasks):
            task.cancel()

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        self._flowing = asyncio.Event()
        self._flowing.set()
        server = self._loop.run_until_complete(asyncio.start_server(self._serve, sock=self._listener))
        self._started.set()
        self._loop.run_forever()
        self._loop.run_until_complete(self._end(server))
        self._loop.close()

    async def _end(self, server: asyncio.Server) -> None:
        server.close()
        self._reset()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        self._writers.add(writer)
        onward: asyncio.StreamWriter | None = None
        try:
            if self._weather.refuse:
                return
            back, onward = await asyncio.open_connection("127.0.0.1", self._target_port)
            self._writers.add(onward)
            pumps = [
                asyncio.ensure_future(self._pump(reader, onward)),
                asyncio.ensure_future(self._pump(back, writer)),
            ]
            try:
                await asyncio.wait(pumps, return_when=asyncio.FIRST_COMPLETED)
            finally:
                for pump in pumps:
                    pump.cancel()
                await asyncio.gather(*pumps, return_exceptions=True)
        except (OSError, asyncio.CancelledError):
            return  # the target is down, or the connection was reset on purpose
        finally:
            for end in (writer, onward):
                if end is not None:
                    self._writers.discard(end)
                    await _closed(end)
            self._tasks.discard(task)

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        loop = asyncio.get_running_loop()
        while chunk := await reader.read(_CHUNK_BYTES):
            due = loop.time() + self._weather.delay_s
            await self._flowing.wait()
            if self._weather.swallow:
                continue
            if due > loop.time():
                await asyncio.sleep(due - loop.time())
            writer.write(chunk)
            await writer.drain()
        # An end of the stream is news like any other: it does not pass while nothing does.
        await self._flowing.wait()
        if self._weather.swallow:
            await asyncio.Event().wait()  # until `heal` resets the connection


async def _closed(writer: asyncio.StreamWriter) -> None:
    """Close a connection; one whose peer takes nothing more is dropped with what it has not taken."""
    writer.close()
    try:
        async with asyncio.timeout(_LAST_BYTES_S):
            await writer.wait_closed()
    except TimeoutError:
        writer.transport.abort()
        await asyncio.sleep(0)  # the transport closes its socket in the loop's next turn
    except OSError:
        return  # reset: it is closed
