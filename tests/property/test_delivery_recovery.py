"""A recovery never claims to be complete when a message is missing, by a model of a stream."""

from dataclasses import dataclass, field

from hypothesis import event, given
from hypothesis import strategies as st

from gateway.delivery.recovery import Kept, RecoveryVerdict, is_contiguous, recovery_verdict


@dataclass
class ModelStream:
    """One stream, a few logs: keeps `log_size` messages of each, and expires the oldest of all."""

    log_size: int
    last: int = 0
    ever: dict[str, list[int]] = field(default_factory=dict)
    held: dict[str, list[int]] = field(default_factory=dict)
    expired_up_to: int = 0

    def store(self, log: str) -> None:
        self.last += 1
        self.ever.setdefault(log, []).append(self.last)
        held = self.held.setdefault(log, [])
        held.append(self.last)
        del held[: -self.log_size]

    def expire(self, up_to: int) -> None:
        self.expired_up_to = max(self.expired_up_to, min(up_to, self.last))
        for held in self.held.values():
            held[:] = [seq for seq in held if seq > self.expired_up_to]

    @property
    def first(self) -> int:
        return min((seq for held in self.held.values() for seq in held), default=self.last + 1)


@st.composite
def histories(draw: st.DrawFn) -> tuple[ModelStream, list[int]]:
    """A stream with a past, and every position a member of log `a` could have been given."""
    stream = ModelStream(draw(st.integers(1, 5)))
    positions = [0]
    for step in draw(st.lists(st.sampled_from(["a", "b", "expire", "join"]), max_size=40)):
        if step == "expire":
            stream.expire(stream.last - draw(st.integers(0, 8)))
        elif step == "join":
            # The last message of the log, or, where it holds none, the stream's last sequence.
            held = stream.held.get("a")
            positions.append(held[-1] if held else stream.last)
        else:
            stream.store(step)
            if step == "a":
                positions.append(stream.last)
    return stream, positions


@given(histories(), st.data())
def test_recovered_means_that_nothing_is_missing(
    history: tuple[ModelStream, list[int]], data: st.DataObject
) -> None:
    stream, positions = history
    since = data.draw(st.sampled_from(positions))
    cap = data.draw(st.integers(1, 6))
    held = [seq for seq in stream.held.get("a", []) if seq >= since]
    found = held[: cap + 2]
    verdict = recovery_verdict(
        since,
        found,
        complete=len(held) <= cap + 2,
        stream_first=stream.first,
        stream_last=found[-1] if found else stream.last,
        log_size=stream.log_size,
        cap=cap,
    )
    event(verdict)
    missed = [seq for seq in stream.ever.get("a", []) if seq > since]
    if verdict is RecoveryVerdict.RECOVERED:
        assert [seq for seq in found if seq > since] == missed
    if since in held and len(missed) <= cap:
        assert verdict is RecoveryVerdict.RECOVERED  # the anchor is there
    if since == stream.last:
        assert verdict is RecoveryVerdict.RECOVERED  # nothing at all came after


@given(histories(), st.data())
def test_a_follower_that_was_there_misses_nothing_unsaid(
    history: tuple[ModelStream, list[int]], data: st.DataObject
) -> None:
    stream, positions = history
    # It had delivered everything up to here, when nothing later had expired yet.
    position = data.draw(
        st.sampled_from([p for p in positions if p >= stream.expired_up_to] or [stream.last])
    )
    held = [seq for seq in stream.held.get("a", []) if seq >= position]
    found = held[: data.draw(st.integers(0, 6), label="read")]
    kept = Kept(
        first=stream.first, last=stream.last, oldest_s=0, log_size=stream.log_size, max_age_s=600,
        least_until_full=1_000,
    )  # fmt: skip
    whole = is_contiguous(position, found, pending=len(held) - len(found), kept=kept, away_s=1)
    missed = [seq for seq in stream.ever.get("a", []) if seq > position]
    if whole:
        assert [seq for seq in held if seq > position] == missed
    if not missed:
        assert whole or len(held) >= stream.log_size


@given(histories(), st.lists(st.sampled_from("ab"), max_size=30), st.integers(1, 30), st.data())
def test_eviction_by_size_is_never_mistaken_for_age(
    history: tuple[ModelStream, list[int]], later: list[str], until_full: int, data: st.DataObject
) -> None:
    """A second ago everything was delivered; since then the stream became full and evicted its oldest messages."""
    stream, positions = history
    delivered = max(stream.ever.get("a", []), default=0)
    position = data.draw(st.sampled_from([p for p in positions if p >= delivered] or [stream.last]))
    for log in later:
        stream.store(log)
        stream.expire(stream.last - until_full)
    held = [seq for seq in stream.held.get("a", []) if seq >= position]
    # Its oldest message is as old as the past, unless all that it keeps is new.
    oldest_s = 1000.0 if stream.first <= stream.last - len(later) else 0.5
    kept = Kept(stream.first, stream.last, oldest_s, stream.log_size, 600, until_full)
    if is_contiguous(position, held, pending=0, kept=kept, away_s=1):
        assert [seq for seq in stream.ever.get("a", []) if seq > position] == [
            s for s in held if s > position
        ]


def test_away_for_as_long_as_messages_are_kept() -> None:
    def contiguous(away_s: float, **changed: float) -> bool:
        kept = {
            "first": 8,
            "last": 9,
            "oldest_s": 0.0,
            "log_size": 100,
            "max_age_s": 600,
            "least_until_full": 50,
        }
        return is_contiguous(5, [], pending=0, kept=Kept(**(kept | changed)), away_s=away_s)  # type: ignore[arg-type]

    assert [contiguous(away_s) for away_s in (500.0, 590.0, 700.0)] == [True, False, False]
    assert contiguous(700.0, first=6)  # nothing after the position is gone
    assert not contiguous(0.0, last=4)
    # Full: what is gone may have been stored a moment ago, unless what is left is older than that.
    assert not contiguous(0.0, least_until_full=4)
    assert contiguous(0.0, least_until_full=4, oldest_s=40.0)
