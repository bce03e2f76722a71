"""A WebSocket client that joins rooms and then reads nothing any more."""

import json
import os
import socket
import struct
from collections.abc import Sequence
from typing import Self

from tests.support.deadline import PATIENCE_S

_HANDSHAKE = (
    b"GET /ws?username=stalled HTTP/1.1\r\nhost: 127.0.0.1\r\nconnection: upgrade\r\nupgrade: websocket\r\n"
    b"sec-websocket-version: 13\r\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
)


class StalledClient:
    """Connected, a member of its rooms, and deaf. A context manager."""

    def __init__(self, port: int, rooms: Sequence[str], *, receive_buffer: int = 16_384) -> None:
        self._socket = self.connected(port, receive_buffer)
        self._socket.settimeout(PATIENCE_S)
        self._socket.sendall(_HANDSHAKE)
        self._read_until(b"\r\n\r\n")
        for room in rooms:
            self._send({"type": "join_room", "room": room, "id": "in"})
            self._read_until(b'"joined_room"')

    @staticmethod
    def connected(port: int, receive_buffer: int = 16_384) -> socket.socket:
        """Return a connected socket that takes little; the size holds only if set before connecting (tcp(7))."""
        client = socket.socket()
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        client.connect(("127.0.0.1", port))
        return client

    def _send(self, message: dict[str, object]) -> None:
        payload = json.dumps(message).encode()
        mask = os.urandom(4)
        masked = bytes(byte ^ mask[index % 4] for index, byte in enumerate(payload))
        assert len(payload) < 126
        self._socket.sendall(struct.pack("!BB", 0x81, 0x80 | len(payload)) + mask + masked)

    def _read_until(self, end: bytes) -> None:
        seen = b""
        while end not in seen:
            chunk = self._socket.recv(4096)
            assert chunk, f"the connection ended: {seen!r}"
            seen += chunk

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.close()
