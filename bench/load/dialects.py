"""How a client of each peer says the same three things: connect, join a room, publish to it."""

import json
import socket
from dataclasses import dataclass
from typing import Protocol

# Once in every room message and nowhere else in what a server sends: DEL needs no escape in JSON, no frame of ours has
# it as a length byte, and no server here uses it.
MARK = b"\x7f"


def content(size: int = 80) -> str:
    """Return what every message of the fan-out cases carries: frames of about 220 bytes."""
    return MARK.decode() + "0" * size


class Dialect(Protocol):
    """One protocol over WebSocket."""

    name: str

    def request(self, port: int, number: int) -> bytes:
        """Return the upgrade request."""

    def connected(self, received: bytes) -> bytes | None:
        """Return what to send next during connecting (b"": nothing, done), or None to read on."""

    def join(self, room: str) -> bytes: ...

    def joined(self, received: bytes) -> bool: ...

    def publish(self, room: str, text: str, id: str = "") -> bytes: ...

    def answer(self, received: bytes) -> bytes:
        """Return what keeps the connection alive, if the server just asked."""


def frame(payload: bytes, opcode: int = 0x81) -> bytes:
    """Return a client frame, masked with zeros (RFC 6455 §5.3 asks for a mask, not for a good one)."""
    size = len(payload)
    head = bytes((opcode, 0x80 | size)) if size < 126 else bytes((opcode, 0xFE)) + size.to_bytes(2, "big")
    return head + b"\0\0\0\0" + payload


def _upgrade(path: str, port: int, extra: str = "") -> bytes:
    return (
        f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        f"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n{extra}\r\n"
    ).encode()


def _compact(value: object) -> bytes:
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False).encode()


@dataclass(frozen=True, slots=True)
class Rooms:
    """Our messages, which the plain peers speak too."""

    name: str = "rooms"
    extra_headers: str = ""

    def request(self, port: int, number: int) -> bytes:
        return _upgrade(f"/ws?username=bench{number}", port, self.extra_headers)

    def connected(self, received: bytes) -> bytes | None:
        return b"" if b"welcome" in received else None

    def join(self, room: str) -> bytes:
        return frame(_compact({"type": "join_room", "room": room}))

    def joined(self, received: bytes) -> bool:
        return b"joined_room" in received

    def publish(self, room: str, text: str, id: str = "") -> bytes:
        message = {"type": "room_message", "room": room, "content": text}
        return frame(_compact(message | ({"id": id} if id else {})))

    def answer(self, received: bytes) -> bytes:
        # A server ping is 89 00; a pong with no payload, masked, answers it.
        return b"\x8a\x80\0\0\0\0" if received.endswith(b"\x89\x00") else b""


@dataclass(frozen=True, slots=True)
class SocketIo:
    """Socket.IO 4 over Engine.IO 4, WebSocket only."""

    name: str = "socket.io"

    def request(self, port: int, number: int) -> bytes:  # noqa: ARG002  # nothing personal in this path
        return _upgrade("/socket.io/?EIO=4&transport=websocket", port)

    def connected(self, received: bytes) -> bytes | None:
        if b'"welcome"' in received:
            return b""
        if b"pingInterval" in received and b"40{" not in received:
            return frame(b"40")
        return None

    def join(self, room: str) -> bytes:
        return frame(b"42" + _compact(["join_room", {"room": room}]))

    def joined(self, received: bytes) -> bool:
        return b'"joined_room"' in received

    def publish(self, room: str, text: str, id: str = "") -> bytes:
        return frame(b"42" + _compact(["room_message", {"room": room, "content": text, "id": id}]))

    def answer(self, received: bytes) -> bytes:
        return frame(b"3") if received.endswith(b"\x81\x012") else b""


def open_socket(port: int) -> socket.socket:
    """Return a connected socket."""
    sock = socket.create_connection(("127.0.0.1", port), timeout=30)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return sock
