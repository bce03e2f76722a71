"""The event id of a stream: where it stands in each of its logs, in one string.

A browser sends back the last id it saw and nothing else, so every id carries all positions of its stream. The form
is base64url of a JSON array of [topic, epoch, seq]; clients treat it as opaque.
"""

import base64
import binascii

import msgspec

from services.wire.records import Position, Sequence

MAX_ID_LENGTH = 16_384

_decode = msgspec.json.Decoder(list[tuple[str, str, Sequence]]).decode


class BadPosition(ValueError):
    """An id that this server never sent."""


def encode_id(positions: dict[str, Position]) -> str:
    """Return the id of a stream that stands at `positions` (by topic)."""
    triples = [(topic, position.epoch, position.seq) for topic, position in positions.items()]
    return base64.urlsafe_b64encode(msgspec.json.encode(triples)).decode().rstrip("=")


def decode_id(event_id: str) -> dict[str, Position]:
    """Return the positions in an id.

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
    return {topic: Position(epoch, seq) for topic, epoch, seq in triples}
