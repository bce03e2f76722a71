"""The writing half of a WebSocket: freely, watched while the client is behind, not at all in the end (ADR 0004)."""

import asyncio
import os
from collections.abc import Callable
from typing import Protocol

from gateway.delivery.fd_table import NO_FD, acquire, direct_generation
from gateway.limits import Limit
from gateway.ws.context import ServerContext
from services.wire.codes import CloseCode

_CLOSE_GRACE_S = 5.0  # for the peer to answer a close frame, and for what is queued to leave


class Handler(Protocol):
    """Who receives a connection's messages. `write` is set by the link and takes whole frames."""

    write: Callable[[bytes], None]

    def on_message(self, data: bytes, binary: bool) -> None:
        """Take one complete message."""

    def on_slow(self) -> None:
        """Decide what becomes of a client with more bytes waiting than allowed: close the link."""

    def disconnect_frame(self, code: CloseCode) -> bytes:
        """Return the frames to send before the close frame, where the server closes."""

    def on_close(self, code: int, *, by_client: bool) -> None:
        """Learn, once, that the connection is gone; `code` is 1006 where no close frame came."""


def _discard(_data: bytes) -> None:
    """Take what is written to a connection that is closed or closing."""


class FrameWriter(asyncio.Protocol):
    """Writes to one client. `write` never blocks and never raises."""

    __slots__ = (
        "_close_timer",
        "_closing",
        "_context",
        "_handler",
        "_transport",
        "_write_limit",
        "_write_timer",
        "fd_ref",
        "write",
    )  # fmt: skip

    def __init__(self, context: ServerContext, transport: asyncio.Transport) -> None:
        self._context = context
        self._transport = transport
        self.fd_ref = NO_FD  # the socket, where it may be written to beside the transport
        self._handler: Handler | None = None
        self._closing = False
        self._close_timer: asyncio.TimerHandle | None = None
        self._write_timer: asyncio.TimerHandle | None = None
        self._write_limit = 0  # set while watched
        self.write: Callable[[bytes], None] = _discard

    @property
    def closing(self) -> bool:
        """Whether the connection is closed or about to be."""
        return self._closing

    @property
    def backlog(self) -> int:
        """Bytes that were written and have not left yet."""
        return self._transport.get_write_buffer_size()

    def write_soon(self, data: bytes) -> None:
        """Write together with whatever else this turn of the loop brings: answers come in bursts."""
        if self.write == self._free_writer:
            direct_generation[self.fd_ref[0]] = 0
            self._transport.write(data)
        else:
            self.write(data)

    def pause_writing(self) -> None:
        """Watch every write from here on: the client reads slower than we write (ADR 0004).

        The limit counts from what waits now: one large answer (a recovery) may exceed it by itself, and a client
        that is still reading it is not slow.
        """
        if not self._closing:
            settings = self._context.settings
            self._write_limit = self._transport.get_write_buffer_size() + settings.write_buffer_bytes
            self._set_writer(self._write_watched)
            if self._write_timer is None and settings.write_timeout_s:
                self._write_timer = self._context.loop.call_later(
                    settings.write_timeout_s, self._on_write_late
                )

    def resume_writing(self) -> None:
        """Write freely again: the client has caught up."""
        if self._write_timer is not None:
            self._write_timer.cancel()
            self._write_timer = None
        if not self._closing and self._handler is not None:
            self._set_writer(self._free_writer)

    def _begin_writing(self) -> None:
        """Write to the handler's client from here on."""
        sock = self._transport.get_extra_info("socket")
        if sock is not None and self._transport.get_extra_info("sslcontext") is None:
            self.fd_ref = acquire(sock.fileno())
        self._set_writer(self._free_writer)

    def _stop_writing(self) -> None:
        """Write nothing more (a closed transport raises, and one member must not stop a fan-out); end in time."""
        self._closing = True
        self._set_writer(_discard)
        if self._close_timer is None:
            self._close_timer = self._context.loop.call_later(_CLOSE_GRACE_S, self._transport.abort)

    def _stop_timers(self) -> None:
        for timer in (self._close_timer, self._write_timer):
            if timer is not None:
                timer.cancel()

    def _set_writer(self, write: Callable[[bytes], None]) -> None:
        # The handler has a copy: a fan-out calls it for every member, and a look-up through the link each time would
        # cost as much as the rest. This is the only place where either is set once the handler is there.
        direct_generation[self.fd_ref[0]] = 0
        self.write = write
        if self._handler is not None:
            self._handler.write = write

    @property
    def _free_writer(self) -> Callable[[bytes], None]:
        return self._transport.write if self.fd_ref is NO_FD else self._write_direct

    def _write_direct(self, data: bytes) -> None:
        """Write past the transport while it holds nothing back.

        The descriptor is the transport's own. It is closed after `connection_lost`, which ends our writing first, so
        it can never belong to somebody else.
        """
        transport, (descriptor, generation) = self._transport, self.fd_ref
        if not transport.get_write_buffer_size():
            try:
                sent = os.write(descriptor, data)
            except BlockingIOError:
                sent = 0  # the kernel takes no more: from here on the transport watches
            except OSError:
                sent = 0  # the peer is gone: the transport meets the same fault, and reports it
            if sent == len(data):
                direct_generation[descriptor] = generation
                return
            data = data[sent:]
        direct_generation[descriptor] = 0
        transport.write(data)

    def _write_watched(self, data: bytes) -> None:
        """Write while the client is behind; past the limit it is sent away, and nobody else waits for it."""
        transport = self._transport
        waiting = transport.get_write_buffer_size() + len(data)
        if waiting <= self._write_limit:
            transport.write(data)
        elif self._handler is not None:
            self._context.on_limit(Limit.WRITE_BYTES)
            self._handler.on_slow()

    def _on_write_late(self) -> None:
        """Send a client away that has been behind for too long, however little it is behind."""
        self._write_timer = None
        if not self._closing and self._handler is not None:
            self._context.on_limit(Limit.WRITE_TIME)
            self._handler.on_slow()
