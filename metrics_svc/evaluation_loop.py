"""The second: every replica closes it; the one that holds the lease judges, stores and publishes it.

A second is published only after it was stored under a valid term, so of each second there is one record.
Seconds that could not be written (Redis away, the lease not yet taken over) wait, bounded, and are written
in order.
"""

from collections import Counter, deque

import msgspec
import structlog

from metrics_svc.aggregation.aggregator import Aggregator, SecondSnapshot
from metrics_svc.aggregation.rollups import SECONDS
from metrics_svc.aggregation.rows import FLEET, to_record
from metrics_svc.alerts.rule_store import RuleStore
from metrics_svc.clock import FleetClock
from metrics_svc.leader_lease import LeaderLease
from metrics_svc.leader_state import LeaderState
from metrics_svc.store import CommitStatus, DocumentKind, MetricsStore, MetricsStoreUnavailable, SecondCommit
from services import telemetry
from services.bus.client import Bus
from services.bus.errors import BusError
from services.telemetry import MetricName
from services.wire.events import MetricsTick
from services.wire.subjects import Subjects

log = structlog.get_logger(__name__)

# A takeover takes up to three seconds, an outage of Redis may take longer; older seconds are given up.
BACKLOG_S = 30

_json = msgspec.json.Encoder().encode


