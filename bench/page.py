"""`python -m bench.page`: write the tables and plots of docs/performance.md from kept results.

A table stands between `<!-- bench: NAME -->` and `<!-- bench: end -->`; NAME is `targets`, `circumstances`, `capacity` or
`case KEY`. The text between the tables is written by hand.
"""

import argparse
import re
import subprocess
import sys
from pathlib import Path

from bench import tables
from bench.report import Results, newest
from bench.roster import labels
from bench.targets import judge

PAGE = Path(__file__).parent.parent / "docs" / "performance.md"
PLOTS = PAGE.parent / "images" / "performance"

_BLOCK = re.compile(r"(<!-- bench: (?!end)([^>]+?) -->\n).*?(<!-- bench: end -->)", re.DOTALL)


def render(text: str, results: Results) -> str:
    """Return the page with new tables.

    Raises:
        ValueError: the page has an unknown table.
    """
    names = labels()

    def fill(found: re.Match[str]) -> str:
        return f"{found[1]}\n{_table(found[2], results, names)}\n{found[3]}"

    return _BLOCK.sub(fill, text)


def _table(name: str, results: Results, names: dict[str, str]) -> str:
    if name == "targets":
        return tables.targets(judge(results, names))
    if name == "circumstances":
        return tables.circumstances(results)
    if name == "capacity":
        return tables.capacity(results)
    if name.startswith("case "):
        keys = name.removeprefix("case ").split()
        if all(results.peers(key) for key in keys):
            return "\n".join(
                f"**{results.titles[key]}**\n\n{tables.case(results, key, names)}" for key in keys
            )
    raise ValueError(f"{PAGE.name} asks for a table that these results do not have: {name}")


def write(results: Results) -> None:
    """Write the tables and the plots."""
    from bench import plots  # matplotlib takes a second, and only this needs it

    PAGE.write_text(render(PAGE.read_text(encoding="utf-8"), results), encoding="utf-8")
    plots.write(results, PLOTS)
    # The plan for a million connections is calculated with these.
    subprocess.run([sys.executable, str(PAGE.parent.parent / "scripts" / "capacity.py")], check=True)
    print(f"wrote {PAGE.relative_to(PAGE.parent.parent)} and its plots")


def main() -> int:
    """Write, or with --check compare the tables with the results."""
    parser = argparse.ArgumentParser(prog="python -m bench.page", description=__doc__)
    parser.add_argument("results", nargs="?", type=Path, help="kept results (default: the newest)")
    parser.add_argument("--check", action="store_true", help="write nothing; 1 if the tables are out of date")
    options = parser.parse_args()
    try:
        results = Results.load(options.results or newest())
        if not options.check:
            write(results)
            return 0
        text = PAGE.read_text(encoding="utf-8")
        current = render(text, results) == text
    except (OSError, ValueError) as fault:
        print(fault, file=sys.stderr)
        return 1
    if not current:
        print(f"{PAGE.name} does not show the newest results: run `python -m bench.page`", file=sys.stderr)
    return 0 if current else 1


if __name__ == "__main__":
    sys.exit(main())
