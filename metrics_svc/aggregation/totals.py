"""From totals since a start to what is new since the last report (OTLP's cumulative temporality).

The last total of every stream is remembered by each replica, so a takeover neither loses nor repeats a count.
Source of the rules: OpenTelemetry metrics data model, "Resets and gaps"; and Prometheus, whose first sight of a
counter says nothing about now.
"""

from collections import OrderedDict
from dataclasses import dataclass, field

from services.sketch import LatencySketch

MAX_INSTANCES = 64
MAX_STREAMS = 1024

Key = tuple[str, str]


@dataclass(slots=True)
class Streams:
    """The streams of one instance of a source. `first_at` and `now` are times of its reports, in ms."""

    first_at: int
    now: int
    counts: dict[Key, tuple[int, float]] = field(default_factory=dict)
    sketches: dict[Key, tuple[int, LatencySketch]] = field(default_factory=dict)

    def new_count(self, key: Key, value: float, start: int) -> float | None:
        """Return how much came in since the stream's last total, and remember this one; None if there are too many."""
        before = self.counts.get(key)
        if before is None and len(self.counts) >= MAX_STREAMS:
            return None
        self.counts[key] = start, value
        if before is None:
            return value if self._begins_now else 0.0
        restarted = start > before[0] or value < before[1]
        return value if restarted else value - before[1]

    def new_sketch(self, key: Key, sketch: LatencySketch, start: int) -> LatencySketch | None:
        """Return what was measured since the stream's last total, and remember this one; None if there are too many."""
        before = self.sketches.get(key)
        if before is None and len(self.sketches) >= MAX_STREAMS:
            return None
        self.sketches[key] = start, sketch
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

    @property
    def _begins_now(self) -> bool:
        """Whether a stream not seen before is new: its instance reported before without it.

        In an instance's first report every total may be days old, and says nothing about now.
        """
        return self.now > self.first_at


class Totals:
    """The streams of one source, by instance."""

    def __init__(self) -> None:
        self._instances: OrderedDict[str, Streams] = OrderedDict()

    def of(self, instance: str, timestamp: int) -> Streams:
        """Return the streams of an instance that reports at `timestamp` (ms)."""
        streams = self._instances.get(instance)
        if streams is None:
            streams = self._instances[instance] = Streams(timestamp, timestamp)
            if len(self._instances) > MAX_INSTANCES:
                self._instances.popitem(last=False)
        streams.now = timestamp
        self._instances.move_to_end(instance)
        return streams
