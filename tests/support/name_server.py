"""A name server for one name whose addresses a test can change: the part of RFC 1035 for A records."""

import socket
import struct
import threading
from collections.abc import Sequence
from typing import Self

_A, _IN = 1, 1
_ANSWER, _NAME_ERROR = 0x8580, 0x8583  # authoritative answers (RFC 1035 §4.1.1)


class NameServer:
    """Answers on a free UDP port of loopback. A context manager."""

    def __init__(self, name: str, addresses: Sequence[str]) -> None:
        self.name = name
        self.addresses = list(addresses)
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._socket.bind(("127.0.0.1", 0))
        self._thread = threading.Thread(target=self._serve, daemon=True)

    @property
    def address(self) -> str:
        """Where it answers."""
        host, port = self._socket.getsockname()
        return f"{host}:{port}"

    def _serve(self) -> None:
        while True:
            query, asker = self._socket.recvfrom(4096)
            if not query:
                return
            self._socket.sendto(self._answer(query), asker)

    def _answer(self, query: bytes) -> bytes:
        labels, at = [], 12
        while length := query[at]:
            labels.append(query[at + 1 : at + 1 + length].decode())
            at += 1 + length
        question = query[12 : at + 5]
        kind = struct.unpack("!H", query[at + 1 : at + 3])[0]
        known = ".".join(labels).lower() == self.name
        found = self.addresses if known and kind == _A else []
        head = struct.pack("!2s5H", query[:2], _ANSWER if known else _NAME_ERROR, 1, len(found), 0, 0)
        # Each record names the question's name by its place in the message (§4.1.4).
        records = [struct.pack("!HHHIH4s", 0xC00C, _A, _IN, 1, 4, socket.inet_aton(one)) for one in found]
        return head + question + b"".join(records)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.sendto(b"", self._socket.getsockname())
        self._thread.join(5)
        self._socket.close()
