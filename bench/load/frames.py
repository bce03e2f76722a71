"""Counting messages by WebSocket frames, where their bytes are compressed or binary."""

import zlib

# Answers and pings are shorter than this, and every message of the cases longer.
_LEAST_BYTES = 100
_CONTROL = 0x08  # the opcode's bit of control frames (RFC 6455 §5.2)
_RSV1 = 0x40  # this message is compressed (RFC 7692 §6)


class FrameCounter:
    """Parses the frames of many connections incrementally."""

    def __init__(self) -> None:
        self._open: dict[
            int, tuple[int, bytes]
        ] = {}  # by connection: payload bytes to skip, and an incomplete head

    def count(self, fd: int, data: memoryview) -> int:
        """Return how many messages begin in the next bytes of a connection."""
        skip, begun = self._open.get(fd, (0, b""))
        if begun:
            data = memoryview(begun + bytes(data))
        size = len(data)
        at = skip
        found = 0
        while (sizes := _sizes(data, at)) is not None:
            head, length = sizes
            if length >= _LEAST_BYTES and not data[at] & _CONTROL:
                found += 1
            at += head + length
        self._open[fd] = (at - size, b"") if at >= size else (0, bytes(data[at:]))
        return found


def _sizes(data: memoryview | bytes, at: int) -> tuple[int, int] | None:
    """Return the bytes of head and payload of the server's frame that begins there, if its head is complete."""
    if at + 2 > len(data):
        return None
    short = data[at + 1] & 0x7F
    head = 2 if short < 126 else 4 if short == 126 else 10
    if at + head > len(data):
        return None
    return head, short if head == 2 else int.from_bytes(data[at + 2 : at + head], "big")


def inflated(received: bytes) -> bytes:
    """Return an HTTP head, if one begins there, and the payloads of the frames, compressed ones inflated.

    Each message must be compressed without the context of earlier ones (RFC 7692 §7.1.1.1).
    """
    head, found, frames = (
        received.partition(b"\r\n\r\n") if received.startswith(b"HTTP/") else (b"", b"", received)
    )
    if head and not found:
        return received
    parts = [head, found]
    at = 0
    while (sizes := _sizes(frames, at)) is not None and at + sum(sizes) <= len(frames):
        payload = frames[at + sizes[0] : at + sum(sizes)]
        compressed = frames[at] & _RSV1
        parts.append(
            zlib.decompressobj(-zlib.MAX_WBITS).decompress(payload + b"\0\0\xff\xff")
            if compressed
            else payload
        )
        at += sum(sizes)
    return b"".join(parts)
