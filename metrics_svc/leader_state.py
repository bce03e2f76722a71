"""State of the leader during one term: alert instances, open rollups, the last written second.

It is read from the store when the term begins and dropped when it ends.
"""

from dataclasses import dataclass

from metrics_svc.aggregation.aggregator import SecondSnapshot
from metrics_svc.aggregation.packed import decode_row, merge_packed
from metrics_svc.aggregation.rollups import MINUTES, ROLLUP_TIERS, SECONDS, Rollups, SeriesRow
from metrics_svc.aggregation.rows import FLEET
from metrics_svc.alerts.engine import AlertEngine
from metrics_svc.alerts.rules import RuleSet
from metrics_svc.store import MAX_UNANNOUNCED, MetricsStore, SecondCommit
from services.wire.events import AlertEvent


@dataclass(slots=True)
class LeaderState:
    """One term. `unannounced` are the events in the store's outbox; those up to `announced_through` are published."""

    term: int
    last_second: int
    engine: AlertEngine
    rollups: Rollups
    unannounced: list[AlertEvent]
    announced_through: int = 0
    _prepared: SecondCommit | None = None

    @classmethod
    async def load(cls, store: MetricsStore, term: int, rules: RuleSet) -> "LeaderState":
        """Continue from the end of the last term. Raises MetricsStoreUnavailable."""
        last_second = await store.last_second()
        return cls(
            term,
            last_second,
            AlertEngine(rules, await store.instances()),
            await restored_rollups(store, last_second),
            await store.unannounced(),
        )

    def prepare(self, snapshot: SecondSnapshot) -> SecondCommit:
        """Evaluate a second. A repeated call for the same second returns the same result, evaluated once."""
        if self._prepared is None or self._prepared.second != snapshot.second:
            commit = self.engine.evaluate(snapshot)
            commit.rows = [SeriesRow(series, SECONDS, row) for series, row in snapshot.rows.items()]
            commit.rows += self.rollups.advance(snapshot.second, snapshot.rows)
            self._prepared = commit
        return self._prepared

    def committed(self, commit: SecondCommit) -> None:
        self.last_second = commit.second
        # As the outbox: when the bus is unavailable, the oldest events are dropped.
        self.unannounced = (self.unannounced + commit.events)[-MAX_UNANNOUNCED:]


async def restored_rollups(store: MetricsStore, last_second: int) -> Rollups:
    """Rebuild the open rows after the last second from stored seconds.

    The seconds stay packed until they are added up: with hundreds of sources, decoding all rows and sketches would take
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
                rollups.resume(tier, series, merge_packed(bucket, members, sketches=True))
    return rollups
