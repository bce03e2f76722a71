"""Names of rooms and users, and their one spelling as a bus token; names of metrics. A leaf.

A name is any Unicode text of 1 to 128 bytes (UTF-8, after NFC) without control characters. NATS subjects allow far
less, and with `.`, `*` or `>` a client could read other rooms. So a name becomes one token: letters, digits, `-` and
`_` stand for themselves, every other byte is `=XX` (upper-case hexadecimal). The mapping is injective and keeps case.
"""

import re
import unicodedata

MAX_NAME_BYTES = 128
# NFC makes one character of up to four, and takes quadratic time for long runs of combining marks: what cannot fit
# is refused before it is composed.
_MAX_UNCOMPOSED = 4 * MAX_NAME_BYTES

_PLAIN = frozenset(b"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_")
_TOKEN_OF_BYTE = [chr(b) if b in _PLAIN else f"={b:02X}" for b in range(256)]
_PLAIN_NAME = re.compile(r"[A-Za-z0-9_-]{1,128}")
# Of a gauge, a counter or a histogram. Where values are asked for, a percentile's suffix may follow:
# `checkout.total.p95`.
METRIC_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_.:-]{0,63}")
METRIC_OR_PERCENTILE = re.compile(r"[A-Za-z_][A-Za-z0-9_.:-]{0,67}")
# Of a method that clients call: also a subject of the bus, without wildcards, as it stands.
METHOD_NAME = re.compile(r"[A-Za-z0-9_-]+(?:\.[A-Za-z0-9_-]+)*")
MAX_METHOD_LENGTH = 64


class InvalidName(ValueError):
    """A name that no room or user can have; the message says why and may be shown to the client."""


def normalize_name(text: str, what: str = "name") -> str:
    """Return the NFC form of a room or user name: its composed and decomposed spellings are one room.

    Raises:
        InvalidName: empty, longer than 128 bytes, or with control or unpaired surrogate characters.
    """
    if _PLAIN_NAME.fullmatch(text):  # the common case, without three passes over the text
        return text
    if not text:
        raise InvalidName(f"{what} must not be empty")
    if len(text) > _MAX_UNCOMPOSED:
        raise InvalidName(f"{what} is longer than {MAX_NAME_BYTES} bytes")
    text = unicodedata.normalize("NFC", text)
    try:
        size = len(text.encode())
    except UnicodeEncodeError:
        raise InvalidName(f"{what} contains an unpaired surrogate") from None
    if size > MAX_NAME_BYTES:
        raise InvalidName(f"{what} is {size} bytes long, the limit is {MAX_NAME_BYTES}")
    if any(unicodedata.category(c) == "Cc" for c in text):
        raise InvalidName(f"{what} contains a control character")
    return text


def is_method(name: str) -> bool:
    """Whether this is the name of a method: words of letters, digits, `_` and `-`, with dots between them."""
    return len(name) <= MAX_METHOD_LENGTH and METHOD_NAME.fullmatch(name) is not None


def to_token(name: str) -> str:
    """Return the bus token of a normalized name: one token, injective, readable where the name is."""
    if _PLAIN_NAME.fullmatch(name):
        return name
    return "".join([_TOKEN_OF_BYTE[b] for b in name.encode()])
