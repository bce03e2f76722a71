"""The event id of a stream: where it stands in each of its logs, in one string.

A browser sends back the last id it saw and nothing else, so every id carries all positions of its stream. It comes back in
a header, with the names of the topics in the URL beside it, so it is short: `2.` and base64url of MessagePack, with each
epoch once and six bytes of hash for a topic. Clients treat it as opaque. Ids of the first form, base64url of a JSON array of
[topic, epoch, seq], are still understood.
"""

import base64
import binascii
from collections.abc import Iterable, Mapping
from functools import lru_cache
from hashlib import blake2b

import msgspec

from services.wire.records import Position, Sequence

MAX_ID_LENGTH = 16_384

_FORM = "2."
_HASH_BYTES = 6
_REMEMBERED = 16_384
# Of MessagePack: an epoch, its head and the place it may need in a list; a hash, an index below 2^16 and any sequence.
_EPOCH_BYTES = 16 + 2
_TOPIC_BYTES = _HASH_BYTES + 3 + 9
_FRAME_BYTES = 16


class _Positions(msgspec.Struct, array_like=True):
    """Side by side, one for each topic: its hash, the index of its epoch, its sequence."""

    epochs: list[str]
    topics: bytes
    epoch_of: list[int]
    seqs: list[Sequence]


_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(_Positions).decode
_decode_first_form = msgspec.json.Decoder(list[tuple[str, str, Sequence]]).decode


class BadPosition(ValueError):
    """An id that this server never sent."""


@lru_cache(maxsize=_REMEMBERED)
def _hash(topic: str) -> bytes:
    return blake2b(topic.encode("utf-8", "surrogatepass"), digest_size=_HASH_BYTES).digest()


def longest_id(topics: int, epochs: int) -> int:
    """Return how long an id of so many topics with so many epochs may become."""
    size = _FRAME_BYTES + epochs * _EPOCH_BYTES + topics * _TOPIC_BYTES
    return len(_FORM) + (size * 4 + 2) // 3


def encode_id(positions: Mapping[str, Position]) -> str:
    """Return the id of a stream that stands at `positions` (by topic)."""
    epochs: dict[str, int] = {}
    epoch_of = [epochs.setdefault(position.epoch, len(epochs)) for position in positions.values()]
    packed = _Positions(
        epochs=list(epochs),
        topics=b"".join(map(_hash, positions)),
        epoch_of=epoch_of,
        seqs=[position.seq for position in positions.values()],
    )
    return _FORM + base64.urlsafe_b64encode(_encode(packed)).decode().rstrip("=")


def decode_id(event_id: str, topics: Iterable[str]) -> dict[str, Position]:
    """Return the positions in an id, of those topics that are in it.

    Raises:
        BadPosition: no id of ours.
    """
    if len(event_id) > MAX_ID_LENGTH:
        raise BadPosition("the id is too long")
    try:
        if not event_id.startswith(_FORM):
            known = {
                topic: Position(epoch, seq) for topic, epoch, seq in _decode_first_form(_bytes(event_id))
            }
            return {topic: known[topic] for topic in topics if topic in known}
        by_hash = _by_hash(_decode(_bytes(event_id[len(_FORM) :])))
    except (binascii.Error, msgspec.DecodeError, ValueError, IndexError, RecursionError):
        raise BadPosition("not an id of this server") from None
    return {topic: by_hash[_hash(topic)] for topic in topics if _hash(topic) in by_hash}


def _bytes(text: str) -> bytes:
    return base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)


def _by_hash(packed: _Positions) -> dict[bytes, Position]:
    topics = packed.topics
    hashes = [topics[start : start + _HASH_BYTES] for start in range(0, len(topics), _HASH_BYTES)]
    found = zip(hashes, packed.epoch_of, packed.seqs, strict=True)
    if any(index < 0 for index in packed.epoch_of):
        raise IndexError
    return {topic: Position(packed.epochs[index], seq) for topic, index, seq in found}
