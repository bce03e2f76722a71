"""From totals since a start to what is new since the last report (OTLP's cumulative temporality).

The last total of every stream is remembered by each replica, so a takeover neither loses nor repeats a count.
Source of the rules: OpenTelemetry metrics data model, "Resets and gaps"; and Prometheus, whose first sight of a
counter says nothing about now.
"""

from collections import OrderedDict
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from services.latency_sketch import LatencySketch

# Of one source.
MAX_INSTANCES = 64
# Of one instance, of each kind; one that was not reported for `FORGET_MS` gives its place to another.
MAX_STREAMS = 1024
FORGET_MS = 300_000
# Of all sources: some 20 MB of counts; of sketches some 30 MB as they usually are, 1.5 GB were all at their widest.
MAX_ALL_COUNTS = 65_536
MAX_ALL_SKETCHES = 16_384

Key = tuple[str, str]
T = TypeVar("T")


@dataclass(slots=True)
class StreamQuota:
    """Places for streams of one kind, shared by all sources."""

    limit: int
    taken: int = 0


@dataclass(slots=True)
class Budget:
    """Places for the streams of all sources."""

    counts: StreamQuota = field(default_factory=lambda: StreamQuota(MAX_ALL_COUNTS))
    sketches: StreamQuota = field(default_factory=lambda: StreamQuota(MAX_ALL_SKETCHES))


class _LastTotals(Generic[T]):
    """The last total of each stream of one instance, with its start and when it was reported; the stalest first."""

    __slots__ = ("_known", "_room", "forgot")

    def __init__(self, room: StreamQuota) -> None:
        self._room = room
        self._known: OrderedDict[Key, tuple[int, int, T]] = OrderedDict()
        self.forgot = False

    def swap(self, key: Key, start: int, value: T, now: int) -> tuple[int, T] | None:
        """Remember a total; return the one before it and its start, None where there is none.

        Raises:
            TooManyTotals: there is no place for another stream.
        """
        before = self._known.get(key)
        if before is None:
            self._make_room(now)
        self._known[key] = start, now, value
        self._known.move_to_end(key)
        return (before[0], before[2]) if before is not None else None

    def _make_room(self, now: int) -> None:
        if len(self._known) >= MAX_STREAMS or self._room.taken >= self._room.limit:
            stalest = next(iter(self._known), None)
            if stalest is None or now - self._known[stalest][1] <= FORGET_MS:
                raise TooManyTotals
            del self._known[stalest]
            self._room.taken -= 1
            self.forgot = True
        self._room.taken += 1

    def clear(self) -> None:
        """Give all places back."""
        self._room.taken -= len(self._known)
        self._known.clear()


class TooManyTotals(Exception):
    """There is no place for the last total of another stream."""


class InstanceTotals:
    """The streams of one instance of a source. `first_at` and `now` are times of its reports, in ms."""

    def __init__(self, budget: Budget, first_at: int) -> None:
        self._first_at = first_at
        self.now = first_at
        self._counts: _LastTotals[float] = _LastTotals(budget.counts)
        self._sketches: _LastTotals[LatencySketch] = _LastTotals(budget.sketches)

    def new_count(self, key: Key, value: float, start: int) -> float:
        """Return how much came in since the stream's last total, and remember this one. Raises TooManyTotals."""
        before = self._counts.swap(key, start, value, self.now)
        if before is None:
            return value if self._begins_now else 0.0
        restarted = start > before[0] or value < before[1]
        return value if restarted else value - before[1]

    def new_sketch(self, key: Key, sketch: LatencySketch, start: int) -> LatencySketch:
        """Return what was measured since the stream's last total, and remember this one. Raises TooManyTotals."""
        before = self._sketches.swap(key, start, sketch, self.now)
        whole = LatencySketch()
        if before is None:
            if self._begins_now:
                whole.merge(sketch)
            return whole
        later = None if start > before[0] else sketch.since(before[1])
        if later is not None:
            return later
        whole.merge(sketch)
        return whole

    def clear(self) -> None:
        """Forget all of them."""
        self._counts.clear()
        self._sketches.clear()

    @property
    def _begins_now(self) -> bool:
        """Whether a stream not seen before is new: its instance reported before without it.

        In an instance's first report every total may be days old, and says nothing about now. So may it be where a
        stream was forgotten.
        """
        return self.now > self._first_at and not (self._counts.forgot or self._sketches.forgot)


class CumulativeTotals:
    """The streams of one source, by instance. `clear` it before it goes: the budget is shared."""

    def __init__(self, budget: Budget) -> None:
        self._budget = budget
        self._instances: OrderedDict[str, InstanceTotals] = OrderedDict()

    def of(self, instance: str, timestamp: int) -> InstanceTotals:
        """Return the streams of an instance that reports at `timestamp` (ms)."""
        streams = self._instances.get(instance)
        if streams is None:
            streams = self._instances[instance] = InstanceTotals(self._budget, timestamp)
            if len(self._instances) > MAX_INSTANCES:
                self._instances.popitem(last=False)[1].clear()
        streams.now = timestamp
        self._instances.move_to_end(instance)
        return streams

    def clear(self) -> None:
        """Forget all instances."""
        for streams in self._instances.values():
            streams.clear()
        self._instances.clear()
