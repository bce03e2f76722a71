"""Remove each guard from a copy of the sources, and check that its tests fail: `python -m tests.guards [WORD …]`.

Words choose guards by what their names contain. Exit code 1 where a test did not notice.
"""

import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.guards.guard import Edit, Guard
from tests.guards.table import GUARDS

ROOT = Path(__file__).resolve().parents[2]
_SOURCES = ("services", "gateway", "presence_svc", "metrics_svc", "tests", "docs", "deploy", "clients/python")
_LIMIT_S = 300
_FAILED = re.compile(r"^FAILED ([^\s\[]+)", re.MULTILINE)


@contextmanager
def taken_out(tree: Path, edits: tuple[Edit, ...]) -> Iterator[None]:
    """Make the edits, and take them back."""
    originals = {path: path.read_text() for path in {tree / edit.file for edit in edits}}
    try:
        for edit in edits:
            path = tree / edit.file
            text = path.read_text()
            if text.count(edit.guard) != 1:
                raise ValueError(f"{edit.file} has {text.count(edit.guard)} times: {edit.guard}")
            path.write_text(text.replace(edit.guard, edit.without))
        yield
    finally:
        for path, text in originals.items():
            path.write_text(text)


def unnoticed(tree: Path, guard: Guard) -> tuple[list[str], str]:
    """Return the guard's tests that do not fail without it, and what pytest printed."""
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-q",
        "-p",
        "no:cacheprovider",
        "--tb=line",
        "-rf",
        *guard.tests,
    ]
    with taken_out(tree, guard.edits):
        done = subprocess.run(command, cwd=tree, capture_output=True, text=True, timeout=_LIMIT_S)
    failed = set(_FAILED.findall(done.stdout))
    return [test for test in guard.tests if test not in failed], done.stdout


def main(words: list[str]) -> int:
    """Run all, or those whose names contain one of the words."""
    chosen = [guard for guard in GUARDS if not words or any(word in guard.name for word in words)]
    missed = 0
    with tempfile.TemporaryDirectory(prefix="guards-") as folder:
        tree = Path(folder)
        for name in _SOURCES:
            if (ROOT / name).is_dir():
                shutil.copytree(
                    ROOT / name, tree / name, ignore=shutil.ignore_patterns("__pycache__", "node_modules")
                )
        shutil.copy(ROOT / "pyproject.toml", tree)
        for guard in chosen:
            began = time.monotonic()
            passed, output = unnoticed(tree, guard)
            verdict = f"NOT NOTICED by {', '.join(passed)}" if passed else "noticed"
            sys.stdout.write(f"{guard.name}: {verdict} ({time.monotonic() - began:.0f} s)\n")
            sys.stdout.flush()
            if passed:
                missed += 1
                sys.stdout.write(output[-1500:] + "\n")
    sys.stdout.write(f"{len(chosen) - missed} of {len(chosen)} guards are watched over\n")
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
