"""How many label sets a source may have: each is a series, kept for a month. Counted by this gateway alone.

metrics_svc counts those of all gateways and has the last word; here, whoever pushes is told at once.
"""

from collections import OrderedDict

MAX_LABEL_SETS = 32
_SOURCES_REMEMBERED = 1000


class LabelSets:
    """Remembers the label sets of sources, as hashes: what strangers send is not kept."""

    def __init__(self) -> None:
        self._sources: OrderedDict[str, set[int]] = OrderedDict()

    def admit(self, source: str, labels: dict[str, str]) -> bool:
        """Return whether a source may have this label set: one it had before, or one under the limit."""
        sets = self._sources.setdefault(source, set())
        self._sources.move_to_end(source)
        if len(self._sources) > _SOURCES_REMEMBERED:
            self._sources.popitem(last=False)
        named = hash(tuple(sorted(labels.items())))
        if named in sets:
            return True
        if len(sets) >= MAX_LABEL_SETS:
            return False
        sets.add(named)
        return True
