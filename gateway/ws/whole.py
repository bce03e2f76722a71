"""The ordinary case of RFC 6455, taken apart without the sans-IO core: whole, masked, unfragmented messages.

Nearly everything that clients send is that, and the core spends most of a small message's time on the cases that it is not.
Whatever else stands in the bytes (control frames, fragments, reserved bits, a frame cut in two) is the core's.
"""

try:
    from websockets.speedups import apply_mask
except ImportError:  # a platform without the compiled part
    from websockets.utils import apply_mask

_TEXT = 0x81  # FIN and opcode 1 (RFC 6455 §5.2)
_BINARY = 0x82
_MASKED = 0x80
_SHORTEST = 6  # two bytes and the mask


def whole_messages(data: bytes, max_bytes: int) -> tuple[list[tuple[bytes, bool]], int]:
    """Return the whole messages at the beginning of `data`, as (payload, binary), and where what follows begins.

    `data` begins where a frame begins. Ends before the first frame that is not ordinary, or over `max_bytes`.
    """
    found: list[tuple[bytes, bool]] = []
    at, end = 0, len(data)
    while end - at >= _SHORTEST:
        first, length = data[at], data[at + 1]
        if first not in (_TEXT, _BINARY) or not length & _MASKED:
            break
        length &= ~_MASKED
        mask = at + 2
        if length == 126:
            mask = at + 4
            length = data[at + 2] << 8 | data[at + 3]
            if length < 126:
                break  # not the shortest form: the core decides
        elif length == 127:
            break  # over 65,535 bytes
        payload = mask + 4
        if length > max_bytes or payload + length > end:
            break
        found.append((apply_mask(data[payload : payload + length], data[mask:payload]), first == _BINARY))
        at = payload + length
    return found, at