class EvaluationLoop:
    """Runs the seconds of one replica."""

    def __init__(
        self,
        seconds: Aggregator,
        lease: LeaderLease,
        store: MetricsStore,
        clock: FleetClock,
        rules: RuleStore,
        bus: Bus,
        subjects: Subjects,
    ) -> None:
        self._seconds = seconds
        self._lease = lease
        self._store = store
        self._clock = clock
        self._rules = rules
        self._bus = bus
        self._subjects = subjects
        self._backlog: deque[SecondSnapshot] = deque(maxlen=BACKLOG_S)
        self._leadership: LeaderState | None = None
        self._next = 0
        self._first = 0
        self._store_was_away = False
        self.limited: frozenset[str] = frozenset()  # ids of rules with more alerts than their limit

    @property
    def leads(self) -> bool:
        """Whether this replica ticks now."""
        return self._leadership is not None

    async def run(self) -> None:
        """Close and, when leading, write each second just after its end; on a takeover, at once. For ever."""
        # The second under way is incomplete: it is another replica's to tell, or nobody's.
        self._next = int(self._clock.now()) + 1
        while True:
            await self._lease.taken_within(max(0.0, self._next + 1 - self._clock.now()))
            await self.turn()

    async def turn(self) -> None:
        """Close what has ended; write it if this replica leads."""
        self._poll_rules()
        self.close_ended()
        try:
            await self._lead()
        except MetricsStoreUnavailable as fault:
            if not self._store_was_away:
                log.warning("seconds wait: the store is away", reason=str(fault), waiting=len(self._backlog))
            self._store_was_away = True
        if not self.leads:
            self._note_limited(Counter())
        telemetry.gauge(MetricName.METRICS_LEADER).set(self.leads)

    def close_ended(self) -> None:
        """Close all seconds that have ended, but for those too old to be of use (after a suspension)."""
        current = int(self._clock.now())
        self._first = self._first or self._next
        self._next = max(self._next, current - BACKLOG_S)
        while self._next < current:
            self._backlog.append(self._seconds.close(self._next))
            self._next += 1

    async def _lead(self) -> None:
        term = self._lease.term
        if not term:
            self._leadership = None
            return
        if self._rules.take(await self._store.documents(DocumentKind.RULES)) and self._rules.unreadable:
            log.warning("rules of another version do not hold", rules=self._rules.unreadable)
        leadership = self._leadership
        if leadership is None or leadership.term != term:
            leadership = await LeaderState.begin(self._store, term, self._rules.rules)
            log.info("ticking", term=term, after=leadership.last_second)
        self._leadership = leadership
        self._apply_rules(leadership)
        while self._backlog:
            closed = self._backlog[0]
            if closed.second > leadership.last_second and not await self._write(leadership, closed):
                self._leadership = None
                self._lease.lose()
                return
            self._backlog.popleft()
        if self._store_was_away:
            self._store_was_away = False
            log.info("the store is back", term=term)
        await self._announce(leadership)

    async def _write(self, leadership: LeaderState, closed: SecondSnapshot) -> bool:
        """Store and publish one second; False when the lease is another's."""
        tick, outcome = leadership.prepare(closed)
        written = await self._store.write(self._lease.holder, leadership.term, tick)
        telemetry.counter(MetricName.METRICS_TICKS).labels(written.value).inc()
        if written is CommitStatus.FENCED:
            return False
        if written is CommitStatus.STALE:
            # Another term wrote it, though ours is valid: our state is not what the store has.
            log.warning("second was written by another term", second=tick.second, term=leadership.term)
            return False
        self._count_missing(leadership.last_second, tick.second)
        leadership.wrote(tick)
        self._publish(leadership.term, tick, closed)
        self._note_limited(outcome.limited)
        for change in outcome.changes:
            telemetry.counter(MetricName.ALERTS_ANNOUNCED).labels(change.effect.name.lower()).inc()
            log.info(
                "alert",
                alert=change.alert.id,
                severity=change.alert.type,
                effect=change.effect.name.lower(),
                reason=change.reason.value,
                message=change.alert.message,
            )
        return True

    def _count_missing(self, last: int, second: int) -> None:
        """Count the seconds between two writes that this replica closed, or slept through, and nobody wrote."""
        missing = second - max(last + 1, self._first)
        if last and missing > 0:
            telemetry.counter(MetricName.METRICS_SECONDS_DROPPED).inc(missing)
            log.warning("seconds are missing from the history", count=missing, after=last)

    def _note_limited(self, limited: Counter[str]) -> None:
        """Count alerts over their rule's limit; log a rule when it meets its limit, not each second while it does."""
        telemetry.gauge(MetricName.ALERTS_LIMITED).set(limited.total())
        for rule in limited.keys() - self.limited:
            log.warning("a rule has more alerts than its limit", rule=rule, refused=limited[rule])
        self.limited = frozenset(limited)

    def _publish(self, term: int, tick: SecondCommit, closed: SecondSnapshot) -> None:
        record = to_record(closed.rows[FLEET], SECONDS.step_s, rollup=False)
        try:
            self._bus.publish(self._subjects.metrics_feed, _json(MetricsTick(term=term, record=record)))
        except BusError:
            # Late it would only mislead; the history has it.
            telemetry.counter(MetricName.METRICS_UNPUBLISHED).inc()
        telemetry.histogram(MetricName.METRICS_TICK_DELAY).observe(self._clock.now() - tick.second - 1)

    async def _announce(self, leadership: LeaderState) -> None:
        """Publish the events in the outbox, then forget them; what we do not publish, a successor does."""
        try:
            if leadership.unannounced:
                for event in leadership.unannounced:
                    self._bus.publish(self._subjects.alerts_feed, _json(event))
                await self._bus.flush()
                leadership.unannounced.clear()
                leadership.announced_through = leadership.last_second
        except BusError as fault:
            log.warning(
                "alerts wait: the bus is away", reason=str(fault), waiting=len(leadership.unannounced)
            )
            return
        if through := leadership.announced_through:
            await self._store.announced(self._lease.holder, leadership.term, through)
            leadership.announced_through = 0

    def _poll_rules(self) -> None:
        if not self._rules.poll():
            return
        telemetry.gauge(MetricName.METRICS_RULES_BAD).set(bool(self._rules.error))
        if self._rules.error:
            log.error("rules file refused; the rules before it hold", reason=self._rules.error)

    def _apply_rules(self, leadership: LeaderState) -> None:
        """Judge by the rules in force: the file's or the API's may have changed, and whoever saw it first."""
        if leadership.engine.rules is not self._rules.rules:
            leadership.engine.rules = self._rules.rules
            log.info("rules loaded", rules=len(self._rules.rules.rules))
