"""Which resolutions are kept for how long, and which of them answers a question."""

from dataclasses import dataclass

MINUTE_S = 60
HOUR_S = 3600
DAY_S = 86_400


@dataclass(frozen=True, slots=True)
class Tier:
    """Rows of `step_s` seconds, kept for `keep_s`, stored in chunks of `chunk_s` that expire as a whole."""

    name: str
    step_s: int
    keep_s: int
    chunk_s: int

    def bucket(self, second: int) -> int:
        """Return the first second of the row that covers `second`."""
        return second - second % self.step_s

    def chunk(self, second: int) -> int:
        """Return the first second of the chunk that holds `second`."""
        return second - second % self.chunk_s


SECONDS = Tier("1s", 1, HOUR_S, 10 * MINUTE_S)
TENS = Tier("10s", 10, DAY_S, 2 * HOUR_S)
MINUTES = Tier("1m", MINUTE_S, 30 * DAY_S, DAY_S)
TIERS = (SECONDS, TENS, MINUTES)
ROLLUP_TIERS = (TENS, MINUTES)


@dataclass(frozen=True, slots=True)
class TierChoice:
    """Read `tier`, and merge its rows to `step_s`."""

    tier: Tier
    step_s: int


def plan(start: int, step_s: int, now: int) -> TierChoice:
    """Return how to answer for the time from second `start` in steps of `step_s`.

    The coarsest tier that divides the step is the cheapest. Where that tier no longer has `start`, a
    coarser one answers, in the smallest step it can serve that is not under the one asked for.
    """
    covering = [tier for tier in TIERS if start >= now - tier.keep_s] or [MINUTES]
    exact = [tier for tier in covering if step_s % tier.step_s == 0]
    if exact:
        return TierChoice(exact[-1], step_s)
    finest = covering[0]
    return TierChoice(finest, -(-step_s // finest.step_s) * finest.step_s)
