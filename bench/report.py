"""Figures of a run by case, figure and peer, one value a round: kept as JSON, read as medians and ratios."""

import dataclasses
import json
import re
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from statistics import median
from typing import Any, Self

from bench.cases.catalogue import Measured

_LIST = re.compile(r"\[[^\[\]{}\"]*\]")  # a figure's rounds, on one line

RESULTS = Path(__file__).parent / "results"

Values = dict[str, list[float]]  # by peer, one a round


class Results:
    """Measured figures.

    `about` has what a reader needs besides: machine, versions, options, absent peers, failed steps.
    """

    def __init__(self, about: dict[str, Any]) -> None:
        self.about = about
        self.titles: dict[str, str] = {}
        self._values: dict[str, dict[str, Values]] = {}

    def add(self, peer: str, measured: Measured) -> None:
        """Add one round of one peer."""
        self.titles.setdefault(measured.key, measured.title)
        of_case = self._values.setdefault(measured.key, {})
        for field in dataclasses.fields(measured.figures):  # type: ignore[arg-type]  # cases return dataclasses
            value = float(f"{getattr(measured.figures, field.name):.6g}")  # more digits are noise
            of_case.setdefault(field.name, {}).setdefault(peer, []).append(value)

    def cases(self) -> Iterator[str]:
        """Yield the keys of the cases in the order of measurement."""
        yield from self._values

    def figures(self, case: str) -> list[str]:
        """Return the names of a case's figures."""
        return list(self._values.get(case, {}))

    def peers(self, case: str) -> list[str]:
        """Return the peers of a case."""
        return list(dict.fromkeys(peer for values in self._values.get(case, {}).values() for peer in values))

    def rounds(self, case: str, figure: str, peer: str) -> list[float]:
        """Return a figure's values, one a round; none if it was not measured."""
        return self._values.get(case, {}).get(figure, {}).get(peer, [])

    def value(self, case: str, figure: str, peer: str) -> float | None:
        """Return the median over the rounds."""
        values = self.rounds(case, figure, peer)
        return median(values) if values else None

    def ratio(self, case: str, figure: str, peer: str, other: str, other_case: str = "") -> float | None:
        """Return the ratio of a peer's figure to `other`'s: the median of the rounds' ratios.

        Round by round, because the two were measured within the same minutes; a machine that drifts between rounds
        drifts for both.
        """
        own, others = self.rounds(case, figure, peer), self.rounds(other_case or case, figure, other)
        if not own or not others:
            return None
        if len(own) == len(others) and all(others):
            return median(mine / theirs for mine, theirs in zip(own, others, strict=True))
        return median(own) / median(others) if median(others) else None

    def save(self, path: Path | None = None) -> Path:
        """Write rounds and medians under today's date; return the path."""
        now = datetime.now(UTC)
        path = path or RESULTS / f"{now:%Y-%m-%d}-peers.json"
        cases = {
            case: {
                "title": self.titles[case],
                "figures": {
                    figure: {
                        peer: {"median": float(f"{median(values):.6g}"), "rounds": values}
                        for peer, values in peers.items()
                    }
                    for figure, peers in figures.items()
                },
            }
            for case, figures in self._values.items()
        }
        document = {"case": "peers", "date": now.isoformat(timespec="seconds"), **self.about, "cases": cases}
        path.parent.mkdir(parents=True, exist_ok=True)
        text = _LIST.sub(
            lambda found: " ".join(found[0].split()), json.dumps(document, indent=1, ensure_ascii=False)
        )
        path.write_text(text + "\n", encoding="utf-8")
        return path

    @classmethod
    def load(cls, path: Path) -> Self:
        """Read a file of `save`."""
        document = json.loads(path.read_text(encoding="utf-8"))
        cases = document.pop("cases")
        results = cls(document)
        for case, kept in cases.items():
            results.titles[case] = kept["title"]
            results._values[case] = {
                figure: {peer: values["rounds"] for peer, values in peers.items()}
                for figure, peers in kept["figures"].items()
            }
        return results


def newest() -> Path:
    """Return the newest kept results.

    Raises:
        FileNotFoundError: there are none.
    """
    kept = sorted(RESULTS.glob("*-peers.json"))
    if not kept:
        raise FileNotFoundError(f"no results in {RESULTS}: run `make bench` first")
    return kept[-1]
