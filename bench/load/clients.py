"""Many clients on one epoll loop."""

import select
import socket
import time
from collections.abc import Callable

from bench.load.dialects import MARK, Dialect, open_socket

_CHUNK = 1 << 20


class LoadError(RuntimeError):
    """The server did not do what the load waits for."""


class Clients:
    """Connected clients, polled together."""

    def __init__(self, dialect: Dialect, port: int) -> None:
        self.dialect = dialect
        self.port = port
        self.sockets: dict[int, socket.socket] = {}
        self._poll = select.epoll()
        self._buffer = bytearray(_CHUNK)
        self._view = memoryview(self._buffer)

    def __len__(self) -> int:
        return len(self.sockets)

    def close(self) -> None:
        """Close all connections."""
        for sock in self.sockets.values():
            sock.close()
        self.sockets.clear()
        self._poll.close()

    def connect(self, count: int, room_of: Callable[[int], str | None], window: int = 64) -> list[int]:
        """Connect `count` clients and let each join its room, `window` of them under way at a time.

        Return their file descriptors, in order.

        Raises:
            LoadError: the server refused, or took more than a minute.
        """
        order: list[int] = []
        stage: dict[int, bytes] = {}
        started = 0
        done = 0
        deadline = time.monotonic() + 60
        number_of: dict[int, int] = {}
        waiting_join: set[int] = set()
        while done < count:
            while started < count and started - done < window:
                sock = open_socket(self.port)
                sock.sendall(self.dialect.request(self.port, started))
                sock.setblocking(False)
                fd = sock.fileno()
                self.sockets[fd] = sock
                number_of[fd] = started
                stage[fd] = b""
                order.append(fd)
                self._poll.register(fd, select.EPOLLIN)
                started += 1
            for fd, _ in self._poll.poll(1.0):
                data = self._read(fd)
                if fd not in stage:
                    continue
                received = stage[fd] = stage[fd] + data
                if fd in waiting_join:
                    if self.dialect.joined(received):
                        del stage[fd]
                        waiting_join.discard(fd)
                        done += 1
                    continue
                answer = self.dialect.connected(received)
                if answer:
                    self.sockets[fd].sendall(answer)
                elif answer is not None:
                    room = room_of(number_of[fd])
                    if room is None:
                        del stage[fd]
                        done += 1
                    else:
                        stage[fd] = b""
                        waiting_join.add(fd)
                        self.sockets[fd].sendall(self.dialect.join(room))
            if time.monotonic() > deadline:
                raise LoadError(f"only {done} of {count} clients connected in a minute")
        return order

    def forget(self, fd: int) -> socket.socket:
        """Stop polling a client and hand its socket over."""
        self._poll.unregister(fd)
        return self.sockets.pop(fd)

    def poll(self, timeout_s: float, on_data: Callable[[int, memoryview, int], None]) -> int:
        """Read what there is; tell `on_data` (fd, bytes, marked messages in them); return the messages read."""
        total = 0
        buffer, view = self._buffer, self._view
        for fd, _ in self._poll.poll(timeout_s):
            try:
                size = self.sockets[fd].recv_into(buffer)
            except BlockingIOError:
                continue
            except ConnectionError as fault:
                raise LoadError(f"the server closed a connection: {fault}") from fault
            if size == 0:
                raise LoadError("the server closed a connection")
            marks = buffer.count(MARK, 0, size)
            total += marks
            if size < 64 and (answer := self.dialect.answer(bytes(view[:size]))):
                self.sockets[fd].sendall(answer)
            on_data(fd, view[:size], marks)
        return total

    def drain(self, quiet_s: float = 0.3) -> int:
        """Read until nothing came for `quiet_s`; return the messages read."""
        total = 0
        last = time.monotonic()
        while time.monotonic() - last < quiet_s:
            found = self.poll(0.05, lambda _fd, _data, _marks: None)
            if found:
                total += found
                last = time.monotonic()
        return total

    def _read(self, fd: int) -> bytes:
        try:
            data = self.sockets[fd].recv(_CHUNK)
        except BlockingIOError:
            return b""
        if not data:
            raise LoadError("the server closed a connection while clients connected")
        return data
