"""Members that receive the same messages.

Messages that arrive in one turn of the loop are joined and written once per member: an idle gateway writes at once, a
loaded one less often and more.
"""

import asyncio
import os
from array import array
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Protocol

from gateway.delivery.counters import Counters
from gateway.delivery.encoded_message import EncodedMessage, Encoding
from gateway.delivery.fd_table import FdRef, direct_generation

DIRECT_WRITE_MIN_MEMBERS = 16  # a room is large from this number of members on


class Member(Protocol):
    """A receiver: a WebSocket connection or an SSE stream.

    `write` never blocks and never raises: a slow member handles that itself (ADR 0004).
    """

    connection_id: str
    user_id: str
    encoding: Encoding
    write: Callable[[bytes], None]
    # What the counting fan-outs of which it is a member sent before it joined, less what it got of those it has left.
    sent_before: int

    @property
    def fd_ref(self) -> FdRef:
        """The socket for direct writes (`gateway.delivery.fd_table`), or NO_FD."""

    @property
    def backlog(self) -> int:
        """Bytes written but not sent yet."""

    @property
    def accept_messages(self) -> Callable[[list[EncodedMessage]], bool] | None:
        """None for members that share bytes; else it handles single messages, or returns False to get bytes."""


@dataclass(frozen=True, slots=True)
class _FdTable:
    """Members of a large room with one encoding, and their descriptors, side by side."""

    encoding: Encoding
    members: list[Member]
    descriptors: "array[int]"  # quoted: Python 3.11 cannot subscript it
    generations: bytes


def _fd_tables_of(members: Iterable[Member]) -> list[_FdTable]:
    by_encoding: dict[Encoding, list[Member]] = {}
    for member in members:
        by_encoding.setdefault(member.encoding, []).append(member)
    return [
        _FdTable(
            encoding,
            row,
            array("i", [member.fd_ref[0] for member in row]),
            bytes([member.fd_ref[1] for member in row]),
        )
        for encoding, row in by_encoding.items()
    ]


