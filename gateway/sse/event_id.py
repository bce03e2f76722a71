"""The event id of a stream: where it stands in each of its logs, in one string.

A browser sends back the last id it saw and nothing else, so every id carries all positions of its stream. The form is
base64url of a JSON array of [topic, epoch, seq]; clients make such ids too, and look for their inbox in them.

An id comes back in a header, beside a URL with the names of all topics. So where that would be long, a topic is DEL and six
bytes of its hash (no name has a control character), and an epoch that is the same as the one before is empty.
"""

import base64
import binascii
from collections.abc import Iterable, Mapping
from functools import lru_cache
from hashlib import blake2b

import msgspec

from services.wire.records import Position, Sequence

MAX_ID_LENGTH = 16_384

_HASHED = "\x7f"
_HASH_BYTES = 6
_REMEMBERED = 16_384
# Up to here names stand in full: few rooms, or short names.
_LONG_BYTES = 768
# Of one triple: its brackets, quotes and commas, and any sequence.
_FRAME_BYTES = 8 + 19
_EPOCH_BYTES = 16

_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder(list[tuple[str, str, Sequence]]).decode


class BadPosition(ValueError):
    """An id that this server never sent."""


@lru_cache(maxsize=_REMEMBERED)
def _hashed(topic: str) -> str:
    """Return the short form of a topic; the inbox, which clients look for, has none."""
    if not topic:
        return topic
    digest = blake2b(topic.encode("utf-8", "surrogatepass"), digest_size=_HASH_BYTES).digest()
    return _HASHED + base64.urlsafe_b64encode(digest).decode()


def longest_id(topics: int, epochs: int) -> int:
    """Return the greatest length of an id of so many topics with so many epochs."""
    size = 2 + epochs * _EPOCH_BYTES + topics * (_FRAME_BYTES + len(_hashed("x")))
    return (max(size, _LONG_BYTES) * 4 + 2) // 3  # base64 without padding


def encode_id(positions: Mapping[str, Position]) -> str:
    """Return the id of a stream that stands at `positions` (by topic)."""
    triples = [(topic, position.epoch, position.seq) for topic, position in positions.items()]
    packed = _encode(triples) if len(triples) * _FRAME_BYTES <= _LONG_BYTES else b""
    if not packed or len(packed) > _LONG_BYTES:
        packed = _encode(_shortened(triples))
    return base64.urlsafe_b64encode(packed).decode().rstrip("=")


def _shortened(triples: list[tuple[str, str, int]]) -> list[tuple[str, str, int]]:
    # The inbox is the first in its epoch: it has that in full.
    triples.sort(key=lambda triple: (triple[1], triple[0]))
    short = []
    before = ""
    for topic, epoch, seq in triples:
        short.append((_hashed(topic), "" if epoch == before else epoch, seq))
        before = epoch
    return short


def decode_id(event_id: str, topics: Iterable[str]) -> dict[str, Position]:
    """Return the positions in an id, of those topics that are in it.

    Raises:
        BadPosition: no id of ours.
    """
    if len(event_id) > MAX_ID_LENGTH:
        raise BadPosition("the id is too long")
    try:
        raw = base64.b64decode(event_id + "=" * (-len(event_id) % 4), altchars=b"-_", validate=True)
        triples = _decode(raw)
    except (binascii.Error, msgspec.DecodeError, ValueError, RecursionError):
        raise BadPosition("not an id of this server") from None
    known: dict[str, Position] = {}
    before = ""
    for topic, epoch, seq in triples:
        before = epoch or before
        known[topic] = Position(before, seq)
    found = {topic: known.get(topic) or known.get(_hashed(topic)) for topic in topics}
    return {topic: position for topic, position in found.items() if position is not None}
