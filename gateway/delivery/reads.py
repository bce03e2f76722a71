"""Limits on concurrent reads from streams.

All reads of a gateway arrive over its one connection to NATS. NATS cuts a connection for which more than 64 MB wait,
and with it every client of the gateway. So each read asks for one page of bytes at most
(`services.bus.streams.PAGE_BYTES`), and few run at once. Gaps, recoveries and history have slots of their own, so that
requests of clients never delay the filling of a gap.
"""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from functools import partial

from gateway.delivery.encoded_message import EncodedMessage
from gateway.delivery.fanout import Member
from gateway.limits import Limit
from services.bus.errors import Unavailable

_FILLS = 8
_RECOVERIES = 4
_HISTORY = 2
# A join is answered within 10 s, and reading may take 5 of them.
_WAIT_S = 4.0
# Waiting recoveries of one connection; a client that joins a hundred rooms again needs a hundred.
_WAITING = 128
# A connection's unsent bytes below which its next recovery starts.
_LOW_BYTES = 65_536
_POLL_S = 0.02


@dataclass(slots=True)
class _Turns:
    """The recoveries of one connection: one at a time."""

    lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    waiting: int = 0


class Reads:
    """The read slots of one gateway. `on_limit` counts reads that found none free."""

    def __init__(self, on_limit: Callable[[str], object]) -> None:
        self.fills = asyncio.Semaphore(_FILLS)
        self.recovery = partial(self._slot, asyncio.Semaphore(_RECOVERIES))
        self.history = partial(self._slot, asyncio.Semaphore(_HISTORY))
        self._packing = asyncio.Lock()
        self._turns: dict[str, _Turns] = {}
        self._on_limit = on_limit

    @asynccontextmanager
    async def turn(self, member: Member, still_wanted: Callable[[], bool]) -> AsyncIterator[None]:
        """Hold the connection's turn for a recovery, once it has read what it was sent before.

        Raises:
            Unavailable: too many recoveries of this connection wait already.
        """
        turns = self._turns.setdefault(member.connection_id, _Turns())
        if turns.waiting >= _WAITING:
            self._on_limit(Limit.RECOVERIES)
            raise Unavailable("too many recoveries of this connection wait")
        turns.waiting += 1
        try:
            async with turns.lock:
                while member.backlog > _LOW_BYTES and still_wanted():  # noqa: ASYNC110  # a transport has no event
                    await asyncio.sleep(_POLL_S)
                yield
        finally:
            turns.waiting -= 1
            if not turns.waiting:
                del self._turns[member.connection_id]

    async def pack(self, message: EncodedMessage) -> None:
        """Encode one stored message as MessagePack, one at a time in the gateway: 64 KiB take 2 ms."""
        async with self._packing:
            _ = message.msgpack
            await asyncio.sleep(0)

    @asynccontextmanager
    async def _slot(self, slots: asyncio.Semaphore) -> AsyncIterator[None]:
        """Hold one of the slots. Raises Unavailable if none is free in time."""
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
