"""The evaluation loop: every replica closes each second; the leader evaluates, stores and publishes it.

A second is published only after it was stored under a valid term, so there is one record of each second. Seconds that
cannot be written yet (Redis unavailable, lease not yet taken over) wait in a bounded backlog and are written in order.
"""

from collections import Counter, deque
from dataclasses import dataclass, field

import msgspec
import structlog

from metrics_svc.aggregation.aggregator import Aggregator, SecondSnapshot
from metrics_svc.aggregation.rollups import SECONDS
from metrics_svc.aggregation.rows import FLEET, to_record
from metrics_svc.alerts.rule_store import RuleStore
from metrics_svc.leader_lease import FleetClock, LeaderLease
from metrics_svc.leader_state import LeaderState
from metrics_svc.store import CommitStatus, DocumentKind, MetricsStore, MetricsStoreUnavailable, SecondCommit
from services import telemetry
from services.bus.client import Bus
from services.bus.errors import BusError
from services.telemetry import MetricName
from services.wire.events import MetricsTick
from services.wire.subjects import Subjects

log = structlog.get_logger(__name__)

# A takeover takes up to three seconds, an outage of Redis may take longer; older seconds are dropped.
BACKLOG_S = 30

_json = msgspec.json.Encoder().encode


@dataclass(eq=False)
class EvaluationLoop:
    """Processes the seconds of one replica. `limited` are ids of rules with more alerts than their limit."""

    _aggregator: Aggregator
    _lease: LeaderLease
    _store: MetricsStore
    _clock: FleetClock
    _rules: RuleStore
    _bus: Bus
    _subjects: Subjects
    limited: frozenset[str] = frozenset()
    _backlog: deque[SecondSnapshot] = field(default_factory=lambda: deque(maxlen=BACKLOG_S))
    _leader: LeaderState | None = None
    _next: int = 0
    _first: int = 0
    _store_unavailable: bool = False

    @property
    def is_leader(self) -> bool:
        return self._leader is not None

    async def run(self) -> None:
        """Process each second just after its end; after a takeover, at once."""
        # The current second is incomplete here: another replica publishes it, or none does.
        self._next = int(self._clock.now()) + 1
        while True:
            await self._lease.wait_for_term(max(0.0, self._next + 1 - self._clock.now()))
            await self.run_once()

    async def run_once(self) -> None:
        """Close the seconds that have ended, and write them if this replica leads."""
        if self._rules.load_file():
            telemetry.gauge(MetricName.METRICS_RULES_BAD).set(bool(self._rules.error))
            if self._rules.error:
                log.error("invalid rules file; the previous rules stay in effect", reason=self._rules.error)
        self.close_ended()
        try:
            await self._lead()
        except MetricsStoreUnavailable as fault:
            if not self._store_unavailable:
                log.warning(
                    "store unavailable; seconds are kept", reason=str(fault), waiting=len(self._backlog)
                )
            self._store_unavailable = True
        if not self.is_leader:
            self._set_limited(Counter())
        telemetry.gauge(MetricName.METRICS_LEADER).set(self.is_leader)

    def close_ended(self) -> None:
        """Close all seconds that have ended, except those too old to be useful (after a suspension)."""
        current = int(self._clock.now())
        self._first = self._first or self._next
        self._next = max(self._next, current - BACKLOG_S)
        while self._next < current:
            self._backlog.append(self._aggregator.close(self._next))
            self._next += 1

    async def _lead(self) -> None:
        term = self._lease.term
        if not term:
            self._leader = None
            return
        if (
            self._rules.load_api_rules(await self._store.documents(DocumentKind.RULES))
            and self._rules.unreadable
        ):
            log.warning("stored rules of another version are not in effect", rules=self._rules.unreadable)
        leader = self._leader
        if leader is None or leader.term != term:
            leader = await LeaderState.load(self._store, term, self._rules.rules)
            log.info("leader term started", term=term, after=leader.last_second)
        self._leader = leader
        if leader.engine.rules is not self._rules.rules:  # any replica may have changed them
            leader.engine.rules = self._rules.rules
            log.info("rules loaded", rules=len(self._rules.rules.rules))
        while self._backlog:
            snapshot = self._backlog[0]
            if snapshot.second > leader.last_second and not await self._write(leader, snapshot):
                self._leader = None
                self._lease.lose()
                return
            self._backlog.popleft()
        if self._store_unavailable:
            self._store_unavailable = False
            log.info("store available again", term=term)
        await self._publish_alerts(leader)

    async def _write(self, leader: LeaderState, snapshot: SecondSnapshot) -> bool:
        """Store and publish one second; False if another replica has the lease."""
        commit = leader.prepare(snapshot)
        status = await self._store.write(self._lease.holder, leader.term, commit)
        telemetry.counter(MetricName.METRICS_TICKS).labels(status.value).inc()
        if status is CommitStatus.FENCED:
            return False
        if status is CommitStatus.STALE:
            # Another term wrote it, although ours is valid: our state differs from the store's.
            log.warning("second was written by another term", second=commit.second, term=leader.term)
            return False
        self._count_missing(leader.last_second, commit.second)
        leader.committed(commit)
        self._publish_record(leader.term, snapshot)
        self._set_limited(commit.limited)
        _log_announced(commit)
        return True

    def _count_missing(self, last: int, second: int) -> None:
        """Count the seconds since this replica's first one that no replica has written."""
        missing = second - max(last + 1, self._first)
        if last and missing > 0:
            telemetry.counter(MetricName.METRICS_SECONDS_DROPPED).inc(missing)
            log.warning("seconds are missing from the history", count=missing, after=last)

    def _set_limited(self, limited: Counter[str]) -> None:
        """Count alerts beyond their rule's limit, and log each rule once when it reaches its limit."""
        telemetry.gauge(MetricName.ALERTS_LIMITED).set(limited.total())
        for rule in limited.keys() - self.limited:
            log.warning("a rule has more alerts than its limit", rule=rule, refused=limited[rule])
        self.limited = frozenset(limited)

    def _publish_record(self, term: int, snapshot: SecondSnapshot) -> None:
        record = to_record(snapshot.rows[FLEET], SECONDS.step_s, rollup=False)
        try:
            self._bus.publish(self._subjects.metrics_feed, _json(MetricsTick(term=term, record=record)))
        except BusError:
            # A late record would mislead; the history has it.
            telemetry.counter(MetricName.METRICS_UNPUBLISHED).inc()
        telemetry.histogram(MetricName.METRICS_TICK_DELAY).observe(self._clock.now() - snapshot.second - 1)

    async def _publish_alerts(self, leader: LeaderState) -> None:
        """Publish the events in the outbox, then remove them; a successor publishes the rest."""
        try:
            if leader.unannounced:
                for event in leader.unannounced:
                    self._bus.publish(self._subjects.alerts_feed, _json(event))
                await self._bus.flush()
                leader.unannounced.clear()
                leader.announced_through = leader.last_second
        except BusError as fault:
            log.warning(
                "bus unavailable; alerts are kept", reason=str(fault), waiting=len(leader.unannounced)
            )
            return
        if through := leader.announced_through:
            await self._store.remove_announced(self._lease.holder, leader.term, through)
            leader.announced_through = 0


def _log_announced(commit: SecondCommit) -> None:
    for announced in commit.announced:
        effect = announced.transition.effect.name.lower()
        telemetry.counter(MetricName.ALERTS_ANNOUNCED).labels(effect).inc()
        if (alert := announced.alert) is not None:
            log.info(
                "alert",
                alert=alert.id,
                severity=alert.type,
                effect=effect,
                reason=announced.transition.reason.value,
                message=alert.message,
            )
