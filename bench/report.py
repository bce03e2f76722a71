"""Medians over rounds, ratios beside a peer, a table to read and JSON to keep."""

import dataclasses
import json
from collections import defaultdict
from datetime import UTC, datetime
from pathlib import Path
from statistics import median

RESULTS = Path(__file__).parent / "results"


class Report:
    """Collects figures as (case, figure, peer) → one value a round."""

    def __init__(self, machine: dict[str, object]) -> None:
        self._machine = machine
        self._values: dict[tuple[str, str], dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))

    def add(self, case: str, peer: str, figures: object) -> None:
        """Add one round of one peer; `figures` is a dataclass of numbers."""
        for field in dataclasses.fields(figures):  # type: ignore[arg-type]  # checked by what the cases return
            self._values[case, field.name][peer].append(float(getattr(figures, field.name)))

    def table(self, reference: str) -> str:
        """Return Markdown: a row a figure, a column a peer, medians, and in brackets the ratio to `reference`."""
        lines: list[str] = []
        for case in dict.fromkeys(case for case, _ in self._values):
            rows = {figure: peers for (c, figure), peers in self._values.items() if c == case}
            peers = list(dict.fromkeys(peer for by_peer in rows.values() for peer in by_peer))
            lines += [f"**{case}**", "", f"| | {' | '.join(peers)} |", "|---" * (len(peers) + 1) + "|"]
            for figure, by_peer in rows.items():
                base = median(by_peer[reference]) if reference in by_peer else 0.0
                cells = [
                    _cell(figure, by_peer.get(peer), 0.0 if peer == reference else base) for peer in peers
                ]
                lines.append(f"| {figure} | {' | '.join(cells)} |")
            lines.append("")
        return "\n".join(lines)

    def save(self, name: str) -> Path:
        """Write everything, rounds and medians, under today's date; return where."""
        now = datetime.now(UTC)
        figures: dict[str, dict[str, dict[str, dict[str, object]]]] = defaultdict(lambda: defaultdict(dict))
        for (case, figure), by_peer in self._values.items():
            for peer, values in by_peer.items():
                figures[case][figure][peer] = {"median": median(values), "rounds": values}
        path = RESULTS / f"{now:%Y-%m-%d}-{name}.json"
        document = {"case": name, "date": now.isoformat(timespec="seconds"), "machine": self._machine}
        path.write_text(json.dumps(document | {"figures": figures}, indent=2) + "\n")
        return path


def _cell(figure: str, values: list[float] | None, base: float) -> str:
    if not values:
        return "-"
    value = median(values)
    text = f"{value:,.0f}" if value >= 1000 else f"{value:.3g}"
    if not base or figure == "lost":
        return text
    return f"{text} ({value / base:.2f}x)"
