"""The newest messages of a room. A stream has no read for them: a long log is searched by bisection."""

from typing import Protocol

from services.bus.jsapi import StoredMessage
from services.bus.streams import PAGE_BYTES, Batch, DurableLog

_PAGE = 256
# The first guess of how many messages to read from a long log: as many of the largest size as an answer holds.
_FIRST_GUESS = 16
_GUESS_FACTOR = 4
_MARGIN = 65_536


class Readable(Protocol):
    """A durable log, as far as it is read here."""

    async def read_from(self, subject: str, seq: int, limit: int, max_bytes: int = PAGE_BYTES) -> Batch:
        """See `DurableLog`."""

    async def last_of(self, subject: str) -> tuple[int, int]:
        """See `DurableLog`."""


class MeasuredLog:
    """A durable log whose reads are counted: `size` is their bytes."""

    def __init__(self, durable_log: DurableLog) -> None:
        self.size = 0
        self.last_of = durable_log.last_of
        self._durable_log = durable_log

    async def read_from(self, subject: str, seq: int, limit: int, max_bytes: int = PAGE_BYTES) -> Batch:
        batch = await self._durable_log.read_from(subject, seq, limit, max_bytes)
        self.size += sum(len(message.data) for message in batch.messages)
        return batch


async def read_newest(
    log: Readable, subject: str, limit: int, before: int | None, max_bytes: int
) -> tuple[int, list[StoredMessage]]:
    """Return a room's last sequence, and its newest messages (before `before`), at most `limit` and `max_bytes`."""
    batch = await log.read_from(subject, 1, _PAGE)
    if batch.complete:
        return batch.last_seq, _last_of(batch.messages, limit, before, max_bytes)
    # A long log is not read from its start, but from a sequence found by bisection.
    later = 0 if before is None else await _count(log, subject, before)
    last_seq, stream_last = await log.last_of(subject)
    last_seq = last_seq or stream_last  # all messages have expired meanwhile
    wanted = min(limit, _FIRST_GUESS)
    while True:
        start = 1
        if wanted + later < len(batch.messages) + batch.pending:
            start = await _start_seq(log, subject, last_seq, wanted + later, slack=wanted)
        found = await _read_on(log, subject, start, limit, before, max_bytes)
        enough = len(found) >= limit or sum(len(message.data) for message in found) >= max_bytes - _MARGIN
        if enough or start == 1:
            return max(last_seq, found[-1].seq if found else 0), found
        wanted *= _GUESS_FACTOR


async def _read_on(
    log: Readable, subject: str, start: int, limit: int, before: int | None, max_bytes: int
) -> list[StoredMessage]:
    """Read to the end, or to `before`, a page at a time; keep only the newest."""
    kept: list[StoredMessage] = []
    while True:
        batch = await log.read_from(subject, start, _PAGE)
        kept = _last_of([*kept, *batch.messages], limit, before, max_bytes)
        start = batch.last_seq + 1
        if batch.complete or not batch.messages or (before is not None and start >= before):
            return kept


def _last_of(
    messages: list[StoredMessage], limit: int, before: int | None, max_bytes: int
) -> list[StoredMessage]:
    kept: list[StoredMessage] = []
    size = 0
    for message in reversed(messages):
        if before is not None and message.seq >= before:
            continue
        size += len(message.data)
        if len(kept) >= limit or (size > max_bytes and kept):
            break
        kept.append(message)
    return kept[::-1]


async def _start_seq(log: Readable, subject: str, last_seq: int, wanted: int, *, slack: int) -> int:
    """Return a sequence from which on a room has at least `wanted` messages, and at best `slack` more at most."""
    low, high = 1, last_seq + 1
    while high - low > 1:
        middle = (low + high) // 2
        count = await _count(log, subject, middle)
        if count < wanted:
            high = middle
        else:
            low = middle
            if count <= wanted + slack:
                break
    return low


async def _count(log: Readable, subject: str, seq: int) -> int:
    """Return the number of a room's messages from a sequence on. Reads one of them."""
    batch = await log.read_from(subject, seq, 1)
    return len(batch.messages) + batch.pending
