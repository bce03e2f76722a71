"""How much is read back from streams at once.

All that a gateway reads comes over its one connection to NATS, which is cut when more than 64 MB wait there, and everybody
on the gateway with it. So each read asks for a page of bytes at most (`services.bus.streams.PAGE_BYTES`), and few run
side by side: gaps, recoveries and history each have slots of their own, so that what clients ask for never keeps a gap
from being filled.
"""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from gateway.delivery.encoded_message import EncodedMessage
from gateway.delivery.fanout import Member
from gateway.limits import Limit
from services.bus.errors import Unavailable

_FILLS = 8
_RECOVERIES = 4
_HISTORY = 2
# A join is answered within 10 s, and reading may take five of them.
_WAIT_S = 4.0
# Recoveries of one connection that wait for each other; a client that joins a hundred rooms again asks for a hundred.
_WAITING = 128
# What a connection may have to read still before its next recovery is read.
_LOW_BYTES = 65_536
_LOOK_S = 0.02


class _Turns:
    """The recoveries of one connection: one at a time."""

    __slots__ = ("lock", "waiting")

    def __init__(self) -> None:
        self.lock = asyncio.Lock()
        self.waiting = 0


class Reads:
    """The slots for reads of one gateway. `on_limit` counts who found none."""

    def __init__(self, on_limit: Callable[[str], object]) -> None:
        self.fills = asyncio.Semaphore(_FILLS)
        self._recoveries = asyncio.Semaphore(_RECOVERIES)
        self._history = asyncio.Semaphore(_HISTORY)
        self._packing = asyncio.Lock()
        self._turns: dict[str, _Turns] = {}
        self._on_limit = on_limit

    @asynccontextmanager
    async def turn(self, member: Member, still_wanted: Callable[[], bool]) -> AsyncIterator[None]:
        """Be the one recovery of a connection, after it has read what it was sent before.

        Raises:
            Unavailable: too many of this connection wait already.
        """
        turns = self._turns.setdefault(member.connection_id, _Turns())
        if turns.waiting >= _WAITING:
            self._on_limit(Limit.RECOVERIES)
            raise Unavailable("too many recoveries of this connection wait")
        turns.waiting += 1
        try:
            async with turns.lock:
                while member.backlog > _LOW_BYTES and still_wanted():  # noqa: ASYNC110  # a transport has no event
                    await asyncio.sleep(_LOOK_S)
                yield
        finally:
            turns.waiting -= 1
            if not turns.waiting:
                del self._turns[member.connection_id]

    async def pack(self, message: EncodedMessage) -> None:
        """Make MessagePack of one message that was read, while nobody else does: 64 KiB take two milliseconds."""
        async with self._packing:
            _ = message.msgpack
            await asyncio.sleep(0)

    @asynccontextmanager
    async def recovery(self) -> AsyncIterator[None]:
        """Be one of the few recoveries that are read. Raises Unavailable where no place is free in time."""
        async with self._slot(self._recoveries):
            yield

    @asynccontextmanager
    async def history(self) -> AsyncIterator[None]:
        """Be one of the few that read history. Raises Unavailable where no place is free in time."""
        async with self._slot(self._history):
            yield

    @asynccontextmanager
    async def _slot(self, slots: asyncio.Semaphore) -> AsyncIterator[None]:
        try:
            async with asyncio.timeout(_WAIT_S):
                await slots.acquire()
        except TimeoutError:
            self._on_limit(Limit.RECOVERIES)
            raise Unavailable("too much is being read from the streams now") from None
        try:
            yield
        finally:
            slots.release()
