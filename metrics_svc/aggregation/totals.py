"""Increase of cumulative totals since the last report (OTLP's cumulative temporality).

Each replica keeps the last total of every stream, so a takeover neither loses nor repeats a count.
Sources: OpenTelemetry metrics data model, "Resets and gaps"; Prometheus, where the first value of a counter is only a
baseline.
"""

from collections import OrderedDict
from dataclasses import dataclass
from typing import Generic, TypeVar

from services.latency_sketch import LatencySketch

# Of one source.
MAX_INSTANCES = 64
# Of one instance and kind; a stream without reports for `EXPIRE_MS` may be replaced.
MAX_STREAMS = 1024
EXPIRE_MS = 300_000
# Of all sources: about 20 MB of counts, and 30 MB of usual sketches (1.5 GB if all had every bin).
MAX_ALL_COUNTS = 65_536
MAX_ALL_SKETCHES = 16_384

Key = tuple[str, str]
T = TypeVar("T")


@dataclass(slots=True)
class StreamQuota:
    """Limit on streams of one kind, shared by all sources."""

    limit: int
    used: int = 0


class Budget:
    """Limits on the streams of all sources."""

    def __init__(self) -> None:
        self.counts = StreamQuota(MAX_ALL_COUNTS)
        self.sketches = StreamQuota(MAX_ALL_SKETCHES)


class _LastTotals(Generic[T]):
    """Last total of each stream of one instance, with its start and report time; the stalest first."""

    __slots__ = ("_known", "_quota", "expired")

    def __init__(self, quota: StreamQuota) -> None:
        self._quota = quota
        self._known: OrderedDict[Key, tuple[int, int, T]] = OrderedDict()
        self.expired = False

    def swap(self, key: Key, start: int, value: T, now: int) -> tuple[int, T] | None:
        """Store a total; return the previous one and its start, if any."""
        before = self._known.get(key)
        self._known[key] = start, now, value
        self._known.move_to_end(key)
        return (before[0], before[2]) if before is not None else None

    def admit(self, key: Key, now: int) -> bool:
        """Make room for a stream; False if the limit on streams is reached."""
        if key in self._known:
            return True
        if len(self._known) >= MAX_STREAMS or self._quota.used >= self._quota.limit:
            stalest = next(iter(self._known), None)
            if stalest is None or now - self._known[stalest][1] <= EXPIRE_MS:
                return False
            del self._known[stalest]
            self._quota.used -= 1
            self.expired = True
        self._quota.used += 1
        return True

    def clear(self) -> None:
        self._quota.used -= len(self._known)
        self._known.clear()


class InstanceTotals:
    """Streams of one instance of a source. `first_at` and `now` are times of its reports, in ms."""

    def __init__(self, budget: Budget, first_at: int) -> None:
        self._first_at = first_at
        self.now = first_at
        self._counts: _LastTotals[float] = _LastTotals(budget.counts)
        self._sketches: _LastTotals[LatencySketch] = _LastTotals(budget.sketches)

    def new_count(self, key: Key, value: float, start: int) -> float | None:
        """Return the increase since the stream's last total, and store this one; None: too many streams."""
        if not self._counts.admit(key, self.now):
            return None
        before = self._counts.swap(key, start, value, self.now)
        if before is None:
            return value if self._begins_now else 0.0
        restarted = start > before[0] or value < before[1]
        return value if restarted else value - before[1]

    def new_sketch(self, key: Key, sketch: LatencySketch, start: int) -> LatencySketch | None:
        """Return the values measured since the stream's last total, and store this one; None: too many streams."""
        if not self._sketches.admit(key, self.now):
            return None
        before = self._sketches.swap(key, start, sketch, self.now)
        later = sketch.since(before[1]) if before is not None and start <= before[0] else None
        if later is None:
            later = LatencySketch()
            if before is not None or self._begins_now:
                later.merge(sketch)
        return later

    def clear(self) -> None:
        self._counts.clear()
        self._sketches.clear()

    @property
    def _begins_now(self) -> bool:
        """Whether an unknown stream is new: its instance reported before without it.

        In an instance's first report, or after a stream expired, a total may be days old and is only a baseline.
        """
        return self.now > self._first_at and not (self._counts.expired or self._sketches.expired)


class CumulativeTotals:
    """Streams of one source, by instance. Call `clear` before dropping it: the budget is shared."""

    def __init__(self, budget: Budget) -> None:
        self._budget = budget
        self._instances: OrderedDict[str, InstanceTotals] = OrderedDict()

    def of(self, instance: str, timestamp: int) -> InstanceTotals:
        """Return the totals of an instance that reports at `timestamp` (ms)."""
        totals = self._instances.get(instance)
        if totals is None:
            totals = self._instances[instance] = InstanceTotals(self._budget, timestamp)
            if len(self._instances) > MAX_INSTANCES:
                self._instances.popitem(last=False)[1].clear()
        totals.now = timestamp
        self._instances.move_to_end(instance)
        return totals

    def clear(self) -> None:
        for totals in self._instances.values():
            totals.clear()
        self._instances.clear()
