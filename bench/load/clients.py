"""Many clients on one epoll loop."""

import select
import socket
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from bench.load.dialects import MARK, Dialect, Place, open_socket
from bench.load.frames import FrameCounter, inflated

_CHUNK = 1 << 20
_CONNECT_S = 240.0  # for all of them: ten thousand on a busy machine

OnData = Callable[[int, memoryview, int], None]


class LoadError(RuntimeError):
    """The server did not do what the load waits for."""


@dataclass
class _Arrival:
    """A client that is connecting."""

    number: int
    received: bytes = b""
    before: bytes = b""  # bytes received before its join request
    joining: bool = False


class Clients:
    """Connected clients, polled together. They are spread over the ports in turn."""

    def __init__(self, dialect: Dialect, *ports: int) -> None:
        self.dialect = dialect
        self.ports = ports
        self.sockets: dict[int, socket.socket] = {}
        self._poll = select.epoll()
        self._buffer = bytearray(_CHUNK)
        self._view = memoryview(self._buffer)
        self._frames: FrameCounter | None = None
        self._arriving: dict[int, _Arrival] = {}

    def __len__(self) -> int:
        return len(self.sockets)

    def __enter__(self) -> "Clients":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close all connections."""
        for sock in self.sockets.values():
            sock.close()
        self.sockets.clear()
        self._poll.close()

    def connect(
        self,
        count: int,
        room_of: Callable[[int], str],
        *,
        dialect: Dialect | None = None,
        window: int = 64,
        places: Sequence[Place] = (),
        heard: list[bytes] | None = None,
        receive_buffer: int = 0,
    ) -> list[int]:
        """Connect `count` clients that join their rooms, `window` at a time. Return their file descriptors, in order.

        `dialect` replaces that of the other clients. `places` are the users and positions of earlier clients. `heard`
        gets the bytes that each client received before it had joined.

        Raises:
            LoadError: the server refused, or took too long.
        """
        dialect = dialect or self.dialect
        order: list[int] = []
        arriving = self._arriving
        done = 0
        deadline = time.monotonic() + _CONNECT_S
        if heard is not None:
            heard.extend([b""] * count)
        while done < count:
            while len(order) < count and len(order) - done < window:
                number = len(order)
                place = places[number] if places else None
                request = dialect.request(self._port(number), number, room_of(number), place)
                fd = self._begin(self._port(number), request, receive_buffer)
                arriving[fd] = _Arrival(number)
                order.append(fd)
            for fd, _ in self._poll.poll(1.0):
                data = self._read(fd)
                arrival = arriving.get(fd)
                if arrival is None:
                    self._keep_alive(fd, data)
                    continue
                arrival.received += data
                place = places[arrival.number] if places else None
                if self._advance(dialect, fd, arrival, room_of(arrival.number), place):
                    done += 1
                    if heard is not None:
                        heard[arrival.number] = arrival.before + arrival.received
                    del arriving[fd]
            if time.monotonic() > deadline:
                raise LoadError(f"only {done} of {count} clients connected in {_CONNECT_S:.0f} s")
        return order

    def _port(self, number: int) -> int:
        return self.ports[number % len(self.ports)]

    def _begin(self, port: int, request: bytes, receive_buffer: int) -> int:
        sock = open_socket(port, receive_buffer)
        sock.sendall(request)
        sock.setblocking(False)
        fd = sock.fileno()
        self.sockets[fd] = sock
        self._poll.register(fd, select.EPOLLIN)
        return fd

    def _advance(self, dialect: Dialect, fd: int, arrival: _Arrival, room: str, place: Place | None) -> bool:
        """Take the next step of connecting. Returns True after the last one."""
        received = inflated(arrival.received) if dialect.by_frames else arrival.received
        if arrival.joining:
            return dialect.joined(received)
        answer = dialect.connected(received)
        if answer is None:
            return False
        if not answer:
            answer = dialect.join(room, place)
            if not answer:
                return True
            arrival.joining = True
            arrival.before, arrival.received = arrival.received, b""
        self.sockets[fd].sendall(answer)
        return False

    def forget(self, fd: int) -> socket.socket:
        """Stop polling a client and hand its socket over."""
        self._poll.unregister(fd)
        return self.sockets.pop(fd)

    def send(self, fd: int, data: bytes) -> None:
        """Send all bytes; blocks until the kernel has accepted them."""
        sock = self.sockets[fd]
        sock.setblocking(True)
        sock.sendall(data)
        sock.setblocking(False)

    def poll(self, timeout_s: float, on_data: OnData) -> int:
        """Read available bytes, call `on_data` (fd, bytes, messages in them), and return the number of messages read."""
        total = 0
        buffer, view, frames, sockets = self._buffer, self._view, self._frames, self.sockets
        for fd, _ in self._poll.poll(timeout_s):
            try:
                size = sockets[fd].recv_into(buffer)
            except BlockingIOError:
                continue
            except ConnectionError as fault:
                raise LoadError(f"the server closed a connection: {fault}") from fault
            if size == 0:
                raise LoadError("the server closed a connection")
            marks = buffer.count(MARK, 0, size) if frames is None else frames.count(fd, view[:size])
            total += marks
            if size < 64:
                self._keep_alive(fd, bytes(view[:size]))
            on_data(fd, view[:size], marks)
        return total

    def drain(self, quiet_s: float = 0.5) -> int:
        """Read until no message has arrived for `quiet_s`. Return the number of messages read."""
        total = 0
        last = time.monotonic()

        def on_data(_fd: int, _data: memoryview, _marks: int) -> None:
            nonlocal last
            last = time.monotonic()

        patience = last + 5.0  # some servers never stop sending
        while time.monotonic() - last < quiet_s and time.monotonic() < patience:
            total += self.poll(0.05, on_data)
        if self.dialect.by_frames and self._frames is None:
            self._frames = FrameCounter()  # while nothing arrives, because then the next byte begins a frame
        return total

    def settle(self, on_data: OnData, complete: Callable[[], bool], *, patience_s: float = 20.0) -> None:
        """Read until all expected messages have arrived, no message for 2 s, or the time limit ends."""
        quiet = end = time.monotonic()
        end += patience_s
        while not complete() and time.monotonic() < end and time.monotonic() - quiet < 2.0:
            if self.poll(0.05, on_data):
                quiet = time.monotonic()

    def _keep_alive(self, fd: int, data: bytes) -> None:
        if answer := self.dialect.answer(data):
            self.sockets[fd].sendall(answer)

    def _read(self, fd: int) -> bytes:
        try:
            data = self.sockets[fd].recv(_CHUNK)
        except BlockingIOError:
            return b""
        if not data:
            heard = self._arriving[fd].received[-200:] if fd in self._arriving else b""
            raise LoadError(f"the server closed a connection while clients connected; it had said {heard!r}")
        return data
