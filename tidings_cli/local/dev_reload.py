"""Run Tidings from a folder, and restart it when files there change: `python -m tidings_cli.local.dev_reload FOLDER COMMAND`.

For development in containers. Once, the packages are copied from where they are installed into FOLDER; `tidings COMMAND`
runs from there. Tilt writes changed files into FOLDER. A process that ended by itself is started by the next change: a
mistake in the code does not end the container.
"""

import importlib.util
import os
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Sequence
from pathlib import Path

from watchfiles import watch

PACKAGES = ("services", "gateway", "presence_svc", "metrics_svc", "tidings_cli")
_QUIET_MS = 300  # several files belong to one change
_STOP_S = 10.0


def copy_packages(folder: Path, packages: Sequence[str]) -> None:
    """Copy installed packages into the folder; those that are there stay as they are."""
    for package in packages:
        found = importlib.util.find_spec(package)
        if found is None or not found.submodule_search_locations:
            raise SystemExit(f"dev_reload: there is no package {package}")
        if not (folder / package).exists():
            # An interrupted copy must not look complete.
            draft = folder / f".{package}.new"
            shutil.rmtree(draft, ignore_errors=True)
            source = found.submodule_search_locations[0]
            shutil.copytree(source, draft, ignore=shutil.ignore_patterns("__pycache__"))
            draft.rename(folder / package)


def run(folder: Path, command: Sequence[str]) -> int:
    """Run a command, and again after each change in the folder, until SIGTERM or SIGINT; return its exit code."""
    stopping = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stopping.set())
    # Imports come from the folder, not from what is installed; no bytecode is written beside its files.
    environment = {**os.environ, "PYTHONPATH": str(folder), "PYTHONDONTWRITEBYTECODE": "1"}

    def start() -> "subprocess.Popen[bytes]":
        return subprocess.Popen(list(command), env=environment)  # noqa: S603  # our own command line

    process, running = start(), True
    for changes in watch(
        folder, debounce=_QUIET_MS, rust_timeout=_QUIET_MS, yield_on_timeout=True, stop_event=stopping
    ):
        if changes:
            _log("files changed; restarting")
            _stop(process)
            process, running = start(), True
        elif running and process.poll() is not None:
            _log(f"ended with code {process.returncode}; waiting for a change")
            running = False
    return _stop(process)


def _stop(process: "subprocess.Popen[bytes]") -> int:
    process.terminate()
    try:
        return process.wait(_STOP_S)
    except subprocess.TimeoutExpired:
        process.kill()
        return process.wait()


def _log(text: str) -> None:
    sys.stderr.write(f"dev_reload: {text}\n")


def main(arguments: Sequence[str]) -> int:
    """Run `tidings COMMAND…` from the folder."""
    if len(arguments) < 2:
        raise SystemExit("usage: python -m tidings_cli.local.dev_reload FOLDER COMMAND [OPTION…]")
    folder = Path(arguments[0])
    folder.mkdir(parents=True, exist_ok=True)
    copy_packages(folder, PACKAGES)
    return run(folder, [sys.executable, "-P", "-m", "tidings_cli", *arguments[1:]])


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
