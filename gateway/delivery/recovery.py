"""Decides whether the messages that a client missed are complete. No I/O, no clock.

The input is one log's messages from the client's position L, inclusive, as the stream has them. They are complete
- if the stream stored nothing at all after L;
- or if the first message is L itself (the anchor): later messages are evicted later, by age and by number;
- or, if L was never a message of this log (the log was empty then, and L the stream's last sequence), if there are
  fewer messages than the log keeps (so none was evicted by number) and the stream still holds everything after L (so
  none was evicted by age).
Otherwise messages may be gone, and the verdict says so: a partial recovery must not look complete (ADR 0002).
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
        complete: whether the log has no more messages after them.
        stream_first: first sequence that the stream holds, of any log (last + 1 if it holds none).
        stream_last: last sequence of the stream, of any log, when it was read.
        log_size: number of messages that the stream keeps of one log.
        cap: limit of missed messages in one recovery.
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
    """Whether the message at the position itself is still stored; then everything after it is too."""
    return bool(found) and found[0] == since


# How long a connection to the bus may be dead unnoticed: a few unanswered pings.
_UNNOTICED_S = 30.0


@dataclass(frozen=True, slots=True)
class Kept:
    """What a stream keeps, as read after the messages.

    `first` is the first sequence that it holds (last + 1 if it holds none), `oldest_s` the age of that message. One
    log keeps `log_size` messages for `max_age_s`. A full stream evicts its oldest, which takes at least
    `least_until_full` further messages.
    """

    first: int
    last: int
    oldest_s: float
    log_size: float
    max_age_s: float
    least_until_full: int


def is_contiguous(position: int, found: list[int], *, pending: int, kept: Kept, away_s: float) -> bool:
    """Whether the sequences read from `position`, inclusive, are complete, for a subscription that was live until lately.

    `pending` more of this log are stored. The subscription was live until `away_s` seconds ago, so it knows more than
    a client with a position: messages that expired meanwhile were delivered before, unless it was away for as long as
    messages are kept. A quiet log is complete although its last message has long expired.
    """
    if position > kept.last:
        return False  # the stream lost its end: its next messages get sequences that were used before
    if has_anchor(position, found):
        return True
    if len(found) + pending >= kept.log_size:
        return False
    if kept.first <= position + 1:
        return True
    unseen_s = away_s + _UNNOTICED_S
    if unseen_s >= kept.max_age_s:
        return False
    # Nothing was evicted for its size alone: too little was stored, or the oldest message is older than the absence.
    return kept.last - position < kept.least_until_full or kept.oldest_s > unseen_s
