"""Rows of one second into rows of ten seconds and of a minute.

Rows are closed with the second that completes them and written in the same step as that second. So what is
still open after second L can be rebuilt from the stored seconds of L's minute (`resume`).
"""

from collections.abc import Mapping
from dataclasses import dataclass

from metrics_svc.aggregation.rows import Row, RowAccumulator
from metrics_svc.aggregation.tiers import ROLLUP_TIERS, Tier


@dataclass(frozen=True, slots=True)
class SeriesRow:
    """A row, and where it belongs. `series` is a source's name, or empty for the fleet."""

    series: str
    tier: Tier
    row: Row


class Rollups:
    """Open rows of all series. One per tier and series, so memory is bounded by the number of sources."""

    def __init__(self) -> None:
        self._open: dict[Tier, dict[str, RowAccumulator]] = {tier: {} for tier in ROLLUP_TIERS}

    def resume(self, tier: Tier, series: str, row: Row) -> None:
        """Go on with a row that begins at `row.start` and covers what is stored of it so far."""
        merging = self._open[tier][series] = RowAccumulator(row.start)
        merging.add(row)

    def advance(self, second: int, rows: Mapping[str, Row]) -> list[SeriesRow]:
        """Take in the rows of one second, by series, and return the rows that are complete with it.

        Seconds come in rising order. A row whose end was skipped closes with the next second that does come.
        """
        closed: list[SeriesRow] = []
        for tier in ROLLUP_TIERS:
            open_rows = self._open[tier]
            bucket = tier.bucket(second)
            closed += _close(tier, open_rows, before=bucket)
            for series, row in rows.items():
                merging = open_rows.get(series)
                if merging is None:
                    merging = open_rows[series] = RowAccumulator(bucket)
                merging.add(row)
            if second == bucket + tier.step_s - 1:
                closed += _close(tier, open_rows, before=bucket + tier.step_s)
        return closed


def _close(tier: Tier, open_rows: dict[str, RowAccumulator], *, before: int) -> list[SeriesRow]:
    done = [series for series, merging in open_rows.items() if merging.start < before]
    return [SeriesRow(series, tier, open_rows.pop(series).row()) for series in done]
