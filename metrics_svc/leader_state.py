"""What the replica that ticks knows during one term: alert states, open rollups, what was written last.

Nothing of it is shared: it is read from the store when the term begins and dropped when it ends.
"""

from dataclasses import dataclass, field

from metrics_svc.aggregation.aggregator import SecondSnapshot
from metrics_svc.aggregation.packed import decode_row, merge_packed
from metrics_svc.aggregation.rollups import MINUTES, ROLLUP_TIERS, SECONDS, Rollups, SeriesRow
from metrics_svc.aggregation.rows import FLEET
from metrics_svc.alerts.engine import AlertEngine, SecondEvaluation
from metrics_svc.alerts.rules import RuleSet
from metrics_svc.store import MAX_UNANNOUNCED, MetricsStore, SecondCommit
from services.wire.events import AlertEvent


@dataclass(slots=True)
class LeaderState:
    """One term.

    `unannounced` are the events in the store's outbox, `announced_through` the second up to which they were
    published.
    """

    term: int
    last_second: int
    engine: AlertEngine
    rollups: Rollups
    unannounced: list[AlertEvent]
    announced_through: int = 0
    _prepared: tuple[SecondCommit, SecondEvaluation] | None = field(default=None)

    @classmethod
    async def begin(cls, store: MetricsStore, term: int, rules: RuleSet) -> "LeaderState":
        """Take up where the last term ended. Raises StoreUnavailable."""
        last_second = await store.last_second()
        return cls(
            term,
            last_second,
            AlertEngine(rules, await store.watches()),
            await restored_rollups(store, last_second),
            await store.unannounced(),
        )

    def prepare(self, closed: SecondSnapshot) -> tuple[SecondCommit, SecondEvaluation]:
        """Return what a second changes; asked again for the same second, the same: nothing is judged twice."""
        if self._prepared is None or self._prepared[0].second != closed.second:
            outcome = self.engine.evaluate(closed)
            rows = [SeriesRow(series, SECONDS, row) for series, row in closed.rows.items()]
            rows += self.rollups.advance(closed.second, closed.rows)
            tick = SecondCommit(
                closed.second,
                rows,
                outcome.watches,
                outcome.entries,
                outcome.events,
                outcome.transitions,
                outcome.current,
            )
            self._prepared = tick, outcome
        return self._prepared

    def wrote(self, tick: SecondCommit) -> None:
        """Note that a second is stored."""
        self.last_second = tick.second
        # As the outbox: while the bus is away, the oldest go.
        self.unannounced = (self.unannounced + tick.events)[-MAX_UNANNOUNCED:]


async def restored_rollups(store: MetricsStore, last_second: int) -> Rollups:
    """Merge the stored seconds of the rows that are still open after the last one.

    They stay packed until they are added up: with hundreds of sources, making rows and sketches of them all would take
    longer than a takeover may.
    """
    rollups = Rollups()
    start = MINUTES.bucket(last_second)
    open_tiers = [tier for tier in ROLLUP_TIERS if tier.bucket(last_second + 1) == tier.bucket(last_second)]
    if not open_tiers:
        return rollups
    for series in {FLEET, *await store.series(start)}:
        stored = await store.packed(series, SECONDS, start, last_second + 1)
        seconds = [row for row in map(decode_row, stored) if start <= row.start <= last_second]
        for tier in open_tiers:
            bucket = tier.bucket(last_second)
            if members := [row for row in seconds if row.start >= bucket]:
                merged = merge_packed(bucket, members, sketches=True, keep_sketches=True)
                rollups.resume(tier, series, merged)
    return rollups
