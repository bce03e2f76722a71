"""The dialect of each peer's clients: connect, join a room, publish to it."""

import json
import socket
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Protocol, Self

import msgspec

from bench.load.contents import MARK, content

__all__ = ["MARK", "Dialect", "MessagePackRooms", "Place", "Rooms", "SocketIo", "Streams", "content", "frame"]

# Without context takeover for all peers, though some keep a window by default: with it, clients cannot share a frame, and
# each connection costs about 100 KiB more.
_DEFLATE = (
    "Sec-WebSocket-Extensions: permessage-deflate; server_no_context_takeover; client_no_context_takeover\r\n"
)
_MSGPACK = "Sec-WebSocket-Protocol: tidings.v1.msgpack\r\n"


@dataclass(frozen=True, slots=True)
class Place:
    """The state of an earlier client: its user and last position."""

    session: str
    epoch: str = ""
    seq: int = 0


class Dialect(Protocol):
    """One protocol over one connection."""

    @property
    def by_frames(self) -> bool:
        """Whether deliveries are counted by WebSocket frames, because their bytes are not plain text."""

    def request(self, port: int, number: int, room: str, place: Place | None = None) -> bytes:
        """Return the upgrade request, or the request of the stream."""

    def connected(self, received: bytes) -> bytes | None:
        """Return the bytes to send next while connecting (b"": done), or None to read on."""

    def join(self, room: str, place: Place | None = None) -> bytes:
        """Return the join request, or nothing if connecting has joined already."""

    def joined(self, received: bytes) -> bool:
        """Return whether the answer to `join` is complete."""

    def publish(self, room: str, text: str) -> bytes:
        """Return a message to a room."""

    def answer(self, received: bytes) -> bytes:
        """Return the pong, if the server just sent a ping."""

    def compressed(self) -> "Dialect":
        """Return the same, asking for permessage-deflate."""


def frame(payload: bytes, opcode: int = 0x81) -> bytes:
    """Return a client frame, masked with zeros (RFC 6455 §5.3 asks for a mask, not for a good one)."""
    size = len(payload)
    head = bytes((opcode, 0x80 | size)) if size < 126 else bytes((opcode, 0xFE)) + size.to_bytes(2, "big")
    return head + b"\0\0\0\0" + payload


def _get(path: str, port: int, headers: str = "") -> bytes:
    return f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\n{headers}\r\n".encode()


def _upgrade(path: str, port: int, extra: str = "") -> bytes:
    headers = (
        "Upgrade: websocket\r\nConnection: Upgrade\r\n"
        "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n"
    )
    return _get(path, port, headers + extra)


def _compact(value: object) -> bytes:
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False).encode()


@dataclass(frozen=True, slots=True)
class Rooms:
    """Tidings' own protocol, which the plain peers use too."""

    headers: str = ""
    by_frames: bool = False

    def request(self, port: int, number: int, room: str, place: Place | None = None) -> bytes:  # noqa: ARG002
        session = f"&session={place.session}" if place else ""
        return _upgrade(f"/ws?username=bench{number}{session}", port, self.headers)

    def connected(self, received: bytes) -> bytes | None:
        return b"" if b"welcome" in received else None

    def join(self, room: str, place: Place | None = None) -> bytes:
        since = {"since": {"epoch": place.epoch, "seq": place.seq}} if place and place.epoch else {}
        return self._said({"type": "join_room", "room": room, **since})

    def joined(self, received: bytes) -> bool:
        return b"joined_room" in received

    def publish(self, room: str, text: str) -> bytes:
        return self._said({"type": "room_message", "room": room, "content": text})

    def answer(self, received: bytes) -> bytes:
        # A server ping is 89 00; a pong with no payload, masked, answers it.
        return b"\x8a\x80\0\0\0\0" if received.endswith(b"\x89\x00") else b""

    def compressed(self) -> Self:
        return replace(self, headers=self.headers + _DEFLATE, by_frames=True)

    def _said(self, message: dict[str, object]) -> bytes:
        return frame(_compact(message))


@dataclass(frozen=True, slots=True)
class MessagePackRooms(Rooms):
    """Tidings' own protocol in MessagePack."""

    headers: str = _MSGPACK
    by_frames: bool = True  # a MessagePack number may hold any byte, the mark too

    def _said(self, message: dict[str, object]) -> bytes:
        return frame(msgspec.msgpack.encode(message), 0x82)


@dataclass(frozen=True, slots=True)
class SocketIo:
    """Socket.IO 4 over Engine.IO 4, WebSocket only."""

    headers: str = ""
    by_frames: bool = False

    def request(self, port: int, number: int, room: str, place: Place | None = None) -> bytes:  # noqa: ARG002
        return _upgrade("/socket.io/?EIO=4&transport=websocket", port, self.headers)

    def connected(self, received: bytes) -> bytes | None:
        if b'"welcome"' in received:
            return b""
        if b"pingInterval" in received and b"40{" not in received:
            return frame(b"40")
        return None

    def join(self, room: str, place: Place | None = None) -> bytes:  # noqa: ARG002
        return frame(b"42" + _compact(["join_room", {"room": room}]))

    def joined(self, received: bytes) -> bool:
        return b'"joined_room"' in received

    def publish(self, room: str, text: str) -> bytes:
        return frame(b"42" + _compact(["room_message", {"room": room, "content": text}]))

    def answer(self, received: bytes) -> bytes:
        return frame(b"3") if received.endswith(b"\x81\x012") else b""

    def compressed(self) -> Self:
        return replace(self, headers=self.headers + _DEFLATE, by_frames=True)


@dataclass(frozen=True, slots=True)
class Streams:
    """Server-Sent Events of one room. They only receive: a WebSocket client publishes."""

    by_frames: bool = field(default=False, init=False)

    def request(self, port: int, number: int, room: str, place: Place | None = None) -> bytes:  # noqa: ARG002
        return _get(f"/events?rooms={room}", port, "Accept: text/event-stream\r\n")

    def connected(self, received: bytes) -> bytes | None:
        return b"" if b"event: joined_room" in received else None

    def join(self, room: str, place: Place | None = None) -> bytes:  # noqa: ARG002
        return b""

    def joined(self, received: bytes) -> bool:  # noqa: ARG002
        return True

    def publish(self, room: str, text: str) -> bytes:  # noqa: ARG002
        raise TypeError("a stream cannot publish")

    def answer(self, received: bytes) -> bytes:  # noqa: ARG002
        return b""

    def compressed(self) -> Self:
        return self


def places(received: Sequence[bytes]) -> list[Place]:
    """Return the state of each client, from the bytes that it received while joining (`welcome` and `joined_room`)."""
    return [_place(data) for data in received]


def _place(received: bytes) -> Place:
    session = _string_after(received, b'"session":"')
    _, _, rest = received.partition(b'"joined_room"')
    epoch = _string_after(rest, b'"epoch":"')
    if not epoch:
        return Place(session)
    number = rest.partition(b'"seq":')[2]
    digits = number[: len(number) - len(number.lstrip(b"0123456789"))]
    return Place(session, epoch, int(digits or 0))


def _string_after(data: bytes, key: bytes) -> str:
    _, found, rest = data.partition(key)
    return rest.partition(b'"')[0].decode() if found else ""


def open_socket(port: int, receive_buffer: int = 0) -> socket.socket:
    """Return a connected socket. A buffer's size holds only if it is set before connecting (tcp(7))."""
    # Not `create_connection`, which calls the resolver each time: with ten thousand clients that counts.
    sock = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    if receive_buffer:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
    sock.settimeout(30)
    sock.connect(("127.0.0.1", port))
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return sock
