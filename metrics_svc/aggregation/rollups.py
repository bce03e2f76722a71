"""Resolutions kept in the store, and the rollup of seconds into rows of ten seconds and of a minute.

A rollup row closes with the second that completes it and is written in the same step as that second. The rows
that are open after second L can therefore be rebuilt from the stored seconds of L's minute (`resume`).
"""

from collections.abc import Mapping
from dataclasses import dataclass

from metrics_svc.aggregation.rows import Row, RowAccumulator

MINUTE_S = 60
HOUR_S = 3600
DAY_S = 86_400


@dataclass(frozen=True, slots=True)
class Tier:
    """Rows of `step_s` seconds, kept for `keep_s`, in chunks of `chunk_s`; a chunk expires at once."""

    name: str
    step_s: int
    keep_s: int
    chunk_s: int

    def bucket(self, second: int) -> int:
        """First second of the row that covers `second`."""
        return second - second % self.step_s

    def chunk(self, second: int) -> int:
        """First second of the chunk that holds `second`."""
        return second - second % self.chunk_s


SECONDS = Tier("1s", 1, HOUR_S, 10 * MINUTE_S)
TENS = Tier("10s", 10, DAY_S, 2 * HOUR_S)
MINUTES = Tier("1m", MINUTE_S, 30 * DAY_S, DAY_S)
TIERS = (SECONDS, TENS, MINUTES)
ROLLUP_TIERS = (TENS, MINUTES)


def choose_tier(start: int, step_s: int, now: int) -> tuple[Tier, int]:
    """Choose the tier for a query from second `start` on in steps of `step_s`; return it and the step to merge to.

    The coarsest tier that divides the step is the cheapest. If no such tier has `start` any more, a coarser one is
    chosen, with the smallest step it can serve that is not below `step_s`.
    """
    covering = [tier for tier in TIERS if start >= now - tier.keep_s] or [MINUTES]
    exact = [tier for tier in covering if step_s % tier.step_s == 0]
    if exact:
        return exact[-1], step_s
    finest = covering[0]
    return finest, -(-step_s // finest.step_s) * finest.step_s


@dataclass(frozen=True, slots=True)
class SeriesRow:
    """A row with its series and tier."""

    series: str
    tier: Tier
    row: Row


class Rollups:
    """Open rows: one per tier and series, so the number of sources bounds the memory."""

    def __init__(self) -> None:
        self._open: dict[Tier, dict[str, RowAccumulator]] = {tier: {} for tier in ROLLUP_TIERS}

    def resume(self, tier: Tier, series: str, row: Row) -> None:
        """Continue a row from what is stored of it."""
        self._open[tier][series] = RowAccumulator(row.start, [row])

    def advance(self, second: int, rows: Mapping[str, Row]) -> list[SeriesRow]:
        """Add the rows of one second, by series, and return the rows that it completes.

        Seconds are added in rising order. A row whose last second was skipped closes with the next second added.
        """
        closed: list[SeriesRow] = []
        for tier in ROLLUP_TIERS:
            open_rows = self._open[tier]
            bucket = tier.bucket(second)
            closed += _close(tier, open_rows, before=bucket)
            for series, row in rows.items():
                open_row = open_rows.get(series)
                if open_row is None:
                    open_row = open_rows[series] = RowAccumulator(bucket)
                open_row.add(row)
            if second == bucket + tier.step_s - 1:
                closed += _close(tier, open_rows, before=bucket + tier.step_s)
        return closed


def _close(tier: Tier, open_rows: dict[str, RowAccumulator], *, before: int) -> list[SeriesRow]:
    done = [series for series, open_row in open_rows.items() if open_row.start < before]
    return [SeriesRow(series, tier, open_rows.pop(series).row()) for series in done]
