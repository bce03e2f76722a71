"""The ordinary cases of RFC 6455, taken apart without the sans-IO core: whole, masked frames that close nothing.

Nearly everything that clients send is that, and the core spends most of a small message's time on the cases that it is not.
Whatever else stands in the bytes (fragments, a close, reserved bits, a frame cut in two) is the core's.
"""

try:
    from websockets.speedups import apply_mask as apply_mask
except ImportError:  # a platform without the compiled part
    from websockets.utils import apply_mask as apply_mask

# FIN and the opcode (RFC 6455 §5.2)
TEXT = 0x81
BINARY = 0x82
PING = 0x89
PONG = 0x8A

_MASKED = 0x80
_SHORTEST = 6  # two bytes and the mask


def parse_complete_frames(data: bytes, max_bytes: int) -> tuple[list[tuple[int, bytes]], int]:
    """Return the whole frames at the beginning of `data`, as (first byte, payload), and where what follows begins.

    `data` begins where a frame begins. Ends before the first frame that is not ordinary, or over `max_bytes`.
    """
    found: list[tuple[int, bytes]] = []
    at, end = 0, len(data)
    while end - at >= _SHORTEST:
        first, length = data[at], data[at + 1]
        if first not in (TEXT, BINARY, PONG, PING) or not length & _MASKED:
            break
        length &= ~_MASKED
        mask = at + 2
        if length >= 126:
            if length == 127 or first >= PING:
                break  # over 65,535 bytes, or a control frame that is too long
            mask = at + 4
            length = data[at + 2] << 8 | data[at + 3]
            if length < 126:
                break  # not the shortest form: the core decides
        payload = mask + 4
        if length > max_bytes or payload + length > end:
            break
        found.append((first, apply_mask(data[payload : payload + length], data[mask:payload])))
        at = payload + length
    return found, at
