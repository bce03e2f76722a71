"""Run Tidings from a folder that changes, and start it anew when it does: `python -m tidings_cli.local.dev_reload FOLDER COMMAND`.

For development in containers. The packages are copied from where they are installed into FOLDER, once, and
`tidings COMMAND` runs from there; whoever changes a file in FOLDER (Tilt does) has the process replaced. When the process
ends by itself, the next change starts it again: a slip in the code leaves the container up for its correction.
"""

import contextlib
import importlib.util
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

PACKAGES = ("services", "gateway", "presence_svc", "metrics_svc")
_POLL_S = 0.3
_STOP_S = 10.0

Seen = dict[str, tuple[int, int]]


def copy_packages(folder: Path, packages: Sequence[str]) -> None:
    """Copy packages from where Python finds them, but for those that are in the folder already."""
    for package in packages:
        found = importlib.util.find_spec(package)
        if found is None or not found.submodule_search_locations:
            raise SystemExit(f"live: there is no package {package}")
        if not (folder / package).exists():
            # Complete or not there at all, also when this is interrupted.
            draft = folder / f".{package}.new"
            shutil.rmtree(draft, ignore_errors=True)
            source = found.submodule_search_locations[0]
            shutil.copytree(source, draft, ignore=shutil.ignore_patterns("__pycache__"))
            draft.rename(folder / package)


def look(folder: Path) -> Seen:
    """Return every file with its time and size."""
    seen = {}
    for path in folder.rglob("*"):
        if path.suffix != ".pyc":
            with contextlib.suppress(FileNotFoundError):  # gone while we looked
                status = path.stat()
                seen[str(path)] = (status.st_mtime_ns, status.st_size)
    return seen


class Live:
    """A command, run again whenever the folder has changed and is quiet again."""

    def __init__(self, folder: Path, command: Sequence[str]) -> None:
        self._folder = folder
        self._command = list(command)
        # Not what is installed, and no bytecode beside what changes.
        self._environment = {**os.environ, "PYTHONPATH": str(folder), "PYTHONDONTWRITEBYTECODE": "1"}
        self._process: subprocess.Popen[bytes] | None = None
        self._asked_to_stop = False

    def run(self) -> int:
        """Run until told to stop (SIGTERM, SIGINT), and return the command's exit code."""
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._on_signal)
        seen = look(self._folder)
        self._start()
        while not self._asked_to_stop:
            time.sleep(_POLL_S)
            self._say_if_ended()
            now = look(self._folder)
            if now != seen:
                seen = self._settled(now)
                _say("files changed; starting anew")
                self._stop()
                if not self._asked_to_stop:
                    self._start()
        return self._stop()

    def _settled(self, seen: Seen) -> Seen:
        """Return what is there once nothing changes any more: several files belong to one change."""
        while not self._asked_to_stop:
            time.sleep(_POLL_S)
            now = look(self._folder)
            if now == seen:
                break
            seen = now
        return seen

    def _on_signal(self, _number: int, _frame: object) -> None:
        self._asked_to_stop = True

    def _start(self) -> None:
        # Our own folder is not where it looks for packages: PYTHONPATH is.
        self._process = subprocess.Popen(self._command, env=self._environment)  # noqa: S603  # our own command line

    def _stop(self) -> int:
        process, self._process = self._process, None
        if process is None:
            return 0
        process.terminate()
        try:
            return process.wait(_STOP_S)
        except subprocess.TimeoutExpired:
            process.kill()
            return process.wait()

    def _say_if_ended(self) -> None:
        if self._process is not None and (code := self._process.poll()) is not None:
            _say(f"ended with code {code}; waiting for a change")
            self._process = None


def _say(text: str) -> None:
    sys.stderr.write(f"live: {text}\n")


def main(arguments: Sequence[str]) -> int:
    """Run `tidings COMMAND…` from the folder."""
    if len(arguments) < 2:
        raise SystemExit("usage: python -m tidings_cli.local.dev_reload FOLDER COMMAND [OPTION…]")
    folder = Path(arguments[0])
    folder.mkdir(parents=True, exist_ok=True)
    copy_packages(folder, PACKAGES)
    return Live(folder, [sys.executable, "-P", "-m", "tidings_cli", *arguments[1:]]).run()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
