"""Event ids of `/events`: base64url of a JSON array of [topic, epoch, seq]. The inbox is the topic ""."""

import base64
import binascii
from collections.abc import Iterable

import msgspec

from tidings_client.generated.wire import Position

INBOX_TOPIC = ""

_triples = msgspec.json.Decoder(list[tuple[str, str, int]])


def encode_event_id(positions: Iterable[tuple[str, Position]]) -> str:
    """Return the event id for positions."""
    triples = [(topic, position.epoch, position.seq) for topic, position in positions]
    return base64.urlsafe_b64encode(msgspec.json.encode(triples)).decode().rstrip("=")


def position_in(event_id: str, wanted: str) -> Position | None:
    """Return the position of one topic, or None: also for an id of another form, which resumes nothing."""
    try:
        padded = event_id + "=" * (-len(event_id) % 4)
        triples = _triples.decode(base64.b64decode(padded, altchars="-_", validate=True))
    except (binascii.Error, ValueError, msgspec.DecodeError, RecursionError):
        return None
    return next((Position(epoch=epoch, seq=seq) for topic, epoch, seq in triples if topic == wanted), None)