class Fanout:
    """A set of members and the messages queued for them."""

    __slots__ = (
        "_counters", "_counts", "_fd_tables", "_flush_due", "_members", "_pending", "_skips", "sent",
    )  # fmt: skip

    def __init__(self, counters: Counters, *, counts: bool = False) -> None:
        self._counters = counters
        # With `counts`, the messages of a member are `sent` less its `sent_before`: nothing is counted for each.
        self._counts = counts
        self.sent = 0
        self._members: dict[str, Member] = {}
        # Lists are made when a message is sent: most inboxes never have one.
        self._pending: list[EncodedMessage] | None = None
        # (index in _pending, connection id): members that do not get a message.
        self._skips: list[tuple[int, str]] | None = None
        self._fd_tables: list[_FdTable] | None = None  # of a large room, until a member joins or leaves
        self._flush_due = False

    def __len__(self) -> int:
        return len(self._members)

    def __iter__(self) -> Iterator[Member]:
        return iter(self._members.values())

    def __contains__(self, connection_id: str) -> bool:
        return connection_id in self._members

    def add(self, member: Member) -> None:
        """Add a member; it receives only later messages."""
        if self._pending:
            self.flush()
        if self._counts and member.connection_id not in self._members:
            member.sent_before += self.sent
        self._members[member.connection_id] = member
        self._fd_tables = None

    def discard(self, connection_id: str) -> None:
        """Remove a member, if there; earlier messages still reach it."""
        if self._pending:
            self.flush()
        member = self._members.pop(connection_id, None)
        if self._counts and member is not None:
            member.sent_before -= self.sent
        self._fd_tables = None

    def send(self, message: EncodedMessage, skip: str = "", sender: str | None = "") -> None:
        """Queue a message for every member but the connection `skip`, if that is one of the user `sender`.

        A user over HTTP names the connection, and must not exclude one of another user. If `sender` is
        None it may be of any user: a server named it.
        """
        if not self._members:
            return
        if self._pending is None:
            self._pending = []
        if (
            skip
            and (member := self._members.get(skip)) is not None
            and (sender is None or member.user_id == sender)
        ):
            self._add_skip(skip)
        self._pending.append(message)
        if not self._flush_due:
            self._flush_due = True
            asyncio.get_running_loop().call_soon(self.flush)

    def send_except_user(self, message: EncodedMessage, user_id: str) -> None:
        """Queue a message for every member but the connections of one user."""
        for member in self:
            if member.user_id == user_id:
                self._add_skip(member.connection_id)
        self.send(message)

    def _add_skip(self, connection_id: str) -> None:
        if self._skips is None:
            self._skips = []
        self._skips.append((len(self._pending or ()), connection_id))
        if self._counts:
            self._members[connection_id].sent_before += 1

    def flush(self) -> None:
        """Write the queued messages, with one write per member."""
        self._flush_due = False
        pending, skips = self._pending, self._skips
        if not pending:
            self._skips = None
            return
        self._pending = self._skips = None
        self.sent += len(pending)
        exceptions = self._without_skipped(pending, skips) if skips else {}
        shared: dict[Encoding, bytes] = {}
        if len(self._members) >= DIRECT_WRITE_MIN_MEMBERS:
            sent_bytes = self._write_many(pending, exceptions, shared)
        else:
            sent_bytes = 0
            # A failed write may discard its member: iterate over a copy.
            for member in list(self._members.values()):
                if exceptions or member.accept_messages is not None:
                    sent_bytes += self._write(member, pending, exceptions, shared)
                    continue
                data = shared.get(member.encoding)
                if data is None:
                    encoded = [message.encode(member.encoding) for message in pending]
                    data = shared[member.encoding] = b"".join(encoded)
                member.write(data)
                sent_bytes += len(data)
        self._counters.messages_out += len(self._members) * len(pending) - len(skips or ())
        self._counters.bytes_out += sent_bytes

    def _write(
        self,
        member: Member,
        pending: list[EncodedMessage],
        exceptions: dict[str, list[EncodedMessage]],
        shared: dict[Encoding, bytes],
    ) -> int:
        """Write to one member, its own messages if it does not get all; return the bytes written."""
        own = exceptions.get(member.connection_id) if exceptions else None
        messages = pending if own is None else own
        if not messages or (member.accept_messages is not None and member.accept_messages(messages)):
            return 0
        data = shared.get(member.encoding) if own is None else None
        if data is None:
            data = b"".join([message.encode(member.encoding) for message in messages])
            if own is None:
                shared[member.encoding] = data
        member.write(data)
        return len(data)

    def _write_many(
        self,
        pending: list[EncodedMessage],
        exceptions: dict[str, list[EncodedMessage]],
        shared: dict[Encoding, bytes],
    ) -> int:
        """Write to a large room, directly to sockets whose transports buffer nothing; return the bytes written."""
        if self._fd_tables is None:
            self._fd_tables = _fd_tables_of(self._members.values())
        for connection_id in exceptions:
            direct_generation[self._members[connection_id].fd_ref[0]] = 0
        write, sent_bytes = os.write, 0
        for row in list(self._fd_tables):
            data = shared.get(row.encoding)
            if data is None:
                data = shared[row.encoding] = b"".join([message.encode(row.encoding) for message in pending])
            size, others = len(data), 0
            # No call per member: see `gateway.delivery.fd_table`.
            for index, descriptor, generation in zip(
                range(len(row.members)), row.descriptors, row.generations, strict=True
            ):
                if direct_generation[descriptor] != generation:
                    others += 1
                    sent_bytes += self._write(row.members[index], pending, exceptions, shared)
                    continue
                try:
                    sent = write(descriptor, data)
                except OSError:
                    sent = 0  # the kernel's buffer is full, or the peer is gone: the transport handles both
                if sent != size:
                    direct_generation[descriptor] = 0
                    row.members[index].write(data[sent:])
            sent_bytes += size * (len(row.members) - others)
        return sent_bytes

    @staticmethod
    def _without_skipped(
        pending: list[EncodedMessage], skips: list[tuple[int, str]]
    ) -> dict[str, list[EncodedMessage]]:
        """Return, for each member that skips some, the remaining messages."""
        skipped: dict[str, set[int]] = {}
        for index, connection_id in skips:
            skipped.setdefault(connection_id, set()).add(index)
        return {
            connection_id: [message for index, message in enumerate(pending) if index not in indices]
            for connection_id, indices in skipped.items()
        }
