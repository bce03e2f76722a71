"""Counts over the time they were counted in.

What an application counted in a minute and reports at its end was not counted in one second. The seconds of that minute
are written already, so its counts are given to the next ones: the rates are right, one interval late, and no count is
lost.
"""

from dataclasses import dataclass
from math import floor

from metrics_svc.aggregation.validation import Sample
from services.latency_sketch import LatencySketch

# Counts of a shorter time belong to the second in which they arrive: reports of each second are not exactly a second apart.
SPREAD_FROM_S = 2.0
# Beyond these at a time, counts are given to one second.
MAX_SPREADING = 4096
# Its multiples, without their whole parts, are spread evenly.
_GOLDEN = 0.6180339887


@dataclass(slots=True)
class SpreadCounts:
    """One sample's counts, given to `seconds` seconds from second `first` on."""

    sample: Sample
    first: int
    seconds: int

    def share(self, second: int) -> Sample:
        """Return what belongs to one second: an even share of counts, whole values of distributions."""
        whole, nth = self.sample, second - self.first
        return Sample(
            whole.source,
            whole.kind,
            requests=whole.requests / self.seconds,
            errors=whole.errors / self.seconds,
            latency=self._dealt(whole.latency, nth) if whole.latency is not None else None,
            counters={name: count / self.seconds for name, count in whole.counters.items()},
            labels=whole.labels,
            histograms={name: self._dealt(sketch, nth) for name, sketch in whole.histograms.items()},
            part=whole.part,
        )

    def _dealt(self, sketch: LatencySketch, nth: int) -> LatencySketch:
        """Return the values that the nth second gets: each bin's in turn, and those of rare bins at different times."""
        dealt = LatencySketch()
        for at, (value, count) in enumerate(sketch.weighted()):
            phase = at * _GOLDEN % 1.0
            before = floor(count * nth / self.seconds + phase)
            its = floor(count * (nth + 1) / self.seconds + phase) - before
            if its:
                dealt.add_many(value, its)
        if dealt.count:
            dealt.min, dealt.max = max(dealt.min, sketch.min), min(dealt.max, sketch.max)
        return dealt


def seconds_of(span_s: float) -> int:
    """Return to how many seconds the counts of `span_s` are given."""
    return round(span_s) if span_s >= SPREAD_FROM_S else 1
