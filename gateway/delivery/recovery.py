"""Whether what a client missed is all there. Pure: a position and what the stream answered in, a verdict out.

The stream was asked for messages of one log from the client's position L, inclusive. Nothing is missing
- if nothing at all was stored in the stream after L;
- or if the first answer is L itself (the anchor): what came after L was stored later, so it is evicted later, by age
  and by number;
- or, where L was never a message of this log (it was empty when the position was taken, and L is the stream's last
  sequence then), if fewer messages came back than the log keeps (so none was evicted by number) and the stream
  still holds everything stored after L (so none was evicted by age).
In every other case something may be gone, and the verdict says so: a partial recovery must not look whole (ADR 0002).
"""

from dataclasses import dataclass
from enum import StrEnum


class RecoveryVerdict(StrEnum):
    """Named outcome of a recovery; every one but `RECOVERED` means `recovered: false`."""

    RECOVERED = "recovered"
    OTHER_EPOCH = "other_epoch"
    FUTURE = "future"
    TOO_MANY = "too_many"
    EVICTED = "evicted"


def recovery_verdict(
    since: int,
    found: list[int],
    *,
    complete: bool,
    stream_first: int,
    stream_last: int,
    log_size: int,
    cap: int,
) -> RecoveryVerdict:
    """Judge a recovery from position `since`.

    Args:
        found: sequences read of this log, ascending, from `since` inclusive.
        complete: whether nothing more of this log is stored after them.
        stream_first: first sequence that the whole stream still holds (last + 1 where it holds none).
        stream_last: last sequence of the whole stream when it was read.
        log_size: how many messages the stream keeps of one log.
        cap: how many missed messages one recovery may return.
    """
    if since > stream_last:
        return RecoveryVerdict.FUTURE
    if not complete or len(found) - has_anchor(since, found) > cap:
        return RecoveryVerdict.TOO_MANY
    if since == stream_last or has_anchor(since, found):
        return RecoveryVerdict.RECOVERED
    if len(found) < log_size and stream_first <= since + 1:
        return RecoveryVerdict.RECOVERED
    return RecoveryVerdict.EVICTED


def has_anchor(since: int, found: list[int]) -> bool:
    """Whether the message at the position itself is still there; if so, so is everything after it."""
    return bool(found) and found[0] == since


# How long a connection to the bus may have been dead before anybody noticed: a few unanswered pings.
_UNNOTICED_S = 30.0


@dataclass(frozen=True, slots=True)
class Kept:
    """What a stream keeps, asked after the messages were read.

    `first` is the first sequence that it still holds (last + 1 where it holds none), `oldest_s` how long ago that
    was stored. `log_size` messages are kept of one log, for `max_age_s`; a full stream lets go of its oldest, which is
    not before `least_until_full` messages more were stored.
    """

    first: int
    last: int
    oldest_s: float
    log_size: float
    max_age_s: float
    least_until_full: int


def is_contiguous(position: int, found: list[int], *, pending: int, kept: Kept, away_s: float) -> bool:
    """Whether what was read from `position`, inclusive, is all that followed it, for one who was there until lately.

    `pending` more of this log are stored. Who followed live up to `away_s` seconds ago knows more than a client with a
    position: what is gone meanwhile by its age was stored before that, unless it was away for as long as messages are
    kept. A quiet log is whole although its last message has long expired.
    """
    if position > kept.last:
        return False  # the stream lost its end: what it stores next gets sequences that were given before
    if has_anchor(position, found):
        return True
    if len(found) + pending >= kept.log_size:
        return False
    if kept.first <= position + 1:
        return True
    unseen_s = away_s + _UNNOTICED_S
    if unseen_s >= kept.max_age_s:
        return False
    # Nothing was let go of for its size alone: too little was stored, or what is still there is older than that.
    return kept.last - position < kept.least_until_full or kept.oldest_s > unseen_s
